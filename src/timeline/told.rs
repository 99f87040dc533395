//! Boot events in the daemon's own log.

use crate::policy::event::{AttemptId, BootEvent, StageState};

/// What the fields of an event are called; the journal has them as `BRIDGEHEAD_HOST` and so on. The line says all but the
/// attempt in words.
pub const FIELDS: [&str; 4] = ["host", "attempt", "stage", "state"];

/// Whose messages have them so: another crate's `host` is something else.
pub const TARGET: &str = module_path!();

/// Writes it, with what the journal is searched by. `newest`: the machine's newest attempt so far.
pub(super) fn log(event: &BootEvent, newest: Option<&AttemptId>) {
    let named = event.begins.as_ref().or(event.attempt.as_ref());
    let attempt = named.or(newest).map(|attempt| attempt.0.as_str());
    let (host, stage) = (event.machine.0.as_str(), event.stage.name());
    let state = event.state.name();
    let words = words(event);
    match event.state {
        StageState::Ignored => tracing::debug!(host, attempt, stage, state, "{words}"),
        StageState::Fail | StageState::Degraded => {
            tracing::warn!(host, attempt, stage, state, "{words}");
        }
        _ => tracing::info!(host, attempt, stage, state, "{words}"),
    }
}

/// `kvm07 root retry: no answer`
fn words(event: &BootEvent) -> String {
    let state = match event.state {
        StageState::Ok | StageState::Info => String::new(),
        state => format!(" {}", state.name()),
    };
    format!(
        "{} {}{state}: {}",
        event.machine, event.stage, event.message
    )
}

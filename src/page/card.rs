//! One machine, as the page and its script show it.

use jiff::Timestamp;
use serde::Serialize;

use crate::policy::event::Stage;
use crate::policy::progress::Standing;
use crate::site::report::MachineStatus;
use crate::span::span;

/// What of a machine is shown in its place in the rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Its name.
    pub host: String,
    /// `unseen`, `running`, …: what colours it.
    pub state: String,
    /// How it stands, in words.
    pub words: String,
    /// How far on its way, percent.
    pub progress: usize,
    /// Since when, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// The last thing known.
    pub note: String,
}

/// The same, with how long ago that was when the page was made.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    card: Card,
    age: String,
}

impl Row {
    pub(super) fn new(machine: &MachineStatus) -> Self {
        Self {
            card: Card::new(machine),
            age: machine.for_s.map(span).unwrap_or_default(),
        }
    }
}

impl Card {
    /// Of what `status` says.
    pub fn new(machine: &MachineStatus) -> Self {
        Self {
            host: machine.host.clone(),
            state: machine.state.clone(),
            words: words(machine),
            progress: progress(machine),
            since_ms: machine.since.map(Timestamp::as_millisecond),
            note: machine.note.clone(),
        }
    }

    /// What a state is called where many hosts are counted.
    pub const fn state_words(standing: Standing) -> &'static str {
        match standing {
            Standing::Unseen => "not seen yet",
            Standing::Refused => "refused",
            Standing::Running => "on their way",
            Standing::Done => "joined",
            Standing::Away => "on their own disk",
            Standing::Degraded => "joined with a fault",
            Standing::Failed => "failed",
            Standing::Stalled => "stalled",
        }
    }
}

/// Colour is never the only sign.
fn words(machine: &MachineStatus) -> String {
    let stage = machine.stage.as_deref().unwrap_or("its first packet");
    match machine.state.as_str() {
        "unseen" => "not seen yet".to_owned(),
        "refused" => "gets no answer".to_owned(),
        "done" => "joined".to_owned(),
        "away" => "on its own disk".to_owned(),
        "degraded" => format!("fault: {stage}"),
        "failed" => format!("failed: {stage}"),
        "stalled" => format!("stalled: {stage}"),
        _ => stage.to_owned(),
    }
}

/// How much of the way from power-on to *joined* lies behind it.
fn progress(machine: &MachineStatus) -> usize {
    let stage = machine
        .stage
        .as_deref()
        .and_then(|name| name.parse::<Stage>().ok());
    let last = Stage::ALL.len() - 1;
    let done = Stage::ALL.iter().position(|one| Some(*one) == stage);
    done.map_or(0, |done| done * 100 / last)
}

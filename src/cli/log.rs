//! `bridgehead log HOST`: the story of its last boots.

use clap::Args;
use jiff::Timestamp;

use super::table::table;
use super::{Daemon, Failure, client, print, print_json};
use crate::policy::event::BootEvent;
use crate::site::report::{AttemptLog, HostLog};

/// Arguments of `log`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A host, a `mac-…` of `bridgehead status`, or `wire` for packets without a sender
    host: String,
    #[command(flatten)]
    daemon: Daemon,
    /// Every boot that is remembered, not the last alone
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = client::host_path(&arguments.host, "log")?;
    let mut log: HostLog = client::get(&arguments.daemon.state, &path)?;
    if !arguments.all {
        log.attempts.drain(..log.attempts.len().saturating_sub(1));
    }
    if arguments.json {
        print_json(&log)
    } else {
        print(&text(&log))
    }
}

fn text(log: &HostLog) -> String {
    let mut text = String::new();
    if log.attempts.is_empty() && log.strays.is_empty() {
        text = format!("{} has not been seen yet\n", log.host);
    }
    if let (Some(first), true) = (log.strays.first(), log.attempts.is_empty()) {
        text += &lines(first.at, &log.strays);
    }
    for attempt in &log.attempts {
        text += &story(attempt);
    }
    if !log.console.is_empty() {
        text += &format!(
            "\nLast kernel lines that it sent after a failure:\n{}\n",
            log.console.trim_end()
        );
    }
    text
}

fn story(attempt: &AttemptLog) -> String {
    let began = attempt.began.strftime("%Y-%m-%d %H:%M:%S UTC");
    format!(
        "Boot {} of {began}\n{}",
        attempt.attempt,
        lines(attempt.began, &attempt.events)
    )
}

fn lines(began: Timestamp, events: &[BootEvent]) -> String {
    let row = |event: &BootEvent| {
        let ms = event.at.as_millisecond() - began.as_millisecond();
        let seconds =
            std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64();
        vec![
            format!("{seconds:>8.2}"),
            event.stage.to_string(),
            event.state.name().to_owned(),
            event.message.clone(),
        ]
    };
    table(&events.iter().map(row).collect::<Vec<_>>())
}

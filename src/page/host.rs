//! The page of one machine: how it stands, the story of its last boots, its last words.

use jiff::Timestamp;
use serde::Serialize;

use super::card::Row;
use super::{PageError, render};
use crate::policy::event::{BootEvent, Evidence};
use crate::policy::progress::Standing;
use crate::site::report::{AttemptLog, HostLog, MachineStatus, Told};
use crate::site::why::Why;

#[derive(Debug, Serialize)]
struct HostView<'a> {
    site: &'a str,
    version: &'a str,
    now_ms: i64,
    machine: Row,
    place: Option<String>,
    entry: Option<&'a str>,
    /// The likely cause, where the note does not tell it.
    cause: Option<&'a str>,
    /// What to try, of one that does not come or needs a look.
    next: &'a [String],
    /// Newest first.
    attempts: Vec<AttemptView<'a>>,
    strays: Vec<Line<'a>>,
    console: &'a str,
}

#[derive(Debug, Serialize)]
struct AttemptView<'a> {
    id: &'a str,
    began: String,
    lines: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    at: String,
    after: String,
    stage: &'static str,
    state: &'static str,
    /// How we know.
    evidence: &'static str,
    message: &'a str,
}

/// The page of a machine.
///
/// # Errors
/// [`PageError`] where the template is broken.
pub fn host(
    site: &str,
    machine: &MachineStatus,
    log: &HostLog,
    why: Option<&Why>,
    version: &str,
    now: Timestamp,
) -> Result<String, PageError> {
    let unseen = machine.state == Standing::Unseen.name();
    let why = why.filter(|_| unseen || machine.needs_a_look());
    let cause = why.map(|why| why.cause.as_str());
    let view = HostView {
        cause: cause.filter(|cause| !machine.note.contains(cause)),
        next: why.map_or(&[], |why| &why.next),
        site,
        version,
        now_ms: now.as_millisecond(),
        machine: Row::new(machine),
        place: place(machine),
        entry: machine.entry.as_deref(),
        attempts: log.attempts.iter().rev().map(attempt).collect(),
        strays: log
            .strays
            .iter()
            .rev()
            .map(|event| line(event, None))
            .collect(),
        console: &log.console,
    };
    render("host.html", &view)
}

fn place(machine: &MachineStatus) -> Option<String> {
    let rack = machine.rack.as_deref()?;
    Some(match machine.unit {
        Some(unit) => format!("rack {rack}, unit {unit}"),
        None => format!("rack {rack}"),
    })
}

fn attempt(attempt: &AttemptLog) -> AttemptView<'_> {
    let story = attempt.story().into_iter();
    AttemptView {
        id: &attempt.attempt,
        began: attempt.began.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        lines: story.map(|told| told_line(told, attempt.began)).collect(),
    }
}

fn told_line(told: Told<'_>, began: Timestamp) -> Line<'_> {
    match told {
        Told::Event(event) => line(event, Some(began)),
        Told::Said(said) => Line {
            at: time(said.at),
            after: after(said.at, began),
            stage: "console",
            state: "syslog",
            evidence: evidence(Evidence::Unproven),
            message: &said.text,
        },
    }
}

fn line(event: &BootEvent, began: Option<Timestamp>) -> Line<'_> {
    Line {
        at: time(event.at),
        after: began
            .map(|began| after(event.at, began))
            .unwrap_or_default(),
        stage: event.stage.name(),
        state: event.state.name(),
        evidence: evidence(event.evidence),
        message: &event.message,
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%H:%M:%S%.3f").to_string()
}

fn after(at: Timestamp, began: Timestamp) -> String {
    let ms = (at.as_millisecond() - began.as_millisecond()).max(0);
    format!("+{}.{:01} s", ms / 1000, ms % 1000 / 100)
}

fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Sent => "we sent it",
        Evidence::Acknowledged => "it has it",
        Evidence::Reported => "it reported",
        Evidence::Unproven => "its address said, unproven",
    }
}

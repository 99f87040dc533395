//! What hosts report, read.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::policy::event::{BootEvent, Evidence, MachineId, Stage, StageState};
use crate::wire::text::clean;

/// A message from a host is cut to this, characters.
const MAX_MESSAGE: usize = 600;
/// Events in one post.
const MAX_BATCH: usize = 100;

/// A post that can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    /// Not UTF-8.
    #[error("events must be UTF-8 text")]
    NotText,
    /// A line without `=`.
    #[error("line {0} is not key=value")]
    NotKeyValue(usize),
    /// No such stage, or one that only the daemon sees.
    #[error("`{0}` is not a stage that a host reports")]
    Stage(String),
    /// No such state.
    #[error("`{0}` is not a state: start, ok, retry, fail, degraded or info")]
    State(String),
    /// Too many at once.
    #[error("more than {MAX_BATCH} events in one post")]
    TooMany,
    /// Nothing in it.
    #[error("no event in the post")]
    Empty,
}

/// Reads `key=value` lines; an empty line stands between two events.
///
/// # Errors
/// [`BadReport`]; then none of the events counts.
pub fn parse(
    body: &[u8],
    machine: &MachineId,
    now: Timestamp,
) -> Result<Vec<BootEvent>, BadReport> {
    let text = std::str::from_utf8(body).map_err(|_| BadReport::NotText)?;
    let mut events = Vec::new();
    let mut fields = BTreeMap::new();
    for (index, line) in text.lines().chain([""]).enumerate() {
        if let Some((key, value)) = line.split_once('=') {
            fields.insert(key, value);
        } else if !line.is_empty() {
            return Err(BadReport::NotKeyValue(index + 1));
        } else if !fields.is_empty() {
            if events.len() == MAX_BATCH {
                return Err(BadReport::TooMany);
            }
            events.push(event(&fields, machine, now)?);
            fields.clear();
        }
    }
    if events.is_empty() {
        Err(BadReport::Empty)
    } else {
        Ok(events)
    }
}

fn event(
    fields: &BTreeMap<&str, &str>,
    machine: &MachineId,
    now: Timestamp,
) -> Result<BootEvent, BadReport> {
    let get = |key| fields.get(key).copied().unwrap_or("");
    let stage = get("stage")
        .parse()
        .ok()
        .filter(|stage| *stage >= Stage::Early);
    let stage = stage.ok_or_else(|| BadReport::Stage(clean(get("stage"), 40)))?;
    let state = StageState::reported(get("state"))
        .ok_or_else(|| BadReport::State(clean(get("state"), 40)))?;
    let mut event = BootEvent::sent(now, machine.clone(), stage, state, message(fields));
    event.evidence = Evidence::Reported;
    event.uptime_ms = get("uptime_ms").parse().ok();
    Ok(event)
}

/// The message with the try; where there is none, the facts that came with *joined*. After a
/// failure what the host does next.
fn message(fields: &BTreeMap<&str, &str>) -> String {
    let get = |key| fields.get(key).copied().filter(|value| !value.is_empty());
    let mut text = get("message").unwrap_or("").to_owned();
    // Of a retry the words say it already.
    let new = |number: &&str| *number != "1" && !text.contains(&format!("(try {number}"));
    if let Some(number) = get("try").filter(new) {
        text += &format!(" (try {number})");
    }
    if text.is_empty() {
        let facts = ["bridge", "port", "address", "root", "pool", "kvm"];
        let found = facts
            .into_iter()
            .filter_map(|fact| Some(format!("{fact} {}", get(fact)?)));
        text = found.collect::<Vec<_>>().join("; ");
    }
    if let Some(next) = get("next") {
        text += &format!(" -> {next}");
    }
    clean(&text, MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<BootEvent>, BadReport> {
        parse(
            body.as_bytes(),
            &MachineId("kvm01".into()),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn several_events_in_one_post() {
        let events = read("stage=bridge\nstate=ok\nmessage=br0 up\nuptime_ms=4310\n\nstage=joined\nstate=ok\nkvm=present\nattempt=x\n").unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].uptime_ms, Some(4310));
        assert_eq!(events[1].message, "kvm present");
    }

    #[test]
    fn a_failure_says_what_the_host_does_next() {
        let events = read("stage=root\nstate=fail\nmessage=no answer\nnext=stays\n").unwrap();
        assert_eq!(events[0].message, "no answer -> stays");
    }

    #[test]
    fn hostile_posts_are_refused_by_name() {
        assert_eq!(read(""), Err(BadReport::Empty));
        assert_eq!(read("nonsense"), Err(BadReport::NotKeyValue(1)));
        assert_eq!(
            read("stage=dhcp\nstate=ok"),
            Err(BadReport::Stage("dhcp".into()))
        );
        assert_eq!(
            read("stage=root\nstate=\x1b[2Jfine"),
            Err(BadReport::State("fine".into()))
        );
        assert_eq!(
            parse(b"\xff", &MachineId::wire(), Timestamp::UNIX_EPOCH),
            Err(BadReport::NotText)
        );
        let many = "stage=root\nstate=ok\n\n".repeat(MAX_BATCH + 1);
        assert_eq!(read(&many), Err(BadReport::TooMany));
    }

    #[test]
    fn messages_are_cut_and_cleaned() {
        let text = format!("stage=root\nstate=ok\nmessage=\x1b]0;{}", "x".repeat(5000));
        let message = &read(&text).unwrap()[0].message;
        assert_eq!(message.chars().count(), MAX_MESSAGE);
        assert!(!message.contains('\x1b'));
    }
}

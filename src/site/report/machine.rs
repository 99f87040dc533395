//! Where one machine stands: its newest boot, stage by stage, and a line about it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::policy::event::{BootEvent, Stage, StageState};
use crate::policy::moving::Moving;
use crate::policy::progress::{Attempt, Machine, Standing};
use crate::policy::stall::{refused, stuck};

/// Where one machine stands.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Its name, or `mac-…`.
    pub host: String,
    /// The stage it is in; `None` before it was ever seen.
    pub stage: Option<String>,
    /// `unseen`, `refused`, `running`, `done`, `away`, `degraded`, `failed` or `stalled`.
    pub state: String,
    /// Since when it is there.
    pub since: Option<Timestamp>,
    /// Seconds since then.
    pub for_s: Option<i64>,
    /// When it counts as stalled, or did, if nothing more is heard of it; `None` where it may stay for ever.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline: Option<Timestamp>,
    /// When anything was last heard of it, in a boot or outside one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heard: Option<Timestamp>,
    /// It has a connection open for its root over the built-in NFS.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub connected: bool,
    /// The boot attempt.
    pub attempt: Option<String>,
    /// The entry of its menu that it booted, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entry: Option<String>,
    /// An edit of its inventory waits for the end of this boot.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub edit_waits: bool,
    /// It failed, and says that it stays as it is (`on_failure: hold`): by itself nothing comes any more.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub stays: bool,
    /// The last thing known, and what to do where it is stuck.
    pub note: String,
    /// Rack and unit.
    pub rack: Option<String>,
    /// The unit in the rack.
    pub unit: Option<u16>,
    /// The newest attempt's stages, in the order in which they were reached.
    pub stages: Vec<StageStatus>,
}

impl MachineStatus {
    /// Whether somebody should look at it.
    pub fn needs_a_look(&self) -> bool {
        let mut look = Standing::ALL.iter().filter(|one| one.needs_a_look());
        look.any(|state| state.name() == self.state)
    }
}

/// One stage of one attempt.
#[derive(Debug, Serialize, Deserialize)]
pub struct StageStatus {
    /// Its name.
    pub stage: String,
    /// How it stands.
    pub state: String,
    /// When it got there.
    pub at: Timestamp,
    /// Milliseconds since the attempt began.
    pub ms: i64,
    /// Milliseconds since the stage before it.
    #[serde(default)]
    pub took_ms: i64,
    /// The host's own uptime then, milliseconds.
    pub uptime_ms: Option<u64>,
    /// `sent`, `acknowledged` or `reported`.
    pub evidence: String,
    /// In words.
    pub message: String,
}

pub(in crate::site) fn machine_status(
    name: &str,
    machine: &Machine,
    now: Timestamp,
) -> MachineStatus {
    let standing = machine.standing(now);
    let attempt = machine.attempt();
    let current = attempt.and_then(Attempt::current);
    let moving = attempt.and_then(|attempt| attempt.fetches(now));
    let moving = moving.filter(|_| standing == Standing::Running);
    let since = match (standing, attempt.and_then(|attempt| attempt.joined)) {
        (Standing::Done, Some(joined)) => Some(joined),
        _ => current
            .map(|event| since(attempt, event))
            .or_else(|| Some(machine.refusal()?.at)),
    };
    MachineStatus {
        host: name.to_owned(),
        stage: current.map(|event| event.stage.to_string()),
        state: standing.name().to_owned(),
        since,
        for_s: since.map(|since| (now.as_second() - since.as_second()).max(0)),
        deadline: current
            .filter(|_| matches!(standing, Standing::Running | Standing::Stalled))
            .and_then(|event| moving.map_or_else(|| deadline(event), Moving::deadline)),
        heard: machine.heard(),
        connected: false,
        attempt: attempt.map(|attempt| attempt.id.0.clone()),
        entry: attempt.and_then(|attempt| Some(attempt.choice.as_ref()?.entry.clone())),
        edit_waits: false,
        stays: standing == Standing::Failed && current.is_some_and(stays),
        note: note(standing, machine, now),
        rack: None,
        unit: None,
        stages: attempt.map(stages).unwrap_or_default(),
    }
}

/// What the initrd says comes next where `on_failure` is `hold` (`next_action` of its `60-fail`).
fn stays(current: &BootEvent) -> bool {
    current.message.ends_with(" -> stays as it is")
}

fn deadline(current: &BootEvent) -> Option<Timestamp> {
    let patience = current.stage.patience_s();
    let until = current.at.checked_add(SignedDuration::from_secs(patience));
    until.ok().filter(|_| patience > 0)
}

/// When the attempt came to the stage that it is in.
fn since(attempt: Option<&Attempt>, current: &BootEvent) -> Timestamp {
    let same = attempt.and_then(|attempt| {
        let back = attempt.events.iter().rev();
        back.take_while(|event| event.stage == current.stage || event.state == StageState::Info)
            .last()
    });
    let first = same.unwrap_or(current);
    attempt.map_or(first.at, |attempt| attempt.time_of(first))
}

/// What two machines with one MAC look like, and whoever has taken the host's address.
pub(in crate::site) const DOUBLE: &str =
    "reports in its name are refused again and again: perhaps two machines have its MAC";

fn note(standing: Standing, machine: &Machine, now: Timestamp) -> String {
    let attempt = machine.attempt();
    let Some((attempt, event)) = attempt.and_then(|known| Some((known, known.current()?))) else {
        // What was refused is all that there is to say.
        let newest = machine.strays.back();
        return newest
            .map(|event| event.message.clone())
            .unwrap_or_default();
    };
    let hint = attempt.hint.iter();
    let hint: String = hint.map(|hint| format!("{hint}; ")).collect();
    match standing {
        Standing::Stalled => {
            let cause = stuck(machine, now).map(|likely| likely.cause);
            format!(
                "{hint}{} (last: {})",
                cause.unwrap_or_default(),
                event.message
            )
        }
        Standing::Failed => format!("{hint}{}", event.message),
        _ if attempt.is_doubled(now) => {
            format!("{}; {DOUBLE}", event.message)
        }
        Standing::Running => match (refused(attempt, event), attempt.fetches(now)) {
            (None, Some(moving)) => moving.words(),
            (refused, _) => refused.unwrap_or(event).message.clone(),
        },
        _ => event.message.clone(),
    }
}

/// Each stage by its last event that moved the boot on, at the time when it was first done: a later iPXE asks for an
/// address again, and a message may come twice.
fn stages(attempt: &Attempt) -> Vec<StageStatus> {
    let mut stages: BTreeMap<Stage, (Timestamp, &BootEvent)> = BTreeMap::new();
    let moves = |event: &&BootEvent| {
        !matches!(
            event.state,
            StageState::Ignored | StageState::Info | StageState::Start
        )
    };
    for event in attempt.events.iter().filter(moves) {
        let done = stages
            .get(&event.stage)
            .filter(|(_, known)| known.state == StageState::Ok);
        let at = done.map_or_else(|| attempt.time_of(event), |(at, _)| *at);
        stages.insert(event.stage, (at, event));
    }
    let status = |(at, event): (Timestamp, &BootEvent)| StageStatus {
        stage: event.stage.to_string(),
        state: event.state.name().to_owned(),
        at,
        ms: (at.as_millisecond() - attempt.began.as_millisecond()).max(0),
        took_ms: 0,
        uptime_ms: event.uptime_ms,
        evidence: event.evidence.name().to_owned(),
        message: event.message.clone(),
    };
    let mut stages: Vec<_> = stages.into_values().map(status).collect();
    // Of several at one time the ladder's order is kept.
    stages.sort_by_key(|stage| stage.ms);
    let mut before = 0;
    for stage in &mut stages {
        stage.took_ms = stage.ms - before;
        before = stage.ms;
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::event::{AttemptId, Evidence, MachineId};

    #[test]
    fn a_stage_stands_where_it_was_first_done() {
        let mut machine = Machine::default();
        let mut tell = |second: i64, stage, state, words: &str| {
            let at = Timestamp::from_second(second).unwrap();
            let id = MachineId("kvm01".into());
            let mut event = BootEvent::sent(at, id, stage, state, words.to_owned());
            event.begins = (second == 0).then(|| AttemptId("a".into()));
            event.evidence = Evidence::Acknowledged;
            machine.fold(event);
        };
        for (second, stage, words) in [
            (0, Stage::Dhcp, "offered to PXE"),
            (1, Stage::Dhcp, "gave to PXE"),
            (3, Stage::Loader, "snponly.efi"),
            (7, Stage::Dhcp, "gave to iPXE"),
            (9, Stage::Script, "script"),
        ] {
            tell(second, stage, StageState::Ok, words);
        }
        tell(10, Stage::Kernel, StageState::Retry, "broke off");
        tell(15, Stage::Kernel, StageState::Ok, "kernel");
        let stages = stages(machine.attempt().unwrap());
        let rows: Vec<_> = stages
            .iter()
            .map(|stage| (&*stage.stage, stage.ms, stage.took_ms, &*stage.message))
            .collect();
        assert_eq!(
            rows,
            [
                ("dhcp", 0, 0, "gave to iPXE"),
                ("loader", 3000, 3000, "snponly.efi"),
                ("script", 9000, 6000, "script"),
                ("kernel", 15000, 6000, "kernel"),
            ]
        );
    }
}

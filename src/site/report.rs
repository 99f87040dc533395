//! Where every machine stands, as `status` and `log` tell it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::others::Known;
use super::trouble::Trouble;
use super::{ReloadState, Site};
use crate::inventory::model::{Host, Inventory};
use crate::policy::enrol::awaits;
use crate::policy::event::{AttemptId, BootEvent, MachineId, Stage, StageState};
use crate::policy::moving::Moving;
use crate::policy::near::near_misses;
use crate::policy::progress::{Attempt, Machine, Standing};
use crate::policy::stall::{refused, stuck};
use crate::timeline::SyslogLine;

/// Version of the JSON; a change that could break a reader makes it 2.
const SCHEMA: u32 = 1;

/// Large transfers by HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfers {
    /// Have their turn.
    pub running: usize,
    /// Wait for it.
    pub waiting: usize,
}

/// Where every machine stands.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FleetStatus {
    /// Version of this shape.
    pub schema: u32,
    /// The site's name.
    pub site: String,
    /// Why the last edit is not served, if it is not.
    pub refused_edit: Option<String>,
    /// What is wrong with the daemon itself.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// Listed hosts, by name.
    pub hosts: Vec<MachineStatus>,
    /// Machines that are not listed.
    pub unknown: Vec<MachineStatus>,
    /// Packets without an answer that were counted and not kept.
    pub suppressed: u64,
    /// Large transfers by HTTP.
    #[serde(default)]
    pub transfers: Transfers,
    /// Other DHCP servers that answer on the networks served.
    #[serde(default)]
    pub dhcp_servers: Vec<OtherServerStatus>,
}

/// Another DHCP server.
#[derive(Debug, Serialize, Deserialize)]
pub struct OtherServerStatus {
    /// The interface that it was heard on.
    pub interface: String,
    /// The network.
    pub network: String,
    /// What it calls itself.
    pub server: Ipv4Addr,
    /// Where its answer came from.
    pub mac: String,
    /// Whether it tells PXE clients what to boot.
    pub pxe: bool,
    /// Whether the network reckons with it (`dhcp: proxy`).
    pub expected: bool,
    /// When it last answered.
    pub last_seen: Timestamp,
    /// In words.
    pub note: String,
}

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
        let states = [
            Standing::Stalled,
            Standing::Failed,
            Standing::Degraded,
            Standing::Refused,
        ];
        states.iter().any(|state| state.name() == self.state)
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

/// Everything about one host.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostLog {
    /// Version of this shape.
    pub schema: u32,
    /// Its name.
    pub host: String,
    /// What happened outside any boot.
    pub strays: Vec<BootEvent>,
    /// Its boots, oldest first.
    pub attempts: Vec<AttemptLog>,
    /// The last kernel lines that it sent after a failure.
    pub console: String,
}

/// One boot.
#[derive(Debug, Serialize, Deserialize)]
pub struct AttemptLog {
    /// Its id.
    pub attempt: String,
    /// When it began.
    pub began: Timestamp,
    /// What happened.
    pub events: Vec<BootEvent>,
    /// What came from its address by syslog; anybody who can forge that can have sent it.
    #[serde(default)]
    pub syslog: Vec<SyslogLine>,
}

/// One line of a boot's story.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// What happened.
    Event(&'a BootEvent),
    /// What came by syslog.
    Said(&'a SyslogLine),
}

impl Told<'_> {
    /// When.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Event(event) => event.at,
            Self::Said(line) => line.at,
        }
    }
}

impl AttemptLog {
    /// What happened and what was said, in order.
    pub fn story(&self) -> Vec<Told<'_>> {
        let events = self.events.iter().map(Told::Event);
        let mut story: Vec<_> = events.chain(self.syslog.iter().map(Told::Said)).collect();
        story.sort_by_key(Told::at);
        story
    }
}

impl HostLog {
    /// From what the timeline knows; `said` is what came by syslog in an attempt.
    pub fn new(
        id: &MachineId,
        machine: Machine,
        console: String,
        said: impl Fn(&AttemptId) -> Vec<SyslogLine>,
    ) -> Self {
        let attempt = |attempt: Attempt| {
            let timed = |event: &BootEvent| BootEvent {
                at: attempt.time_of(event),
                ..event.clone()
            };
            let mut events: Vec<BootEvent> = attempt.events.iter().map(timed).collect();
            events.sort_by_key(|event| event.at);
            AttemptLog {
                syslog: said(&attempt.id),
                attempt: attempt.id.0,
                began: attempt.began,
                events,
            }
        };
        Self {
            schema: SCHEMA,
            host: id.0.clone(),
            strays: machine.strays.into(),
            attempts: machine.attempts.into_iter().map(attempt).collect(),
            console,
        }
    }
}

/// Where every machine stands now.
pub fn fleet(site: &Site, reload: &ReloadState, now: Timestamp) -> FleetStatus {
    let snapshot = site.snapshot();
    let inventory = &snapshot.inventory;
    let (mut hosts, mut unknown) = site.timeline.read(|machines| {
        (
            listed(inventory, machines, now),
            unlisted(inventory, machines, now),
        )
    });
    // Some 190 look-ups for each of them: every event waits for the timeline.
    // Of hosts that came, and were bought together, the MACs are as near.
    for status in &mut hosts {
        let id = MachineId(status.host.clone());
        let attempt = status.attempt.clone().map(AttemptId);
        status.edit_waits = attempt.is_some_and(|attempt| site.pins.edit_waits(&id, &attempt));
    }
    let unheard = hosts.iter_mut().filter(|host| host.attempt.is_none());
    let mut unheard: BTreeMap<String, &mut MachineStatus> =
        unheard.map(|host| (host.host.clone(), host)).collect();
    for status in &mut unknown {
        add_near_miss(status, inventory, &mut unheard);
    }
    site.describe(&mut unknown, now);
    let disputed = site.disputed(now);
    for status in hosts.iter_mut().filter(|_| !disputed.is_empty()) {
        let words = disputed.get(&status.host);
        let between = if status.note.is_empty() { "" } else { "; " };
        status
            .note
            .extend(words.map(|words| format!("{between}{words}")));
    }
    for status in &mut unknown {
        let mac = MachineId(status.host.clone()).unlisted_mac();
        let said = mac.and_then(|mac| site.enrolment.said(mac));
        status.note.extend(said.map(|said| format!("; {said}")));
    }
    FleetStatus {
        schema: SCHEMA,
        site: inventory.site.clone(),
        refused_edit: reload.refused(),
        troubles: site.troubles(),
        hosts,
        unknown,
        suppressed: site.timeline.suppressed(),
        transfers: Transfers::default(),
        dhcp_servers: other_servers(site),
    }
}

fn other_servers(site: &Site) -> Vec<OtherServerStatus> {
    let status = |(interface, known): (String, Known)| OtherServerStatus {
        interface,
        network: known.network,
        server: known.heard.server,
        mac: known.heard.mac.to_string(),
        pxe: known.heard.pxe,
        expected: known.expected,
        last_seen: known.at,
        note: known.heard.describe(),
    };
    site.others.list().into_iter().map(status).collect()
}

type Machines = BTreeMap<MachineId, Machine>;

fn listed(inventory: &Inventory, machines: &Machines, now: Timestamp) -> Vec<MachineStatus> {
    let unseen = Machine::default();
    let status = |host: &Arc<Host>| {
        let machine = machines.get(&MachineId(host.name.clone()));
        let mut status = machine_status(&host.name, machine.unwrap_or(&unseen), now);
        if host.waits_for_hardware() && status.note.is_empty() {
            status.note = awaits(host);
        }
        status.rack = host.rack.clone();
        status.unit = host.unit;
        status
    };
    inventory.hosts.values().map(status).collect()
}

fn unlisted(inventory: &Inventory, machines: &Machines, now: Timestamp) -> Vec<MachineStatus> {
    machines
        .iter()
        .filter(|(id, _)| is_unlisted(inventory, id))
        .map(|(id, machine)| machine_status(&id.0, machine, now))
        .collect()
}

/// A host that does not come and a stranger that does are often one machine, and a typing mistake: both are told so.
fn add_near_miss(
    status: &mut MachineStatus,
    inventory: &Inventory,
    unheard: &mut BTreeMap<String, &mut MachineStatus>,
) {
    let Some(mac) = MachineId(status.host.clone()).unlisted_mac() else {
        return;
    };
    let near = near_misses(mac, &inventory.by_mac).into_iter();
    for near in near {
        let Some(host) = unheard.get_mut(&near.host) else {
            continue;
        };
        if host.note.is_empty() {
            host.note = format!("{mac} asks, {near}: a typing mistake?");
        }
        status.note = format!("{near}: a typing mistake? {}", status.note);
        return;
    }
}

/// A machine that was seen and is not in the inventory (any more, or yet).
pub(super) fn is_unlisted(inventory: &Inventory, id: &MachineId) -> bool {
    id.unlisted_mac()
        .is_some_and(|mac| !inventory.by_mac.contains_key(&mac))
}

pub(super) fn machine_status(name: &str, machine: &Machine, now: Timestamp) -> MachineStatus {
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
pub(super) const DOUBLE: &str =
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
    use crate::policy::event::Evidence;

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

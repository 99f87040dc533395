//! Why a host is where it is: its last words, the likely cause, the next thing to try.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Site, report};
use crate::inventory::model::{Host, MacAddr, Network};
use crate::policy::enrol::{Because, Decision, awaits};
use crate::policy::event::{AttemptId, BootEvent, MachineId, Stage, StageState};
use crate::policy::hint::{Hint, hints};
use crate::policy::moving::Moving;
use crate::policy::near::near_misses;
use crate::policy::progress::{Attempt, Machine, Standing};
use crate::policy::stall::{Likely, refused, stall, stuck};
use crate::span::span;
use crate::timeline::SyslogLine;

/// Version of the JSON.
const SCHEMA: u32 = 1;
/// Last words that are shown.
const LAST: usize = 6;
/// A loader says that its transfer broke off a moment before or after the daemon sees it, seconds.
const SLACK_S: i64 = 5;

/// All that is known about it, short.
#[derive(Debug, Serialize, Deserialize)]
pub struct Why {
    /// Version of this shape.
    pub schema: u32,
    /// Its name, or `mac-…`.
    pub host: String,
    /// `unseen`, `refused`, `running`, `done`, `away`, `degraded`, `failed` or `stalled`.
    pub state: String,
    /// The stage that it is in.
    pub stage: Option<String>,
    /// Seconds since it came there.
    pub for_s: Option<i64>,
    /// The boot attempt.
    pub attempt: Option<String>,
    /// An edit of its inventory waits for the end of this boot.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub edit_waits: bool,
    /// The address that it was given from the pool, if it is not listed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<Leased>,
    /// What it said and was told last, oldest first.
    pub last: Vec<Said>,
    /// The likely cause.
    pub cause: String,
    /// What to try, the most promising first.
    pub next: Vec<String>,
    /// What came from its address by syslog, the last of it; anybody who can forge that can have sent it.
    #[serde(default)]
    pub syslog: Vec<SyslogLine>,
    /// Known failures in its last words.
    pub hints: Vec<Hint>,
}

/// An address of the pool.
#[derive(Debug, Serialize, Deserialize)]
pub struct Leased {
    /// The address.
    pub address: Ipv4Addr,
    /// For how long it has it still, seconds; less than 0 where its time is up: it is given the same again if nobody
    /// else has it.
    pub left_s: i64,
}

impl Leased {
    /// Of the machine with this MAC. Leases have a clock of their own.
    fn of(site: &Site, mac: MacAddr) -> Option<Self> {
        let lease = site.journal.leases().of(mac)?;
        let left_s = lease.expires.as_second() - site.journal.clock().now().as_second();
        let address = lease.address;
        Some(Self { address, left_s })
    }

    /// In words.
    pub fn words(&self) -> String {
        let Self { address, left_s } = self;
        match left_s {
            0.. => format!("it has {address}, for {}", span(*left_s)),
            _ => format!("it had {address}, until {} ago", span(-left_s)),
        }
    }
}

/// What a machine last said in this boot.
#[derive(Debug, Default)]
pub struct Words {
    /// What it sent of its kernel's log.
    pub console: String,
    /// What came from its address by syslog.
    pub syslog: Vec<SyslogLine>,
}

impl Words {
    /// Known failures. What came by syslog long before the boot got where it is was overcome, and once the host
    /// speaks for itself what anybody can forge is no hint any more.
    fn hints(&self, machine: &Machine) -> Vec<Hint> {
        let attempt = machine.attempt();
        let open = attempt.is_some_and(|attempt| !attempt.claimed);
        let current = attempt.and_then(Attempt::current);
        let since = current.map_or(i64::MIN, |event| event.at.as_second() - SLACK_S);
        let fresh = self
            .syslog
            .iter()
            .filter(|line| open && line.at.as_second() >= since);
        let said: Vec<_> = fresh.map(|line| line.text.as_str()).collect();
        let by_syslog = hints(&said.join("\n")).into_iter().map(|hint| Hint {
            line: format!("{} (by syslog)", hint.line),
            next: format!("{} (by syslog)", hint.next),
            ..hint
        });
        by_syslog.chain(hints(&self.console)).collect()
    }
}

/// One of its last words.
#[derive(Debug, Serialize, Deserialize)]
pub struct Said {
    /// When.
    pub at: Timestamp,
    /// In which stage.
    pub stage: String,
    /// How that stood.
    pub state: String,
    /// `sent`, `acknowledged` or `reported`.
    pub evidence: String,
    /// The words.
    pub message: String,
}

/// A cause and what to try.
type Reason = (String, Vec<String>);

/// About a machine that is listed, or was seen; `None` of any other.
pub fn why(site: &Site, id: &MachineId, words: &Words, now: Timestamp) -> Option<Why> {
    let snapshot = site.snapshot();
    let host = snapshot.inventory.hosts.get(&id.0);
    let known = site.timeline.machine(id);
    if host.is_none() && known.is_none() {
        return None;
    }
    let machine = known.unwrap_or_default();
    let status = report::machine_status(&id.0, &machine, now);
    let (mut cause, mut next) = match (id.unlisted_mac(), host) {
        (Some(mac), None) => stranger(site, &machine, mac, now),
        _ => reason(site, host.map(AsRef::as_ref), &machine, now),
    };
    if machine
        .attempt()
        .is_some_and(|attempt| attempt.is_doubled(now))
    {
        // Whoever has its address can cause that: beside what is, not in its place.
        cause = format!("{cause}; {}", report::DOUBLE);
        next.push("look for a second machine with its MAC (a copied virtual machine, a NIC that was moved): then the switch shows it on two ports; else somebody else has its address, and `log --all` of it shows what came".to_owned());
    }
    if let Some(words) = site.disputed(now).remove(&id.0) {
        cause = format!("{cause}; {words}");
    }
    let hints = words.hints(&machine);
    let known = hints.iter().rev().map(|hint| hint.next.clone());
    let network = match (id.unlisted_mac(), host) {
        (_, Some(host)) => Some(&host.network),
        (Some(mac), None) => (site.discovery.network_of(mac))
            .and_then(|network| snapshot.inventory.networks.get(&network)),
        (None, None) => None,
    };
    let stranger = id.unlisted_mac().filter(|_| host.is_none());
    let attempt = status.attempt.clone().map(AttemptId);
    let ours = ours(site, network.map(AsRef::as_ref), &status.state);
    Some(Why {
        schema: SCHEMA,
        host: id.0.clone(),
        state: status.state,
        stage: status.stage,
        for_s: status.for_s,
        attempt: status.attempt,
        edit_waits: attempt.is_some_and(|attempt| site.pins.edit_waits(id, &attempt)),
        lease: stranger.and_then(|mac| Leased::of(site, mac)),
        last: last_words(&machine),
        cause,
        next: ours.into_iter().chain(known).chain(next).collect(),
        syslog: words.syslog[words.syslog.len().saturating_sub(LAST)..].to_vec(),
        hints,
    })
}

/// What is wrong with the daemon itself comes first: then the host is not to blame.
fn ours(site: &Site, network: Option<&Network>, state: &str) -> Vec<String> {
    let waits = [Standing::Unseen, Standing::Refused, Standing::Stalled];
    if waits.iter().all(|one| one.name() != state) {
        return Vec::new();
    }
    let troubles = site.troubles_on(network).into_iter();
    troubles.map(|trouble| trouble.message).collect()
}

fn last_words(machine: &Machine) -> Vec<Said> {
    let Some(attempt) = machine.attempt() else {
        let newest = machine.strays.iter().rev().take(LAST).rev();
        return newest.map(|event| said(event, event.at)).collect();
    };
    let mut events: Vec<_> = attempt
        .events
        .iter()
        .map(|event| (attempt.time_of(event), event))
        .collect();
    events.sort_by_key(|(at, _)| *at);
    let newest = events.split_off(events.len().saturating_sub(LAST));
    newest
        .into_iter()
        .map(|(at, event)| said(event, at))
        .collect()
}

fn said(event: &BootEvent, at: Timestamp) -> Said {
    Said {
        at,
        stage: event.stage.to_string(),
        state: event.state.name().to_owned(),
        evidence: event.evidence.name().to_owned(),
        message: event.message.clone(),
    }
}

/// Of a machine that is not listed, or was not when it asked.
fn stranger(site: &Site, machine: &Machine, mac: MacAddr, now: Timestamp) -> Reason {
    let snapshot = site.snapshot();
    let inventory = &snapshot.inventory;
    if let Some(host) = inventory.by_mac.get(&mac) {
        let name = &host.name;
        return (
            format!("{mac} is listed as {name} since then"),
            vec![format!("ask for that host: `bridgehead why {name}`")],
        );
    }
    let outlook = site.outlook(mac, now);
    let cause = match machine
        .newest()
        .filter(|event| event.state == StageState::Ignored)
    {
        Some(refused) if !refused.message.is_empty() => {
            format!("{mac} is not in the inventory: {}", refused.message)
        }
        _ if is_ignored(site, mac) => format!(
            "{mac} is not in the inventory, and `unknown: {{policy: ignore}}` leaves such machines without an answer"
        ),
        _ => becomes(outlook.as_ref(), mac).unwrap_or_else(|| stands(machine, mac, now)),
    };
    let near = near_misses(mac, &inventory.by_mac).into_iter();
    let mut next: Vec<_> = near
        .filter(|near| site.timeline.read(|machines| near.is_awaited(machines)))
        .map(|near| {
            format!(
                "it is {near}: if it is {}, correct that host's `mac`",
                near.host
            )
        })
        .collect();
    next.extend(before_its_loader(machine, now).map(|likely| likely.next.to_owned()));
    next.push(listing(outlook.as_ref(), mac));
    (cause, next)
}

/// Whether machines that are not listed get no answer where it asks.
fn is_ignored(site: &Site, mac: MacAddr) -> bool {
    let network = site.discovery.network_of(mac);
    let snapshot = site.snapshot();
    let unknown = snapshot.inventory.unknown_on(network.as_deref());
    !unknown.policy.holds()
}

/// What the policy makes of it, where it waits for that.
fn becomes(outlook: Option<&Decision>, mac: MacAddr) -> Option<String> {
    match outlook? {
        // How far it came says more.
        Decision::Wait(Because::NotHeld) => None,
        Decision::Wait(because) => Some(format!("{mac} is not in the inventory: {because}")),
        Decision::Enrol(enrol) => Some(format!("{mac} is not in the inventory yet: it {enrol}")),
    }
}

/// How it comes to be listed: by somebody's hand, unless that would make one more host of the machine that a host is.
fn listing(outlook: Option<&Decision>, mac: MacAddr) -> String {
    let host = match outlook {
        Some(Decision::Enrol(enrol)) => {
            return format!("nothing: it becomes {} by itself", enrol.host.name);
        }
        Some(Decision::Wait(because)) => because.host(),
        None => None,
    };
    match host {
        Some(host) => format!(
            "don't list it before it is known which of the two machines {host} is: look at both (`bridgehead why {host}`); where this one is to be {host}, `bridgehead hosts set {host} mac={mac}`"
        ),
        None => format!(
            "list it: `bridgehead discover approve {mac} --name NAME --profile PROFILE`, or a line under `hosts`; it goes on by itself"
        ),
    }
}

/// Why it does not even come to wait, if it fell silent before.
fn before_its_loader(machine: &Machine, now: Timestamp) -> Option<Likely> {
    stuck(machine, now).filter(|_| machine.standing(now) == Standing::Stalled)
}

/// How far a machine came that is not listed.
fn stands(machine: &Machine, mac: MacAddr, now: Timestamp) -> String {
    let held = machine.attempt().and_then(Attempt::current);
    let held = held.is_some_and(|event| event.stage >= Stage::Script);
    match before_its_loader(machine, now) {
        Some(_) if held => {
            format!("{mac} is not in the inventory; it waited at its loader, and fell silent")
        }
        Some(likely) => format!(
            "{mac} is not in the inventory, and it did not come to its loader: {}",
            likely.cause
        ),
        None if held => format!("{mac} is not in the inventory, so it waits at its loader"),
        None => format!(
            "{mac} is not in the inventory: it gets an address of the pool, and will wait at its loader"
        ),
    }
}

fn reason(site: &Site, host: Option<&Host>, machine: &Machine, now: Timestamp) -> Reason {
    let standing = machine.standing(now);
    let attempt = machine.attempt();
    let Some((attempt, event)) = attempt.and_then(|known| Some((known, known.current()?))) else {
        return unheard(site, host, machine);
    };
    let likely = stuck(machine, now).unwrap_or_else(|| stall(attempt, event));
    // The clock may have been set back over a restart.
    let waited = (now.as_second() - event.at.as_second()).max(0);
    match standing {
        Standing::Done => ("nothing is wrong: it has joined".to_owned(), Vec::new()),
        Standing::Away => (
            "it runs what does not report: its local disk, or a kernel alone".to_owned(),
            Vec::new(),
        ),
        Standing::Running if event.state == StageState::Retry => (
            format!(
                "{} is tried again: {}",
                event.stage,
                said_or(event, &likely)
            ),
            vec![likely.next.to_owned()],
        ),
        Standing::Running if refused(attempt, event).is_some() => {
            (likely.cause.into_owned(), vec![likely.next.to_owned()])
        }
        Standing::Running if attempt.fetches(now).is_some() => {
            let moving = attempt.fetches(now).map(Moving::words);
            let words = format!("it is on its way: {}", moving.unwrap_or_default());
            (words, Vec::new())
        }
        Standing::Running if event.stage.patience_s() == 0 => (
            format!(
                "nothing is wrong: at {} it stays until somebody acts there, and has for {waited} s",
                event.stage
            ),
            Vec::new(),
        ),
        Standing::Running | Standing::Unseen | Standing::Refused => (
            format!(
                "it is on its way; after {} it may be silent for {} s, and has been for {waited} s",
                event.stage,
                event.stage.patience_s()
            ),
            Vec::new(),
        ),
        Standing::Failed | Standing::Degraded => {
            (said_or(event, &likely), vec![likely.next.to_owned()])
        }
        Standing::Stalled => {
            let mut next = vec![likely.next.to_owned()];
            if event.stage == Stage::Dhcp {
                next.splice(0..0, rivals(site));
            }
            (likely.cause.into_owned(), next)
        }
    }
}

/// What came with an event, or what its silence tells: a report may have no words.
fn said_or(event: &BootEvent, likely: &Likely) -> String {
    match &*event.message {
        "" => likely.cause.to_string(),
        words => words.to_owned(),
    }
}

/// Other DHCP servers that nobody reckons with.
fn rivals(site: &Site) -> Vec<String> {
    let known = site.others.list().into_iter();
    let rivals = known.filter(|(_, known)| !known.expected);
    rivals
        .map(|(interface, known)| {
            format!(
                "another DHCP server is on {interface}: {}; stop it",
                known.heard.describe()
            )
        })
        .collect()
}

/// Of a host that no boot is known of: refused, mistyped, or never switched on.
fn unheard(site: &Site, host: Option<&Host>, machine: &Machine) -> Reason {
    let mut strays = machine.strays.iter().rev();
    let refused =
        strays.find(|event| event.state == StageState::Ignored && !event.message.is_empty());
    if let Some(event) = refused {
        let next = "`bridgehead explain HOST` shows what it is answered, and which line of hosts.yaml says so";
        return (event.message.clone(), vec![next.to_owned()]);
    }
    if let Some(host) = host.filter(|host| host.waits_for_hardware()) {
        return (
            awaits(host),
            vec![
                "`bridgehead discover list` shows the machines that wait, and what the policy says of each".to_owned(),
            ],
        );
    }
    let macs: Vec<_> = host
        .into_iter()
        .flat_map(|host| &host.macs)
        .map(|mac| **mac)
        .collect();
    let mut next = mistyped(site, host);
    let listed: Vec<_> = macs.iter().map(MacAddr::to_string).collect();
    next.extend([
        "switch it on, with network boot first in its firmware's boot order".to_owned(),
        "look at its cable, the switch port's VLAN, and the relay if it is in another network"
            .to_owned(),
        format!("compare the MAC on its screen or BMC with {}", place(host)),
    ]);
    (
        format!("nothing was ever heard of its {}", listed.join(", ")),
        next,
    )
}

/// Where it is listed.
fn place(host: Option<&Host>) -> String {
    let origin = host.map(|host| &host.origin);
    origin.map_or_else(
        || "hosts.yaml".to_owned(),
        |at| format!("{}:{}", at.file, at.line),
    )
}

/// Machines that ask and are one slip away from a MAC of the host.
fn mistyped(site: &Site, host: Option<&Host>) -> Vec<String> {
    let snapshot = site.snapshot();
    let Some(host) = host else {
        return Vec::new();
    };
    // Servers are bought together: what was heard of before it was listed is another host.
    let unlisted = |id: &&MachineId| report::is_unlisted(&snapshot.inventory, id);
    let asking = site.timeline.read(|machines| {
        let macs = machines.keys().filter(unlisted);
        let macs = macs.filter_map(MachineId::unlisted_mac);
        macs.collect::<Vec<_>>()
    });
    let miss = |mac: MacAddr| {
        let near = near_misses(mac, &snapshot.inventory.by_mac);
        let near = near.into_iter().find(|near| near.host == host.name)?;
        let place = place(Some(host));
        Some(format!(
            "{mac} asks, {near}: if it is this host, correct `mac` ({place})"
        ))
    };
    asking.into_iter().filter_map(miss).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;
    use std::sync::Arc;

    use crate::policy::client::Asker;
    use crate::policy::discovered::{Discovered, Hardware, Identity};
    use crate::policy::event::Evidence;
    use crate::site::ReloadState;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn event(name: &str, second: i64, stage: Stage, state: StageState) -> BootEvent {
        let machine = MachineId(name.into());
        BootEvent::sent(
            at(second),
            machine,
            stage,
            state,
            format!("{stage} of {name}"),
        )
    }

    fn told(site: &Site, name: &str, console: &str, second: i64) -> Why {
        let words = Words {
            console: console.to_owned(),
            syslog: Vec::new(),
        };
        why(site, &MachineId(name.into()), &words, at(second)).unwrap()
    }

    #[test]
    fn a_host_that_never_came_and_a_stranger_that_did_are_held_together() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        assert!(why(&site, &MachineId("kvm09".into()), &Words::default(), at(1)).is_none());
        let never = told(&site, "kvm01", "", 1);
        assert_eq!((never.state.as_str(), never.stage), ("unseen", None));
        assert!(never.cause.contains("52:54:00:00:00:01"), "{}", never.cause);
        let stranger = "mac-525400001001";
        let asks = event(stranger, 5, Stage::Dhcp, StageState::Ok);
        site.timeline.record_asking(asks, Asker::PxeRom);
        let never = told(&site, "kvm01", "", 10);
        let first = "52:54:00:00:10:01 asks, one digit off kvm01's 52:54:00:00:00:01";
        assert!(never.next[0].starts_with(first), "{:?}", never.next);
        assert!(never.next[0].contains("hosts.yaml:"), "{:?}", never.next);
        let stranger = told(&site, stranger, "", 10);
        assert!(
            stranger.next[0].contains("correct that host's `mac`"),
            "{:?}",
            stranger.next
        );
        assert_eq!(told(&site, "kvm02", "", 10).next.len(), 3);
    }

    #[test]
    fn a_listed_machine_is_nobodys_typing_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        // It asked before it was listed, as kvm02, which was bought with kvm01.
        let asks = event("mac-525400000002", 5, Stage::Dhcp, StageState::Ignored);
        site.timeline.record(asks);
        let never = told(&site, "kvm01", "", 10);
        assert!(
            never.next[0].starts_with("switch it on"),
            "{:?}",
            never.next
        );
    }

    #[test]
    fn an_event_without_words_has_a_cause() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let asks = event("kvm01", 0, Stage::Dhcp, StageState::Ok);
        site.timeline.record_asking(asks, Asker::PxeRom);
        let mut failed = event("kvm01", 1, Stage::Root, StageState::Fail);
        failed.message = String::new();
        failed.evidence = Evidence::Reported;
        site.timeline.record(failed);
        let failed = told(&site, "kvm01", "", 2);
        assert_eq!(failed.state, "failed");
        assert!(
            failed.cause.contains("the root's server"),
            "{}",
            failed.cause
        );
    }

    #[test]
    fn who_says_it_is_a_host_that_lives_is_not_to_be_approved() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let edit = |old: &str, new: &str| {
            let edited = Arc::new(testing::edited(dir.path(), &site.snapshot(), old, new));
            let outline = site.outline(Timestamp::now());
            site.replace(
                edited.clone(),
                &outline.changes(&edited.inventory.outline()),
            );
        };
        edit("0.199\n", "0.199\n    unknown: {policy: by-serial}\n");
        edit(
            "{mac: \"52:54:00:00:00:01\",",
            "{mac: \"52:54:00:00:00:01\", serial: SN41,",
        );
        let now = Timestamp::now();
        let mac: MacAddr = "3c:ec:ef:55:00:05".parse().unwrap();
        let waits = |report: &str| {
            let seen = Discovered::of_report(mac, Some("boot".into()), report, now);
            let said = Identity::of_report(report);
            site.discovery.found(seen, said, Hardware::default());
            site.discovery.held(mac);
            site.timeline.record(BootEvent {
                at: now,
                ..event("mac-3cecef550005", 0, Stage::Script, StageState::Ok)
            });
            why(
                &site,
                &MachineId("mac-3cecef550005".into()),
                &Words::default(),
                now,
            )
            .unwrap()
        };
        let stranger = waits("");
        assert!(
            stranger.cause.contains("has not said its serial number"),
            "{}",
            stranger.cause
        );
        assert!(
            stranger.next[0].contains("discover approve"),
            "{:?}",
            stranger.next
        );
        let asks = BootEvent {
            at: now,
            ..event("kvm01", 0, Stage::Dhcp, StageState::Ok)
        };
        site.timeline.record_asking(asks, Asker::PxeRom);
        let liar = waits("serial=SN41\n");
        assert!(
            liar.cause.contains("kvm01 is alive (last sign"),
            "{}",
            liar.cause
        );
        assert!(
            liar.cause.contains("serial number SN41 is held"),
            "{}",
            liar.cause
        );
        let next = liar.next.join("\n");
        assert!(
            next.contains("why kvm01") && !next.contains("discover approve"),
            "{next}"
        );
        // As the daemon notes it when it looks at the machine.
        site.enrolment
            .says(mac, "waits: kvm01 is alive", Some("kvm01"));
        let host = || why(&site, &MachineId("kvm01".into()), &Words::default(), now).unwrap();
        let words = "3c:ec:ef:55:00:05 says that it is this host, and is held";
        assert!(host().cause.contains(words), "{}", host().cause);
        let fleet = report::fleet(&site, &ReloadState::default(), now);
        let notes: Vec<_> = fleet.hosts.iter().map(|host| host.note.as_str()).collect();
        assert!(
            notes[0].contains(words) && !notes[1].contains(words),
            "{notes:?}"
        );
        site.enrolment.done(mac);
        assert!(!host().cause.contains(words), "{}", host().cause);
    }

    #[test]
    fn of_a_stranger_the_cause_is_what_became_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let name = "mac-525400001001";
        let asks = event(name, 5, Stage::Dhcp, StageState::Ok);
        site.timeline.record_asking(asks, Asker::PxeRom);
        assert!(
            told(&site, name, "", 6)
                .cause
                .contains("will wait at its loader")
        );
        let stuck = told(&site, name, "", 200);
        assert!(
            stuck
                .cause
                .contains("did not come to its loader: address offered"),
            "{}",
            stuck.cause
        );
        assert_eq!(stuck.next.len(), 3, "{:?}", stuck.next);
        // The host that it is near has come: it is another machine.
        let asks = event("kvm01", 7, Stage::Dhcp, StageState::Ok);
        site.timeline.record_asking(asks, Asker::PxeRom);
        assert_eq!(told(&site, name, "", 8).next.len(), 1);
        site.timeline
            .record(event(name, 9, Stage::Dhcp, StageState::Ignored));
        let refused = told(&site, name, "", 10).cause;
        assert!(
            refused.ends_with("not in the inventory: dhcp of mac-525400001001"),
            "{refused}"
        );
        let listed = "mac-525400000002";
        site.timeline
            .record(event(listed, 11, Stage::Dhcp, StageState::Ignored));
        let listed = told(&site, listed, "", 12);
        assert!(listed.cause.contains("listed as kvm02"), "{}", listed.cause);
        assert!(listed.next[0].contains("why kvm02"), "{:?}", listed.next);
    }

    #[test]
    fn who_looks_at_a_menu_may_do_so_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let asks = event("kvm01", 0, Stage::Dhcp, StageState::Ok);
        site.timeline.record_asking(asks, Asker::PxeRom);
        site.timeline
            .record(event("kvm01", 5, Stage::Menu, StageState::Ok));
        let cause = told(&site, "kvm01", "", 900).cause;
        assert!(
            cause.contains("until somebody acts there, and has for 895 s"),
            "{cause}"
        );
    }

    #[test]
    fn two_machines_with_one_mac_are_told_though_one_has_joined() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let asks = event("kvm01", 0, Stage::Dhcp, StageState::Ok);
        site.timeline.record_asking(asks, Asker::PxeRom);
        let mut joined = event("kvm01", 9, Stage::Joined, StageState::Ok);
        joined.evidence = Evidence::Reported;
        site.timeline.record(joined);
        for second in 10..13 {
            let before = told(&site, "kvm01", "", second);
            assert_eq!(before.state, "done");
            assert_eq!(before.cause, "nothing is wrong: it has joined");
            let strange = event("kvm01", second, Stage::Early, StageState::Ignored);
            site.timeline.record(strange);
        }
        let doubled = told(&site, "kvm01", "", 14);
        assert_eq!(doubled.state, "done");
        let cause = format!("nothing is wrong: it has joined; {}", report::DOUBLE);
        assert_eq!(doubled.cause, cause);
        let machine = site.timeline.machine(&MachineId("kvm01".into())).unwrap();
        let note = report::machine_status("kvm01", &machine, at(14)).note;
        assert_eq!(note, format!("joined of kvm01; {}", report::DOUBLE));
        assert!(
            doubled.next[0].contains("on two ports"),
            "{:?}",
            doubled.next
        );
        let later = told(&site, "kvm01", "", 200);
        assert!(later.cause.contains("nothing is wrong"), "{}", later.cause);
    }

    #[test]
    fn what_was_refused_is_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        site.timeline
            .record(event("kvm01", 5, Stage::Dhcp, StageState::Ignored));
        let refused = told(&site, "kvm01", "", 6);
        assert_eq!(refused.cause, "dhcp of kvm01");
        assert_eq!(refused.last.len(), 1);
    }

    #[test]
    fn the_console_comes_before_what_is_likely() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let first = event("kvm01", 0, Stage::Dhcp, StageState::Ok);
        site.timeline.record_asking(first, Asker::PxeRom);
        let mut loader = event("kvm01", 1, Stage::Loader, StageState::Ok);
        loader.evidence = Evidence::Acknowledged;
        site.timeline.record(loader);
        let running = told(&site, "kvm01", "", 9);
        assert!(
            running
                .cause
                .contains("may be silent for 60 s, and has been for 8 s")
        );
        let panic = "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n";
        let stalled = told(&site, "kvm01", panic, 100);
        assert_eq!(stalled.state, "stalled");
        assert!(
            stalled.cause.contains("no script asked for"),
            "{}",
            stalled.cause
        );
        assert!(
            stalled.next[0].contains("enough memory"),
            "{:?}",
            stalled.next
        );
        assert!(
            stalled.next[1].contains("Secure Boot"),
            "{:?}",
            stalled.next
        );
        assert_eq!(stalled.hints.len(), 1);
        let evidence: Vec<_> = stalled
            .last
            .iter()
            .map(|said| said.evidence.as_str())
            .collect();
        assert_eq!(evidence, ["sent", "acknowledged"]);
    }
}

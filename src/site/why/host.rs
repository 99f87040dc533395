//! A host: what its boot waits for, or why none is known of it.

use jiff::Timestamp;

use super::Reason;
use crate::inventory::model::{Host, MacAddr};
use crate::policy::enrol::awaits;
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::policy::moving::Moving;
use crate::policy::near::near_misses;
use crate::policy::progress::{Machine, Standing};
use crate::policy::stall::{Likely, refused, stall, stuck};
use crate::site::{Site, report};

/// Where its newest boot stands, and what to do about that.
pub(super) fn reason(
    site: &Site,
    host: Option<&Host>,
    machine: &Machine,
    now: Timestamp,
) -> Reason {
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

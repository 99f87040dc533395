//! A machine that is not listed: what became of it, and how it comes to be a host.

use jiff::Timestamp;

use super::Reason;
use crate::inventory::model::MacAddr;
use crate::policy::enrol::{Because, Decision};
use crate::policy::event::{Stage, StageState};
use crate::policy::progress::{Attempt, Machine, Standing};
use crate::policy::stall::{Likely, stuck};
use crate::site::Site;

/// What to look at where a machine that waited asks no more.
const SILENT: &str =
    "look at its screen or BMC whether it is on, and at the link of its switch port";

/// Of a machine that is not listed, or was not when it asked.
pub(super) fn stranger(
    site: &Site,
    machine: &Machine,
    stage: Option<&str>,
    mac: MacAddr,
    now: Timestamp,
) -> Reason {
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
    let wait = site.wait_of(mac, stage, now);
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
        _ => becomes(outlook.as_ref(), mac).unwrap_or_else(|| match wait {
            Some(wait) => format!("{mac} is not in the inventory; it {}", wait.words()),
            None => stands(machine, mac, now),
        }),
    };
    let near = site.near(mac, inventory).into_iter();
    let mut next: Vec<_> = near
        .map(|near| {
            format!(
                "it is {near}: if it is {}, correct that host's `mac`",
                near.host
            )
        })
        .collect();
    next.extend(match wait {
        Some(wait) if wait.is_silent() => Some(SILENT.to_owned()),
        Some(_) => None,
        None => before_its_loader(machine, now).map(|likely| likely.next.to_owned()),
    });
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
        Some(Decision::Wait(Because::Nic {
            host,
            nic,
            mac,
            boots,
        })) => return boots_from(host, nic, *mac, *boots),
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

/// A host whose firmware boots from a NIC that is not its `mac`.
fn boots_from(host: &str, nic: &str, mac: MacAddr, boots: Option<MacAddr>) -> String {
    match boots {
        Some(own) => format!(
            "let the firmware of {host} boot from {own} alone, or swap the two: `bridgehead hosts set {host} mac={mac} nics.{nic}={own}`"
        ),
        None => format!(
            "let the firmware of {host} not boot from its NIC {nic}, or move {mac} to its `mac` or `macs` by hand"
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

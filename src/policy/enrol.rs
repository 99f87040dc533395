//! Machines that become hosts by themselves: which host, and why not.
//!
//! Decided of a machine that waits at its loader, at the address that it was given: a bare DISCOVER can be forged by
//! anybody. What a machine says of itself proves nothing either, so a host loses its name to nobody while there is any
//! sign of its machine's life, nor where it joined and can't be asked whether it lives: a host that runs is served
//! nothing for weeks, and is silent then.

mod because;
mod by_hand;
mod free;
mod ports;
mod words;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::inventory::hardware::serial_key;
use crate::inventory::model::{Host, Inventory, MacAddr, UnknownPolicy};
use crate::policy::discovered::Discovered;
use crate::policy::near::near_misses;

use ports::by_port;

pub use because::Because;
pub use by_hand::{expected, mismatch};
pub use free::{FreeHosts, free_host};
pub use words::{awaits, promise};

/// So long must a host be silent until another machine takes its place, seconds: a server's firmware may take most of
/// it.
pub const SILENCE_S: i64 = 600;

/// Hosts, by name, that others become of the machines which are decided on together: the inventory does not say so yet.
pub type Taken = HashSet<String>;

/// What is known of the life of a host's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its last sign; none: it was never heard of.
    pub sign: Option<Sign>,
    /// Whether it has joined.
    pub joined: bool,
    /// What came of asking for it.
    pub asked: Asked,
}

/// What came of asking whether anybody has a host's addresses; an answer is a [`Sign`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nobody on its link has them.
    Silent,
    /// Nobody answered, which says nothing: it is behind a router, or on a link that is not served.
    Mute,
    /// It was not asked, or could not be.
    Unknown,
}

/// A sign of life of a host's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    /// When.
    pub at: Timestamp,
    /// What it was.
    pub kind: SignKind,
}

/// What tells that a machine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignKind {
    /// It asked for something, or reported.
    Heard,
    /// It holds its lease.
    Lease,
    /// Somebody has its address.
    Answered,
    /// It holds a connection for its root.
    Mounted,
    /// The machine that would be the host says by itself that it has the host's address, as one that hides the host's
    /// own answers does.
    Usurped,
    /// None: it may be restarting since another machine first claimed to be it.
    Claimed,
}

/// What becomes of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It becomes a host.
    Enrol(Enrol),
    /// It waits.
    Wait(Because),
}

/// A host that a machine becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrol {
    /// The host.
    pub host: Arc<Host>,
    /// The MAC that the host has until then.
    pub replaces: Option<MacAddr>,
    /// Why this one.
    pub because: Evidence,
}

/// What makes a machine a certain host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// It is the next that is free.
    NextFree,
    /// It has the machine's serial number.
    Serial(String),
    /// The machine is plugged into its switch port.
    Port(Plugged),
}

/// A switch port, as somebody says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugged {
    /// The switch.
    pub switch: String,
    /// Its port.
    pub port: String,
}

/// What becomes of a machine now; `free` are the inventory's free hosts, `taken` those that others become at the same
/// time, and `life` is what is known of that of a host's machine.
pub fn decide(
    inventory: &Inventory,
    free: &FreeHosts,
    taken: &Taken,
    machine: &Discovered,
    life: impl Fn(&Host) -> Life,
    now: Timestamp,
) -> Decision {
    let enrol = match claim(inventory, free, taken, machine, &life, now) {
        Err(because) => return Decision::Wait(because),
        Ok(enrol) => enrol,
    };
    let near = || near_miss(inventory, machine.mac, &enrol, &life);
    let lives = || {
        hindrance(
            &enrol.host,
            machine.mac,
            &enrol.because,
            life(&enrol.host),
            now,
        )
    };
    match near().or_else(lives) {
        Some(because) => Decision::Wait(because),
        None => Decision::Enrol(enrol),
    }
}

/// The host that a machine would be, whoever is that host now.
///
/// # Errors
/// None, and why.
pub fn claim(
    inventory: &Inventory,
    free: &FreeHosts,
    taken: &Taken,
    machine: &Discovered,
    life: impl Fn(&Host) -> Life,
    now: Timestamp,
) -> Result<Enrol, Because> {
    if let Some((host, nic)) = inventory.nic(machine.mac) {
        return Err(Because::of_nic(host, nic, machine.mac));
    }
    let name = machine.network.as_ref().ok_or(Because::NoNetwork)?;
    let network = inventory.networks.get(name).ok_or(Because::NoNetwork)?;
    let unknown = &network.unknown;
    if !unknown.policy.enrols() {
        return Err(Because::ByHand(name.clone(), unknown.policy));
    }
    // What a daemon that ran before heard of it is no word on what it is.
    if machine.held.is_none() || machine.restored {
        return Err(Because::NotHeld);
    }
    let waits_for_words = !unknown.allows_virtual && unknown.inventory.is_some();
    if waits_for_words && unknown.policy != UnknownPolicy::ByPort && machine.hardware.is_none() {
        return Err(Because::NoReport);
    }
    if let Some(why) = machine
        .virtual_because()
        .filter(|_| !unknown.allows_virtual)
    {
        return Err(Because::Virtual(why));
    }
    let heard = unknown.believes_lldp && unknown.inventory.is_some();
    let (host, because) = match unknown.policy {
        UnknownPolicy::BySerial => by_serial(inventory, machine)?,
        UnknownPolicy::ByPort => by_port(inventory, machine, heard)?,
        _ => free.next(name, taken, machine.mac, life, now)?,
    };
    if host.network.name != *name {
        return Err(Because::Elsewhere {
            host: host.name.clone(),
            network: host.network.name.clone(),
            evidence: because,
        });
    }
    if taken.contains(&host.name) {
        return Err(Because::Taken(host.name.clone()));
    }
    let replaces = match host.macs.as_slice() {
        [] => None,
        [mac] => Some(**mac),
        _ => return Err(Because::SeveralMacs(host.name.clone(), because)),
    };
    let host = host.clone();
    Ok(Enrol {
        host,
        replaces,
        because,
    })
}

/// A machine that comes and a host that does not are often one, and a typing mistake; serial numbers and ports say more.
fn near_miss(
    inventory: &Inventory,
    mac: MacAddr,
    enrol: &Enrol,
    life: impl Fn(&Host) -> Life,
) -> Option<Because> {
    if enrol.because != Evidence::NextFree {
        return None;
    }
    let awaited = |name: &str| {
        let host = inventory.hosts.get(name);
        host.is_some_and(|host| life(host).sign.is_none())
    };
    let mut near = near_misses(mac, &inventory.by_mac).into_iter();
    let near = near.find(|near| awaited(&near.host))?;
    Some(Because::Near(near.to_string()))
}

/// Whether what makes a machine that host is its own word, or that of anybody on its wire, rather than a switch's.
pub fn is_hearsay(machine: &Discovered, because: &Evidence) -> bool {
    match because {
        Evidence::NextFree => false,
        Evidence::Serial(_) => true,
        Evidence::Port(_) => machine.circuit_id.is_none(),
    }
}

/// Whether a host's machine lives, or why that can't be told. It may have none by the file alone: a file that comes from
/// elsewhere, or an editor that saves what it read long ago, loses the MACs that were written meanwhile.
fn hindrance(
    host: &Host,
    claimant: MacAddr,
    because: &Evidence,
    life: Life,
    now: Timestamp,
) -> Option<Because> {
    let lives = |sign: &Sign| now.as_second() - sign.at.as_second() < SILENCE_S;
    if let Some(sign) = life.sign.filter(lives) {
        return Some(Because::Alive {
            host: host.name.clone(),
            listed: !host.macs.is_empty(),
            sign,
            evidence: because.clone(),
            now,
        });
    }
    match life.asked {
        Asked::Unknown => Some(Because::Unasked(host.name.clone())),
        Asked::Mute if life.joined => Some(Because::Unproven {
            host: host.name.clone(),
            mac: claimant,
            evidence: because.clone(),
        }),
        Asked::Mute | Asked::Silent => None,
    }
}

type Found<'a> = (&'a Arc<Host>, Evidence);

fn by_serial<'a>(inventory: &'a Inventory, machine: &Discovered) -> Result<Found<'a>, Because> {
    let said = machine.identity.serial.clone().ok_or(Because::NoSerial)?;
    let Some(key) = serial_key(&said) else {
        return Err(Because::JunkSerial(said));
    };
    match inventory.by_serial.get(&key) {
        Some(host) => Ok((host, Evidence::Serial(said))),
        None => Err(Because::StrangeSerial(said)),
    }
}

#[cfg(test)]
mod tests;

//! Decisions on new machines, for people.

use std::fmt;

use super::{Because, Decision, Enrol, Evidence, SILENCE_S, Sign, SignKind, free_host};
use crate::inventory::model::{Host, Inventory, MacAddr, UnknownPolicy};
use crate::span::span;

/// What a host waits for that has no MAC.
pub fn awaits(host: &Host) -> String {
    let network = &host.network;
    let policy = network.unknown.policy;
    let what = match (policy, &host.serial, &host.plug) {
        (UnknownPolicy::BySerial, Some(serial), _) => {
            format!("the machine with the serial number {}", **serial)
        }
        (UnknownPolicy::ByPort, _, Some(plug)) => {
            format!("the machine at port {} of {}", *plug.port, *plug.switch)
        }
        (UnknownPolicy::NextFree, None, None) => {
            format!(
                "the next machine that is not listed, in network {}",
                network.name
            )
        }
        (UnknownPolicy::Approve | UnknownPolicy::Hold, ..) => format!(
            "`bridgehead discover approve MAC --name {}` makes a machine that waits this host (`bridgehead discover list` shows them), or add its `mac`",
            host.name
        ),
        _ => format!(
            "add its `mac`; with the policy `{policy}` of network {} no machine becomes it by itself",
            network.name
        ),
    };
    format!("waits for its hardware: {what}")
}

/// What the policy of a network makes of a machine of which nothing is known but that it asks there.
pub fn promise(inventory: &Inventory, network: &str) -> String {
    let policy = inventory.unknown_on(Some(network)).policy;
    let what = match policy {
        UnknownPolicy::Ignore => "it gets no answer".to_owned(),
        UnknownPolicy::Hold => "it waits until it is listed".to_owned(),
        UnknownPolicy::Approve => "it waits until it is listed or approved".to_owned(),
        UnknownPolicy::BySerial => {
            "it waits, and becomes the host that has its serial number, if one has".to_owned()
        }
        UnknownPolicy::ByPort => {
            "it waits, and becomes the host at its switch port, if one is".to_owned()
        }
        UnknownPolicy::NextFree => match free_host(inventory, network) {
            Some(host) => format!("it waits, and becomes {}, the next free host", host.name),
            None => "it waits: no host is free".to_owned(),
        },
    };
    format!("by the policy `{policy}` of network {network} {what}")
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enrol(enrol) => write!(f, "{enrol}"),
            Self::Wait(because) => write!(f, "waits: {because}"),
        }
    }
}

impl fmt::Display for Enrol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            replaces,
            because,
        } = self;
        write!(f, "becomes {}, ", host.name)?;
        match because {
            Evidence::NextFree => write!(f, "the next free host of network {}", host.network.name)?,
            Evidence::Serial(serial) => write!(f, "which has its serial number {serial}")?,
            Evidence::Port(at) => write!(f, "which is at port {} of {}", at.port, at.switch)?,
        }
        match replaces {
            Some(mac) => write!(f, ", in place of {mac}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NextFree => f.write_str("its turn"),
            Self::Serial(serial) => write!(f, "its serial number {serial}"),
            Self::Port(at) => write!(f, "its port {} of {}", at.port, at.switch),
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHeld => f.write_str("it has not come as far as to wait at its loader"),
            Self::Nic { host, nic, .. } => write!(
                f,
                "it is the NIC {nic} of {host}: does that host boot from it? Then make it its `mac`, else let its firmware boot from its `mac` alone"
            ),
            Self::NoNetwork => f.write_str("it asks on no network of the inventory"),
            Self::ByHand(network, policy) => {
                write!(f, "the policy of network {network} is `{policy}`, so it is listed by hand")
            }
            Self::NoReport => f.write_str(
                "its inventory boot has not told what it is, and it may be a virtual machine",
            ),
            Self::Virtual(why) => write!(
                f,
                "it looks like a virtual machine ({why}), and `unknown` does not say `virtual: true`"
            ),
            Self::Near(near) => write!(
                f,
                "it is {near}, which was never heard of: a typing mistake? Correct that `mac`, or list this one by hand"
            ),
            Self::NoFreeHost(network) => write!(
                f,
                "no free host in network {network}: each has a `mac`, or waits for a certain serial number or port"
            ),
            Self::NoSerial => f.write_str(
                "it has not said its serial number, which iPXE and the inventory boot tell",
            ),
            Self::JunkSerial(serial) => {
                write!(f, "it says the serial number `{serial}`, which is nobody's")
            }
            Self::StrangeSerial(serial) => write!(f, "no host has its serial number {serial}"),
            Self::NoPort => f.write_str(
                "nobody says which switch port it is plugged into: no option 82 of a relay or switch, and LLDP counts only where `unknown` says `inventory` and `lldp: true`",
            ),
            Self::StrangePort(at) => write!(f, "no host is at its port {} of {}", at.port, at.switch),
            Self::TwoPorts(at, other) => write!(
                f,
                "it got its lease by port {at}, and now asks by {other}: it was moved, or two machines have its MAC; {other} counts once it alone was heard for 10 minutes"
            ),
            Self::Elsewhere { host, network, evidence } => {
                write!(f, "{evidence} is that of {host}, which is of network {network}")
            }
            Self::SeveralMacs(host, evidence) => {
                write!(f, "{evidence} is that of {host}, which has several MACs: set them by hand")
            }
            Self::Taken(host) => write!(f, "another machine becomes {host} just now"),
            Self::Unasked(host) => write!(
                f,
                "{host} can't be asked now whether it lives (it was not asked yet, its link is down, or many ask): that is tried again"
            ),
            Self::Unproven { host, mac, evidence } => {
                f.write_str(&unproven(host, *mac))?;
                held(f, evidence)
            }
            Self::Alive { host, listed, sign, evidence, now } => {
                alive(f, host, *sign, now.as_second() - sign.at.as_second())?;
                if !listed {
                    f.write_str(", and the file has no `mac` for it (any more?)")?;
                }
                held(f, evidence)
            }
        }
    }
}

fn unproven(host: &str, mac: MacAddr) -> String {
    format!(
        "{host} joined and can't be asked whether it lives: replace it by hand, `bridgehead hosts set {host} mac={mac}`"
    )
}

fn held(f: &mut fmt::Formatter<'_>, evidence: &Evidence) -> fmt::Result {
    match evidence {
        Evidence::NextFree => Ok(()),
        Evidence::Serial(_) => write!(f, ": a machine that says {evidence} is held"),
        Evidence::Port(_) => write!(f, ": a machine at {evidence} is held"),
    }
}

fn alive(f: &mut fmt::Formatter<'_>, host: &str, sign: Sign, ago: i64) -> fmt::Result {
    let ago = span(ago.max(0));
    match sign.kind {
        SignKind::Heard => write!(f, "{host} is alive (last sign {ago} ago)"),
        SignKind::Lease => write!(f, "{host} is alive (it holds its lease)"),
        SignKind::Answered => write!(f, "{host} is alive (its address answered {ago} ago)"),
        SignKind::Mounted => write!(
            f,
            "{host} is alive (it held a connection for its root {ago} ago)"
        ),
        SignKind::Usurped => write!(
            f,
            "this machine itself said that it has the address of {host} ({ago} ago), which would hide that {host} lives"
        ),
        SignKind::Claimed => write!(
            f,
            "{host} may be restarting (silent for {ago}, {} are needed)",
            span(SILENCE_S)
        ),
    }
}

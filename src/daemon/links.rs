//! Whether the interfaces that are served are still there, up, and have their addresses.
//!
//! A socket says nothing of it: where its interface went down, or was made anew, it waits for ever for packets, and the
//! hosts look as if they had not been switched on.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

use crate::dhcp::Interface;
use crate::site::Site;
use crate::site::trouble::Part;

/// An interface as the start found it.
#[derive(Debug)]
pub(super) struct Served {
    name: String,
    /// The sockets of DHCP are bound to this number, whatever its name becomes.
    index: u32,
    addresses: Vec<Ipv4Addr>,
    /// It had a carrier once: whoever takes it away does so by accident.
    carried: AtomicBool,
}

/// What is wrong with one.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    message: String,
    /// It has waited for a carrier since the start: a bridge without a port, a cable to a server that is off.
    waits: bool,
}

/// An interface as it is.
#[derive(Debug)]
struct Link {
    name: String,
    index: u32,
    flags: InterfaceFlags,
    addresses: Vec<Ipv4Addr>,
}

/// What the start serves; an interface that has gone meanwhile has no number.
pub(super) fn served(interfaces: &[Interface]) -> Arc<[Served]> {
    let one = |interface: &Interface| Served {
        name: interface.name.clone(),
        index: if_nametoindex(interface.name.as_str()).unwrap_or(0),
        addresses: interface.addresses.clone(),
        carried: AtomicBool::new(false),
    };
    interfaces.iter().map(one).collect()
}

/// Looks at each, and says what is new.
pub(super) fn look(served: &[Served], site: &Site) {
    // Where the system does not say, what it said last goes on.
    let Ok(links) = links() else { return };
    let faults: Vec<_> = served.iter().map(|one| one.fault(&links)).collect();
    let any_serves = faults.iter().any(Option::is_none);
    for (one, fault) in served.iter().zip(faults) {
        let spare = any_serves && fault.as_ref().is_some_and(|fault| fault.waits);
        let message = fault.map(|fault| fault.message);
        tell(site, &one.name, message, spare);
    }
}

/// Each interface is in one of the two parts at most.
fn tell(site: &Site, name: &str, message: Option<String>, spare: bool) {
    let (part, other) = match spare {
        true => (Part::Spare, Part::Interface),
        false => (Part::Interface, Part::Spare),
    };
    let was_other = site.troubles.set(other, name, None);
    let is_new = site.troubles.set(part, name, message.clone());
    match message {
        Some(fault) if is_new && spare => tracing::warn!("{fault}"),
        Some(fault) if is_new => tracing::error!("{fault}"),
        None if is_new || was_other => tracing::info!("interface {name} is served again"),
        _ => {}
    }
}

fn links() -> nix::Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    for entry in getifaddrs()? {
        let v4 = entry.address.as_ref().and_then(|at| at.as_sockaddr_in());
        let address = v4.map(nix::sys::socket::SockaddrIn::ip);
        if let Some(link) = links
            .iter_mut()
            .find(|link| link.name == entry.interface_name)
        {
            link.addresses.extend(address);
            continue;
        }
        links.push(Link {
            index: if_nametoindex(entry.interface_name.as_str()).unwrap_or(0),
            name: entry.interface_name,
            flags: entry.flags,
            addresses: address.into_iter().collect(),
        });
    }
    Ok(links)
}

impl Served {
    /// What is wrong with it.
    fn fault(&self, links: &[Link]) -> Option<Fault> {
        let link = links.iter().find(|link| link.index == self.index);
        let carries = |link: &Link| link.flags.contains(InterfaceFlags::IFF_RUNNING);
        let carried = self.carried.load(Ordering::Relaxed) || link.is_some_and(carries);
        self.carried.store(carried, Ordering::Relaxed);
        let message = self.words(link, links)?;
        let up = link.is_some_and(|link| link.flags.contains(InterfaceFlags::IFF_UP));
        let waits = up && !carried;
        Some(Fault { message, waits })
    }

    /// What is wrong, what comes of it, and what to do.
    fn words(&self, link: Option<&Link>, links: &[Link]) -> Option<String> {
        let name = &self.name;
        let Some(link) = link else {
            let again = links.iter().any(|link| link.name == *name);
            return Some(match again {
                true => format!(
                    "interface {name} was made anew since the start, and no DHCP is heard on it: restart the daemon"
                ),
                false => format!(
                    "interface {name} is gone, and nobody is served on it: bring it back, then restart the daemon"
                ),
            });
        };
        if !link.flags.contains(InterfaceFlags::IFF_UP) {
            return Some(format!(
                "interface {name} is down, and nobody is served on it: `ip link set {} up`",
                link.name
            ));
        }
        if !link.flags.contains(InterfaceFlags::IFF_RUNNING) {
            let has = match self.carried.load(Ordering::Relaxed) {
                true => "has no carrier",
                false => "has had no carrier since the start",
            };
            return Some(format!(
                "interface {name} {has}, and nobody is served on it: look at its cable and the switch port"
            ));
        }
        let lost = self.addresses.iter();
        let lost =
            lost.filter(|address| links.iter().all(|link| !link.addresses.contains(address)));
        let lost: Vec<_> = lost.map(Ipv4Addr::to_string).collect();
        (!lost.is_empty()).then(|| {
            format!(
                "interface {name} lost its address {}, and no boot files are served there: give it back (`ip address add`)",
                lost.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, index: u32, flags: InterfaceFlags, addresses: &[&str]) -> Link {
        Link {
            name: name.into(),
            index,
            flags,
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
        }
    }

    fn eno2() -> Served {
        Served {
            name: "eno2".into(),
            index: 3,
            addresses: vec!["10.77.0.1".parse().unwrap()],
            carried: AtomicBool::new(false),
        }
    }

    #[test]
    fn who_never_had_a_carrier_waits_for_one_and_who_lost_it_does_not() {
        let served = eno2();
        let without = || link("eno2", 3, InterfaceFlags::IFF_UP, &["10.77.0.1"]);
        let waits = |link| served.fault(&[link]).map(|fault| fault.waits);
        assert_eq!(waits(without()), Some(true));
        let down = link("eno2", 3, InterfaceFlags::empty(), &["10.77.0.1"]);
        assert_eq!(waits(down), Some(false));
        let well = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        assert_eq!(waits(link("eno2", 3, well, &["10.77.0.1"])), None);
        assert_eq!(waits(without()), Some(false));
    }

    #[test]
    fn each_fault_of_an_interface_is_told_with_what_comes_of_it() {
        let served = eno2();
        let well = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let own = &["192.0.2.1", "10.77.0.1"];
        for right in [link("eno2", 3, well, own), link("lan0", 3, well, own)] {
            assert_eq!(served.fault(&[right]), None);
        }
        // A standby's address may be on another interface of ours.
        let moved = [link("eno2", 3, well, &[]), link("lo", 1, well, own)];
        assert_eq!(served.fault(&moved), None);
        let told: Vec<_> = [
            link("eno2", 3, InterfaceFlags::empty(), own),
            link("eno2", 3, InterfaceFlags::IFF_UP, own),
            link("eno2", 3, well, &["192.0.2.1"]),
            link("eno2", 9, well, own),
            link("eth0", 9, well, &[]),
        ]
        .into_iter()
        .map(|link| served.fault(&[link]).unwrap().message)
        .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        interface eno2 is down, and nobody is served on it: `ip link set eno2 up`
        interface eno2 has no carrier, and nobody is served on it: look at its cable and the switch port
        interface eno2 lost its address 10.77.0.1, and no boot files are served there: give it back (`ip address add`)
        interface eno2 was made anew since the start, and no DHCP is heard on it: restart the daemon
        interface eno2 is gone, and nobody is served on it: bring it back, then restart the daemon
        ");
    }
}

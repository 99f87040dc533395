//! Other DHCP servers, as the daemon last heard them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::inventory::model::{DhcpMode, MacAddr, Network};

/// A server that did not answer so often is gone.
const MISSES: u32 = 3;
/// Servers of one interface that are known; beyond, answers are forged.
pub const MOST: usize = 16;

/// A server that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heard {
    /// What it calls itself (option 54), else where its answer came from.
    pub server: Ipv4Addr,
    /// The MAC that sent the answer: the server's, or a relay's.
    pub mac: MacAddr,
    /// What it offers; zero in a proxy's answer.
    pub address: Ipv4Addr,
    /// Whether it tells PXE clients what to boot.
    pub pxe: bool,
}

impl Heard {
    /// Whether it is what a network in this mode reckons with.
    pub fn is_expected(&self, mode: DhcpMode) -> bool {
        mode == DhcpMode::Proxy && !self.pxe
    }

    /// What is known of it, in words.
    pub fn describe(&self) -> String {
        let Self {
            server,
            mac,
            address,
            ..
        } = self;
        let offers = if address.is_unspecified() {
            "offers no address".to_owned()
        } else {
            format!("offers {address}")
        };
        let pxe = if self.pxe { " and a boot file" } else { "" };
        format!("{server} ({mac}) {offers}{pxe}")
    }

    /// What comes of it, and what to do.
    pub fn advice(&self, network: &Network) -> String {
        let name = &network.name;
        match (network.dhcp, self.pxe) {
            (DhcpMode::Proxy, false) => {
                format!("it gives the addresses of network {name}, as `dhcp: proxy` reckons")
            }
            (DhcpMode::Proxy, true) => format!(
                "machines of network {name} may boot what it says: switch its network boot off"
            ),
            _ if self.address.is_unspecified() => {
                format!("machines of network {name} may boot what it says: stop it")
            }
            _ => format!(
                "machines of network {name} may take its address and not boot: stop it, or set `dhcp: proxy`"
            ),
        }
    }
}

/// A server, and when it last answered.
#[derive(Debug, Clone)]
pub struct Known {
    /// Whose network it is on.
    pub network: String,
    /// What it said.
    pub heard: Heard,
    /// When.
    pub at: Timestamp,
    /// Whether the network reckons with it.
    pub expected: bool,
    missed: u32,
}

/// Every server that answers, by interface.
#[derive(Debug, Default)]
pub struct OtherServers(Mutex<BTreeMap<(String, Ipv4Addr, MacAddr), Known>>);

impl OtherServers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, Ipv4Addr, MacAddr), Known>> {
        // Every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, with the interface each was heard on.
    pub fn list(&self) -> Vec<(String, Known)> {
        let known = self.lock();
        let each = known
            .iter()
            .map(|((at, _, _), known)| (at.clone(), known.clone()));
        each.collect()
    }

    /// Forgets an interface on which nobody looks any more.
    pub fn forget(&self, interface: &str) {
        self.lock().retain(|(on, ..), _| on != interface);
    }

    /// Takes in who answered on an interface; gives who is new, and who is gone.
    pub fn update(
        &self,
        interface: &str,
        network: &Network,
        heard: &[Heard],
    ) -> (Vec<Heard>, Vec<Heard>) {
        let mut known = self.lock();
        let mut new = Vec::new();
        for one in heard {
            let entry = Known {
                network: network.name.clone(),
                heard: *one,
                at: Timestamp::now(),
                expected: one.is_expected(network.dhcp),
                missed: 0,
            };
            let key = (interface.to_owned(), one.server, one.mac);
            let here = known.keys().filter(|(on, ..)| on == interface).count();
            if here >= MOST && !known.contains_key(&key) {
                continue;
            }
            let before = known.insert(key, entry);
            if before.is_none_or(|before| before.expected != one.is_expected(network.dhcp)) {
                new.push(*one);
            }
        }
        let mut gone = Vec::new();
        known.retain(|(on, server, mac), entry| {
            let answered = heard
                .iter()
                .any(|one| (one.server, one.mac) == (*server, *mac));
            entry.missed += u32::from(on == interface && !answered);
            let stays = entry.missed < MISSES;
            if !stays {
                gone.push(entry.heard);
            }
            stays
        });
        (new, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forged(first: u32) -> Vec<Heard> {
        let one = |number| Heard {
            server: Ipv4Addr::from(first + number),
            mac: MacAddr([2; 6]),
            address: Ipv4Addr::UNSPECIFIED,
            pxe: true,
        };
        (0..1000).map(one).collect()
    }

    #[test]
    fn forged_servers_are_bounded_and_an_interface_that_is_off_has_none() {
        let text = "networks: {boot: {subnet: 10.77.0.0/24, server: 10.77.0.1}}";
        let (inventory, _) = crate::inventory::parse("hosts.yaml", text).unwrap();
        let (others, network) = (OtherServers::default(), &inventory.networks["boot"]);
        for look in 0..5 {
            others.update("eth0", network, &forged(look * 1000));
            assert!(others.list().len() <= MOST);
        }
        others.update("eth1", network, &forged(0)[..1]);
        others.forget("eth0");
        let left: Vec<_> = others.list().into_iter().map(|(on, _)| on).collect();
        assert_eq!(left, ["eth1"]);
    }
}

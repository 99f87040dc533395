//! Other DHCP servers, as the daemon last heard them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

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
    /// Whether it gives addresses.
    pub fn gives(&self) -> bool {
        !self.address.is_unspecified()
    }

    /// Whether it is what a network in this mode reckons with.
    pub fn is_expected(&self, mode: DhcpMode) -> bool {
        mode == DhcpMode::Proxy && self.gives() && !self.pxe
    }

    /// Which of the networks on one link it counts to: that of the address that it offers, else
    /// its own, else the first.
    pub fn counts_to<'a>(&self, here: &[&'a Network]) -> Option<&'a Network> {
        let holding = |address| {
            here.iter()
                .find(|network| network.subnet.contains(&address))
        };
        let found = holding(self.address).or_else(|| holding(self.server));
        found.or_else(|| here.first()).copied()
    }

    /// What is known of it, in words.
    pub fn describe(&self) -> String {
        let Self {
            server,
            mac,
            address,
            ..
        } = self;
        let offers = match (self.gives(), self.pxe) {
            (true, true) => format!("offers {address} and a boot file"),
            (true, false) => format!("offers {address}"),
            (false, true) => "offers a boot file and no address (a PXE proxy)".to_owned(),
            (false, false) => "offers neither an address nor a boot file".to_owned(),
        };
        format!("{server} ({mac}) {offers}")
    }

    /// What comes of it, and what to do.
    pub fn advice(&self, network: &Network) -> String {
        let name = &network.name;
        match (network.dhcp, self.gives(), self.pxe) {
            (_, false, false) => format!("machines of network {name} have no use for it"),
            (_, false, true) => format!(
                "machines of network {name} may boot what it says, and not what this daemon does: stop it"
            ),
            (DhcpMode::Proxy, true, false) => {
                format!("it gives the addresses of network {name}, as `dhcp: proxy` reckons")
            }
            (DhcpMode::Proxy, true, true) => format!(
                "machines of network {name} may boot what it says: switch its network boot off"
            ),
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
pub struct OtherServers {
    known: Mutex<BTreeMap<(String, Ipv4Addr, MacAddr), Known>>,
    suspected: watch::Sender<()>,
}

impl OtherServers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, Ipv4Addr, MacAddr), Known>> {
        // Every change is one call.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine took another server's offer: it is time to look.
    pub fn suspect(&self) {
        self.suspected.send_replace(());
    }

    /// Changes when there is reason to look.
    pub fn suspected(&self) -> watch::Receiver<()> {
        self.suspected.subscribe()
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

    /// Takes in who answered on an interface with these networks; gives who is new, with the
    /// network that it counts to, and who is gone.
    pub fn update<'a>(
        &self,
        interface: &str,
        here: &[&'a Network],
        heard: &[Heard],
    ) -> (Vec<(Heard, &'a Network)>, Vec<Heard>) {
        let mut known = self.lock();
        let mut new = Vec::new();
        for one in heard {
            let Some(network) = one.counts_to(here) else {
                continue;
            };
            let expected = one.is_expected(network.dhcp);
            let entry = Known {
                network: network.name.clone(),
                heard: *one,
                at: Timestamp::now(),
                expected,
                missed: 0,
            };
            let key = (interface.to_owned(), one.server, one.mac);
            let on_it = known.keys().filter(|(on, ..)| on == interface).count();
            if on_it >= MOST && !known.contains_key(&key) {
                continue;
            }
            let before = known.insert(key, entry);
            if before.is_none_or(|before| before.expected != expected) {
                new.push((*one, network));
            }
        }
        (new, forget_silent(&mut known, interface, heard))
    }
}

/// Counts who did not answer this time; gives who has not for long.
fn forget_silent(
    known: &mut BTreeMap<(String, Ipv4Addr, MacAddr), Known>,
    interface: &str,
    heard: &[Heard],
) -> Vec<Heard> {
    let mut gone = Vec::new();
    known.retain(|(on, server, mac), entry| {
        let mut all = heard.iter();
        let answered = all.any(|one| (one.server, one.mac) == (*server, *mac));
        entry.missed += u32::from(on == interface && !answered);
        let stays = entry.missed < MISSES;
        if !stays {
            gone.push(entry.heard);
        }
        stays
    });
    gone
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
            others.update("eth0", &[network], &forged(look * 1000));
            assert!(others.list().len() <= MOST);
        }
        others.update("eth1", &[network], &forged(0)[..1]);
        others.forget("eth0");
        let left: Vec<_> = others.list().into_iter().map(|(on, _)| on).collect();
        assert_eq!(left, ["eth1"]);
    }

    const TWO: &str =
        "networks: {boot: {subnet: 10.77.0.0/24, dhcp: proxy}, second: {subnet: 10.99.0.0/24}}";

    fn heard(server: [u8; 4], address: [u8; 4], pxe: bool) -> Heard {
        Heard {
            server: server.into(),
            mac: MacAddr([2; 6]),
            address: address.into(),
            pxe,
        }
    }

    #[test]
    fn of_two_networks_on_a_link_it_counts_to_its_own() {
        let (inventory, _) = crate::inventory::parse("hosts.yaml", TWO).unwrap();
        let here: Vec<&Network> = inventory.networks.values().map(AsRef::as_ref).collect();
        for (server, address, network) in [
            ([10, 77, 0, 9], [10, 77, 0, 200], "boot"),
            ([10, 99, 0, 9], [10, 99, 0, 200], "second"),
            // Behind a relay: what it offers says where it counts.
            ([192, 0, 2, 1], [10, 99, 0, 200], "second"),
            ([10, 99, 0, 9], [0; 4], "second"),
            ([192, 0, 2, 1], [0; 4], "boot"),
        ] {
            let found = heard(server, address, false).counts_to(&here);
            assert_eq!(found.map(|at| &*at.name), Some(network), "{server:?}");
        }
        let others = OtherServers::default();
        let plain = heard([10, 77, 0, 9], [10, 77, 0, 200], false);
        let rogue = heard([10, 99, 0, 9], [10, 99, 0, 200], false);
        others.update("eth0", &here, &[plain, rogue]);
        let expected: Vec<_> = others.list().iter().map(|(_, one)| one.expected).collect();
        assert_eq!(expected, [true, false]);
    }

    #[test]
    fn what_it_offers_is_told_with_what_comes_of_it() {
        let (inventory, _) = crate::inventory::parse("hosts.yaml", TWO).unwrap();
        let told = |network: &str, address, pxe| {
            let one = heard([10, 77, 0, 9], address, pxe);
            let advice = one.advice(&inventory.networks[network]);
            format!("{}; {advice}", one.describe())
        };
        let given = [10, 77, 0, 200];
        let all: Vec<_> = ["boot", "second"]
            .into_iter()
            .flat_map(|network| {
                [
                    (given, false),
                    (given, true),
                    ([0; 4], true),
                    ([0; 4], false),
                ]
                .map(|(address, pxe)| told(network, address, pxe))
            })
            .collect();
        insta::assert_snapshot!(all.join("\n"));
    }
}

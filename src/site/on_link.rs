//! Who has an address where another server gave it: the MAC that answers ARP for it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use super::Site;
use crate::inventory::model::{DhcpMode, MacAddr};

/// The kernel's table of neighbours; an entry is there once a peer has asked for our MAC.
const ARP: &str = "/proc/net/arp";

/// Addresses that a capture is believed to tell of; the rest of a larger one is left out.
const MAX_TOLD: usize = 1 << 16;

/// Who knows which MAC has an address on the link.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// `None`: the kernel does.
    told: Option<Mutex<HashMap<Ipv4Addr, MacAddr>>>,
}

impl Neighbours {
    /// Those that are told of, as by a capture, and none of this machine.
    pub fn told() -> Self {
        Self {
            told: Some(Mutex::default()),
        }
    }

    /// Tells that a MAC has an address; the kernel knows better and needs no telling.
    pub fn heard(&self, address: Ipv4Addr, mac: MacAddr) {
        let Some(told) = &self.told else { return };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MAX_TOLD || told.contains_key(&address) {
            told.insert(address, mac);
        }
    }

    fn mac_of(&self, address: Ipv4Addr) -> Option<MacAddr> {
        match &self.told {
            None => on_link(&std::fs::read_to_string(ARP).ok()?, address),
            Some(told) => {
                let told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.get(&address).copied()
            }
        }
    }
}

impl Site {
    /// The MAC that has the address now: by our lease, or on the link of a network with
    /// `dhcp: proxy`.
    ///
    /// There an address says nothing by itself: the other server may give a host's to a guest.
    pub(super) fn holder(&self, address: Ipv4Addr) -> Option<MacAddr> {
        match self.is_beside(address) {
            true => self.neighbours.mac_of(address),
            false => self.lease_holder(address),
        }
    }

    /// The MAC that the machine with the address boots from, where there is no doubt.
    pub fn boot_mac(&self, address: Ipv4Addr) -> Option<MacAddr> {
        let host = || self.machine_at(address)?.host;
        self.holder(address)
            .or_else(|| match host()?.macs.as_slice() {
                [mac] => Some(**mac),
                _ => None,
            })
    }

    /// Whether the address is of a network whose addresses another server gives.
    pub(super) fn is_beside(&self, address: Ipv4Addr) -> bool {
        let snapshot = self.snapshot();
        let mut networks = snapshot.inventory.networks.values();
        let network = networks.find(|network| network.subnet.contains(&address));
        network.is_some_and(|network| network.dhcp == DhcpMode::Proxy)
    }
}

/// `IP address, HW type, Flags, HW address, Mask, Device` (proc(5)).
fn on_link(table: &str, address: Ipv4Addr) -> Option<MacAddr> {
    let mut rows = table.lines().map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next(), words.nth(2))
    });
    let (_, mac) = rows.find(|(found, _)| found.is_some_and(|at| at.parse() == Ok(address)))?;
    let mac: MacAddr = mac?.parse().ok()?;
    (mac.0 != [0; 6]).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_neighbours_is_read() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            10.77.0.200      0x1         0x2         52:54:00:00:00:01     *        boot0\n\
            10.77.0.201      0x1         0x0         00:00:00:00:00:00     *        boot0\n";
        let of = |last| on_link(table, Ipv4Addr::new(10, 77, 0, last));
        assert_eq!(of(200), Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])));
        assert_eq!((of(201), of(20)), (None, None));
    }
}

//! The lease table and the rules by which addresses are given.
//!
//! Leases are keyed by MAC, whatever client identifier firmware, loader and kernel
//! send: one machine keeps one address through its whole boot.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::inventory::model::{AddressRange, MacAddr};

/// How long an offered address is kept for the client's REQUEST.
pub const OFFER_HOLD: Duration = Duration::from_secs(60);
/// How long a declined address rests (dnsmasq `DECLINE_BACKOFF`).
pub const DECLINE_REST: Duration = Duration::from_secs(600);

/// An address that a machine holds, or held: expired leases are remembered so that
/// a machine that comes back finds its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Until when the machine may use it.
    pub expires: Timestamp,
}

/// A durable change of the table; what the journal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum LeaseChange {
    /// A machine was given an address.
    Bind {
        /// Who.
        mac: MacAddr,
        /// What.
        address: Ipv4Addr,
        /// Until when.
        expires: Timestamp,
    },
    /// A machine gave its address back.
    Release {
        /// Who.
        mac: MacAddr,
        /// When; the address may be given again from then on.
        at: Timestamp,
    },
    /// A client found the address in use by somebody else.
    Decline {
        /// Who said so.
        mac: MacAddr,
        /// Which address.
        address: Ipv4Addr,
        /// Until when it rests.
        until: Timestamp,
    },
}

/// Who holds which address.
#[derive(Debug, Clone, Default)]
pub struct LeaseTable {
    by_mac: HashMap<MacAddr, Lease>,
    by_address: HashMap<Ipv4Addr, MacAddr>,
    offers: HashMap<Ipv4Addr, (MacAddr, Timestamp)>,
    resting: HashMap<Ipv4Addr, Timestamp>,
    swept: i64,
}

impl LeaseTable {
    /// Takes a change in.
    pub fn apply(&mut self, change: &LeaseChange) {
        match *change {
            LeaseChange::Bind {
                mac,
                address,
                expires,
            } => self.bind(mac, Lease { address, expires }),
            LeaseChange::Release { mac, at } => {
                if let Some(lease) = self.by_mac.get_mut(&mac) {
                    lease.expires = lease.expires.min(at);
                }
            }
            LeaseChange::Decline {
                mac,
                address,
                until,
            } => {
                if self.by_address.get(&address) == Some(&mac) {
                    self.by_address.remove(&address);
                    self.by_mac.remove(&mac);
                }
                self.offers.remove(&address);
                self.resting.insert(address, until);
            }
        }
    }

    fn bind(&mut self, mac: MacAddr, lease: Lease) {
        if let Some(old) = self.by_mac.insert(mac, lease)
            && old.address != lease.address
        {
            self.by_address.remove(&old.address);
        }
        let previous = self.by_address.insert(lease.address, mac);
        if let Some(previous) = previous.filter(|previous| *previous != mac) {
            self.by_mac.remove(&previous);
        }
        self.offers.remove(&lease.address);
    }

    /// Remembers, in memory alone, that an address was offered.
    pub fn offer(&mut self, mac: MacAddr, address: Ipv4Addr, until: Timestamp) {
        self.offers.insert(address, (mac, until));
    }

    /// Forgets what has run out and can't be wanted again; once a second is enough.
    pub fn sweep(&mut self, now: Timestamp) {
        if self.swept == now.as_second() {
            return;
        }
        self.swept = now.as_second();
        self.offers.retain(|_, (_, until)| *until > now);
        self.resting.retain(|_, until| *until > now);
    }

    /// The lease of a machine, expired or not.
    pub fn of(&self, mac: MacAddr) -> Option<Lease> {
        self.by_mac.get(&mac).copied()
    }

    /// Who holds the address now.
    pub fn holder(&self, address: Ipv4Addr, now: Timestamp) -> Option<MacAddr> {
        let mac = *self.by_address.get(&address)?;
        (self.by_mac.get(&mac)?.expires > now).then_some(mac)
    }

    /// Every lease.
    pub fn iter(&self) -> impl Iterator<Item = (MacAddr, Lease)> + '_ {
        self.by_mac.iter().map(|(mac, lease)| (*mac, *lease))
    }

    /// Addresses that rest after a DECLINE, with the end of their rest.
    pub fn resting(&self) -> impl Iterator<Item = (Ipv4Addr, Timestamp)> + '_ {
        self.resting
            .iter()
            .map(|(address, until)| (*address, *until))
    }

    /// Whether `mac` may have `address` now.
    pub fn available(&self, address: Ipv4Addr, mac: MacAddr, now: Timestamp) -> bool {
        let held_by_other = self
            .holder(address, now)
            .is_some_and(|holder| holder != mac);
        let offered_to_other = self
            .offers
            .get(&address)
            .is_some_and(|(to, until)| *to != mac && *until > now);
        let rests = self.resting.get(&address).is_some_and(|until| *until > now);
        !held_by_other && !offered_to_other && !rests
    }

    /// An address of the pool for a machine that is not listed: its last one, else
    /// one never used, else the one whose lease ran out first. `None`: the pool is full.
    pub fn choose(&self, pool: AddressRange, mac: MacAddr, now: Timestamp) -> Option<Ipv4Addr> {
        let usable =
            |address: Ipv4Addr| pool.contains(address) && self.available(address, mac, now);
        let own = self.by_mac.get(&mac).map(|lease| lease.address);
        let offered = self.offers.iter().find(|(_, (to, _))| *to == mac);
        if let Some(address) = own
            .into_iter()
            .chain(offered.map(|(address, _)| *address))
            .find(|address| usable(*address))
        {
            return Some(address);
        }
        let (first, last) = (u32::from(pool.first), u32::from(pool.last));
        let size = u64::from(last - first) + 1;
        let start = spread(mac) % size;
        let candidates = (0..size).map(|step| {
            let offset = u32::try_from((start + step) % size).unwrap_or(0);
            Ipv4Addr::from(first + offset)
        });
        let mut oldest: Option<(Timestamp, Ipv4Addr)> = None;
        for address in candidates.filter(|address| usable(*address)) {
            match self.expiry(address) {
                None => return Some(address),
                Some(expires) if oldest.is_none_or(|(best, _)| expires < best) => {
                    oldest = Some((expires, address));
                }
                Some(_) => {}
            }
        }
        oldest.map(|(_, address)| address)
    }

    fn expiry(&self, address: Ipv4Addr) -> Option<Timestamp> {
        let mac = self.by_address.get(&address)?;
        self.by_mac.get(mac).map(|lease| lease.expires)
    }
}

/// Where in the pool the search begins: the same place for the same MAC (FNV-1a).
fn spread(mac: MacAddr) -> u64 {
    mac.0.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn pool(first: u8, last: u8) -> AddressRange {
        AddressRange {
            first: Ipv4Addr::new(10, 0, 0, first),
            last: Ipv4Addr::new(10, 0, 0, last),
        }
    }

    fn bind(table: &mut LeaseTable, who: u8, address: Ipv4Addr, expires: i64) {
        table.apply(&LeaseChange::Bind {
            mac: mac(who),
            address,
            expires: at(expires),
        });
    }

    #[test]
    fn a_machine_gets_its_last_address_again() {
        let mut table = LeaseTable::default();
        let address = table.choose(pool(10, 20), mac(1), at(0)).unwrap();
        bind(&mut table, 1, address, 10);
        assert_eq!(table.choose(pool(10, 20), mac(1), at(1000)), Some(address));
    }

    #[test]
    fn a_full_pool_gives_the_address_that_ran_out_first_and_none_before() {
        let mut table = LeaseTable::default();
        bind(&mut table, 1, Ipv4Addr::new(10, 0, 0, 10), 200);
        bind(&mut table, 2, Ipv4Addr::new(10, 0, 0, 11), 100);
        assert_eq!(table.choose(pool(10, 11), mac(3), at(50)), None);
        let given = table.choose(pool(10, 11), mac(3), at(300));
        assert_eq!(given, Some(Ipv4Addr::new(10, 0, 0, 11)));
    }

    #[test]
    fn a_declined_address_rests() {
        let mut table = LeaseTable::default();
        let address = Ipv4Addr::new(10, 0, 0, 10);
        bind(&mut table, 1, address, 200);
        table.apply(&LeaseChange::Decline {
            mac: mac(1),
            address,
            until: at(500),
        });
        assert_eq!(table.choose(pool(10, 10), mac(1), at(499)), None);
        assert_eq!(table.choose(pool(10, 10), mac(1), at(501)), Some(address));
    }

    #[test]
    fn an_offer_holds_the_address_for_its_machine() {
        let mut table = LeaseTable::default();
        let address = Ipv4Addr::new(10, 0, 0, 10);
        table.offer(mac(1), address, at(60));
        assert!(!table.available(address, mac(2), at(59)));
        assert!(table.available(address, mac(1), at(59)));
        assert!(table.available(address, mac(2), at(61)));
    }

    proptest! {
        /// Whatever the order of asking, releasing and declining: no two hold one address.
        #[test]
        fn no_address_is_given_twice(steps in proptest::collection::vec((0_u8..12, 0_u8..4, 0_i64..50), 1..200)) {
            let mut table = LeaseTable::default();
            let mut now = 0;
            for (who, what, passed) in steps {
                now += passed;
                match what {
                    0 | 1 => if let Some(address) = table.choose(pool(10, 17), mac(who), at(now)) {
                        prop_assert!(table.holder(address, at(now)).is_none_or(|holder| holder == mac(who)));
                        bind(&mut table, who, address, now + 60);
                    },
                    2 => table.apply(&LeaseChange::Release { mac: mac(who), at: at(now) }),
                    _ => if let Some(lease) = table.of(mac(who)) {
                        table.apply(&LeaseChange::Decline { mac: mac(who), address: lease.address, until: at(now + 100) });
                    },
                }
                let held: Vec<_> = table.iter().filter(|(_, lease)| lease.expires > at(now)).map(|(_, lease)| lease.address).collect();
                prop_assert_eq!(held.len(), held.iter().collect::<HashSet<_>>().len());
            }
        }
    }
}

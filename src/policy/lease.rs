//! The lease table and the rules by which addresses are given.
//!
//! Leases are keyed by MAC, whatever client identifier firmware, loader and kernel
//! send: one machine keeps one address through its whole boot.

mod blocks;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::inventory::model::{AddressRange, MacAddr};
use crate::policy::switch_port::PluggedIn;
use crate::wire::dhcp::fnv_1a;
use blocks::Blocks;

/// How long an offered address is kept for the client's REQUEST.
pub const OFFER_HOLD: Duration = Duration::from_secs(60);
/// How long a declined address rests (dnsmasq `DECLINE_BACKOFF`).
pub const DECLINE_REST: Duration = Duration::from_secs(600);

/// Addresses that rest at once on the word of one machine. A machine that declines everything
/// keeps what it was given last.
const DECLINES_OF_ONE: usize = 4;

/// An address that a machine holds, or held: expired leases are remembered so that
/// a machine that comes back finds its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Until when the machine may use it.
    pub expires: Timestamp,
}

/// An address that is given to nobody for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// The address.
    pub address: Ipv4Addr,
    /// Who declined it, or has it without a lease.
    pub mac: MacAddr,
    /// Whether it was found in use by an ARP probe.
    pub found: bool,
    /// Until when.
    pub until: Timestamp,
}

/// A durable change of the table; what the journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        /// Where it is plugged in, of one that nobody listed; journals written before that was noted don't say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<Box<PluggedIn>>,
    },
    /// A machine gave its address back.
    Release {
        /// Who.
        mac: MacAddr,
        /// Which; journals written before it was noted mean whatever the machine holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Ipv4Addr>,
        /// When; the address may be given again from then on.
        at: Timestamp,
    },
    /// An address is in use by somebody who has no lease of it.
    Decline {
        /// Who said so; who has it, if it was found.
        mac: MacAddr,
        /// Which address.
        address: Ipv4Addr,
        /// Whether our own ARP probe found it, and no client declined it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        found: bool,
        /// Until when it rests.
        until: Timestamp,
    },
}

/// Who holds which address.
#[derive(Debug, Clone, Default)]
pub struct LeaseTable {
    addresses: HashMap<Ipv4Addr, Standing>,
    by_mac: HashMap<MacAddr, Ipv4Addr>,
    /// Where the holders of leases are plugged in, as far as that is known.
    ports: HashMap<MacAddr, Box<PluggedIn>>,
    offered_to: HashMap<MacAddr, Ipv4Addr>,
    /// How many addresses rest by whose DECLINE.
    declined_by: HashMap<MacAddr, usize>,
    /// Addresses that rest.
    resting: BTreeSet<Ipv4Addr>,
    /// Addresses with an offer or a rest, which end by themselves.
    passing: HashSet<Ipv4Addr>,
    blocks: Blocks,
    swept: i64,
}

/// How an address stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    lease: Option<(MacAddr, Timestamp)>,
    offer: Option<(MacAddr, Timestamp)>,
    rests: Option<Rest>,
}

impl Standing {
    /// The end of the lease, where nothing else speaks against giving it to another then.
    fn idle(&self) -> Option<Timestamp> {
        let (_, expires) = self.lease?;
        (self.offer.is_none() && self.rests.is_none()).then_some(expires)
    }
}

impl LeaseTable {
    /// Takes a change in.
    pub fn apply(&mut self, change: &LeaseChange) {
        match *change {
            LeaseChange::Bind {
                mac,
                address,
                expires,
                ref port,
            } => {
                self.bind(mac, address, expires);
                match port {
                    Some(port) => self.ports.insert(mac, port.clone()),
                    None => self.ports.remove(&mac),
                };
            }
            LeaseChange::Release { mac, address, at } => {
                let held = self.by_mac.get(&mac).copied();
                if let Some(held) = held.filter(|held| address.is_none_or(|one| one == *held)) {
                    self.change(held, |standing| {
                        standing.lease = standing.lease.map(|(who, end)| (who, end.min(at)));
                    });
                }
            }
            LeaseChange::Decline {
                mac,
                address,
                found,
                until,
            } => {
                let held = self.by_mac.get(&mac) == Some(&address);
                if held {
                    self.forget(mac);
                }
                self.change(address, |standing| {
                    standing.lease = standing.lease.filter(|_| !held);
                    standing.offer = None;
                    standing.rests = Some(Rest {
                        address,
                        mac,
                        found,
                        until,
                    });
                });
            }
        }
    }

    fn bind(&mut self, mac: MacAddr, address: Ipv4Addr, expires: Timestamp) {
        let old = self.by_mac.insert(mac, address);
        if let Some(old) = old.filter(|old| *old != address) {
            self.change(old, |standing| standing.lease = None);
        }
        let previous = self.standing(address).lease;
        if let Some((previous, _)) = previous.filter(|(previous, _)| *previous != mac) {
            self.forget(previous);
        }
        self.change(address, |standing| {
            standing.lease = Some((mac, expires));
            standing.offer = None;
        });
    }

    /// The machine's address is another's, or nobody's.
    fn forget(&mut self, mac: MacAddr) {
        self.by_mac.remove(&mac);
        self.ports.remove(&mac);
    }

    fn standing(&self, address: Ipv4Addr) -> Standing {
        self.addresses.get(&address).copied().unwrap_or_default()
    }

    /// Changes how an address stands, and every index with it.
    fn change(&mut self, address: Ipv4Addr, change: impl FnOnce(&mut Standing)) {
        let before = self.standing(address);
        let mut after = before;
        change(&mut after);
        let used = after != Standing::default();
        if used {
            self.addresses.insert(address, after);
        } else {
            self.addresses.remove(&address);
        }
        if let Some((mac, _)) = before.offer.filter(|_| before.offer != after.offer)
            && self.offered_to.get(&mac) == Some(&address)
        {
            self.offered_to.remove(&mac);
        }
        if let Some((mac, _)) = after.offer {
            self.offered_to.insert(mac, address);
        }
        if before.rests != after.rests {
            self.count_rests(address, before.rests, after.rests);
        }
        if after.offer.is_some() || after.rests.is_some() {
            self.passing.insert(address);
        } else {
            self.passing.remove(&address);
        }
        self.blocks.note(address, used, before.idle(), after.idle());
    }

    fn count_rests(&mut self, address: Ipv4Addr, before: Option<Rest>, after: Option<Rest>) {
        match after {
            Some(_) => self.resting.insert(address),
            None => self.resting.remove(&address),
        };
        let declined = |rest: Option<Rest>| rest.filter(|rest| !rest.found);
        if let Some(rest) = declined(after) {
            *self.declined_by.entry(rest.mac).or_default() += 1;
        }
        if let Some(rest) = declined(before)
            && let Entry::Occupied(mut count) = self.declined_by.entry(rest.mac)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Whether one more address may rest on the word of `mac`.
    pub fn may_decline(&self, mac: MacAddr) -> bool {
        self.declined_by.get(&mac).copied().unwrap_or(0) < DECLINES_OF_ONE
    }

    /// Whether the address rests, or may: of a pool's addresses at most half rest, whoever says
    /// that they are in use. A station can answer ARP for each of them, in any name.
    pub fn may_rest(&self, address: Ipv4Addr, pool: AddressRange) -> bool {
        let resting = self.resting.range(pool.first..=pool.last).count();
        self.resting.contains(&address) || (resting as u64) * 2 < size(pool)
    }

    /// Remembers, in memory alone, that an address was offered.
    pub fn offer(&mut self, mac: MacAddr, address: Ipv4Addr, until: Timestamp) {
        self.change(address, |standing| standing.offer = Some((mac, until)));
    }

    /// Forgets what has run out and can't be wanted again; once a second is enough.
    pub fn sweep(&mut self, now: Timestamp) {
        if self.swept == now.as_second() {
            return;
        }
        self.swept = now.as_second();
        let ended = |address: &&Ipv4Addr| {
            let standing = self.standing(**address);
            standing.offer.is_some_and(|(_, until)| until <= now)
                || standing.rests.is_some_and(|rest| rest.until <= now)
        };
        let ended: Vec<_> = self.passing.iter().filter(ended).copied().collect();
        for address in ended {
            self.change(address, |standing| {
                standing.offer = standing.offer.filter(|(_, until)| *until > now);
                standing.rests = standing.rests.filter(|rest| rest.until > now);
            });
        }
    }

    /// The lease of a machine, expired or not.
    pub fn of(&self, mac: MacAddr) -> Option<Lease> {
        let address = *self.by_mac.get(&mac)?;
        let (_, expires) = self.standing(address).lease?;
        Some(Lease { address, expires })
    }

    /// Where a machine is plugged in that holds its lease.
    pub fn plugged_in(&self, mac: MacAddr, now: Timestamp) -> Option<&PluggedIn> {
        let lease = self.of(mac).filter(|lease| lease.expires > now);
        lease.and_then(|_| self.last_plugged_in(mac))
    }

    /// The same, whether its lease has run out or not.
    pub fn last_plugged_in(&self, mac: MacAddr) -> Option<&PluggedIn> {
        self.ports.get(&mac).map(|port| &**port)
    }

    /// Who holds the address now.
    pub fn holder(&self, address: Ipv4Addr, now: Timestamp) -> Option<MacAddr> {
        let (mac, expires) = self.standing(address).lease?;
        (expires > now).then_some(mac)
    }

    /// When the last lease of the address ends, or ended.
    pub fn last_lease(&self, address: Ipv4Addr) -> Option<Timestamp> {
        self.standing(address).lease.map(|(_, expires)| expires)
    }

    /// Every lease.
    pub fn iter(&self) -> impl Iterator<Item = (MacAddr, Lease)> + '_ {
        self.addresses.iter().filter_map(|(&address, standing)| {
            let (mac, expires) = standing.lease?;
            Some((mac, Lease { address, expires }))
        })
    }

    /// Addresses that rest.
    pub fn resting(&self) -> impl Iterator<Item = Rest> + '_ {
        let rest = |address: &Ipv4Addr| self.addresses.get(address)?.rests;
        self.resting.iter().filter_map(rest)
    }

    /// Whether `mac` may have `address` now.
    pub fn available(&self, address: Ipv4Addr, mac: MacAddr, now: Timestamp) -> bool {
        let standing = self.standing(address);
        let anothers = |held: Option<(MacAddr, Timestamp)>| {
            held.is_some_and(|(who, until)| who != mac && until > now)
        };
        let rests = standing.rests.is_some_and(|rest| rest.until > now);
        !anothers(standing.lease) && !anothers(standing.offer) && !rests
    }

    /// An address of the pool for a machine that is not listed: its last one, else
    /// one never used, else the one whose lease ran out first. `None`: the pool is full.
    /// What [`sweep`](Self::sweep) has not yet seen end counts as taken; `never` is not given.
    pub fn choose(
        &self,
        pool: AddressRange,
        never: &[Ipv4Addr],
        mac: MacAddr,
        now: Timestamp,
    ) -> Option<Ipv4Addr> {
        let own = [self.by_mac.get(&mac), self.offered_to.get(&mac)];
        own.into_iter()
            .flatten()
            .copied()
            .find(|address| {
                let fits = pool.contains(*address) && !never.contains(address);
                fits && self.available(*address, mac, now)
            })
            .or_else(|| self.blocks.unused(pool, never, spread(pool, mac)))
            .or_else(|| self.blocks.longest_idle(pool, never, now))
    }
}

/// Where in the pool the search begins: the same place for the same MAC.
fn spread(pool: AddressRange, mac: MacAddr) -> Ipv4Addr {
    let hash = fnv_1a(mac.0);
    let offset = hash % size(pool);
    // Less than the pool's size, which is that of a u32 at most.
    Ipv4Addr::from(u32::from(pool.first) + u32::try_from(offset).unwrap_or(0))
}

/// How many addresses there are; at least one.
fn size(pool: AddressRange) -> u64 {
    u64::from(u32::from(pool.last) - u32::from(pool.first)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::switch_port::SwitchPort;
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
            port: None,
        });
    }

    #[test]
    fn a_machine_gets_its_last_address_again() {
        let mut table = LeaseTable::default();
        let address = table.choose(pool(10, 20), &[], mac(1), at(0)).unwrap();
        bind(&mut table, 1, address, 10);
        assert_eq!(
            table.choose(pool(10, 20), &[], mac(1), at(1000)),
            Some(address)
        );
    }

    #[test]
    fn a_full_pool_gives_the_address_that_ran_out_first_and_none_before() {
        let mut table = LeaseTable::default();
        bind(&mut table, 1, Ipv4Addr::new(10, 0, 0, 10), 200);
        bind(&mut table, 2, Ipv4Addr::new(10, 0, 0, 11), 100);
        assert_eq!(table.choose(pool(10, 11), &[], mac(3), at(50)), None);
        let given = table.choose(pool(10, 11), &[], mac(3), at(300));
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
            found: false,
            until: at(500),
        });
        table.sweep(at(499));
        assert_eq!(table.choose(pool(10, 10), &[], mac(1), at(499)), None);
        table.sweep(at(501));
        assert_eq!(
            table.choose(pool(10, 10), &[], mac(1), at(501)),
            Some(address)
        );
    }

    #[test]
    fn one_machine_puts_no_pool_to_rest() {
        let mut table = LeaseTable::default();
        let whole = pool(10, 29);
        let decline = |table: &mut LeaseTable, who| {
            let address = table.choose(whole, &[], mac(who), at(0)).unwrap();
            bind(table, who, address, 1000);
            let believed = table.may_decline(mac(who));
            let decline = LeaseChange::Decline {
                mac: mac(who),
                address,
                found: false,
                until: at(600),
            };
            if believed {
                table.apply(&decline);
            }
            believed
        };
        let believed =
            |table: &mut LeaseTable, who| (0..100).filter(|_| decline(table, who)).count();
        assert_eq!(believed(&mut table, 1), DECLINES_OF_ONE);
        assert_eq!(believed(&mut table, 2), DECLINES_OF_ONE);
        table.sweep(at(600));
        assert!(table.declined_by.is_empty() && table.may_decline(mac(1)));
    }

    fn rest(table: &mut LeaseTable, who: u8, address: Ipv4Addr, found: bool) {
        table.apply(&LeaseChange::Decline {
            mac: mac(who),
            address,
            found,
            until: at(600),
        });
    }

    #[test]
    fn at_most_half_of_a_pool_rests_whoever_says_so() {
        for (last, most) in [(10, 1), (11, 1), (12, 2), (29, 10)] {
            let mut table = LeaseTable::default();
            // Beside the pool.
            rest(&mut table, 1, Ipv4Addr::new(10, 0, 0, 9), false);
            let mut rested = 0;
            for number in 10..=last {
                let address = Ipv4Addr::new(10, 0, 0, number);
                if table.may_rest(address, pool(10, last)) {
                    rest(&mut table, number, address, number % 2 == 0);
                    rested += 1;
                }
            }
            assert_eq!(rested, most, "of a pool of {}", last - 9);
            // It does already, and may rest longer.
            assert!(table.may_rest(Ipv4Addr::new(10, 0, 0, 10), pool(10, last)));
            table.sweep(at(600));
            assert!(table.resting.is_empty());
        }
    }

    #[test]
    fn what_was_found_in_use_by_a_machine_is_not_its_decline() {
        let mut table = LeaseTable::default();
        for last in 10..20 {
            rest(&mut table, 1, Ipv4Addr::new(10, 0, 0, last), true);
        }
        assert!(table.may_decline(mac(1)));
        for last in 20..24 {
            rest(&mut table, 1, Ipv4Addr::new(10, 0, 0, last), false);
        }
        assert!(!table.may_decline(mac(1)));
        // Found after it was declined: one of the four is no DECLINE any more.
        rest(&mut table, 1, Ipv4Addr::new(10, 0, 0, 20), true);
        assert!(table.may_decline(mac(1)));
    }

    #[test]
    fn a_journal_of_old_has_declines_alone() {
        let line = r#"{"op":"decline","mac":"02:00:00:00:00:01","address":"10.0.0.1","until":"2100-01-01T00:00:00Z"}"#;
        let change: LeaseChange = serde_json::from_str(line).unwrap();
        assert!(matches!(change, LeaseChange::Decline { found: false, .. }));
        assert_eq!(serde_json::to_string(&change).unwrap(), line);
    }

    #[test]
    fn where_a_machine_is_plugged_in_is_known_as_long_as_it_holds_its_lease() {
        let address = Ipv4Addr::new(10, 0, 0, 10);
        let known = PluggedIn::after(None, Some(SwitchPort::default()), 1, at(0)).unwrap();
        let held = || {
            let mut table = LeaseTable::default();
            table.apply(&LeaseChange::Bind {
                mac: mac(1),
                address,
                expires: at(100),
                port: Some(Box::new(known.clone())),
            });
            assert_eq!(table.plugged_in(mac(1), at(99)), Some(&known));
            assert_eq!(table.plugged_in(mac(1), at(100)), None, "it ran out");
            table
        };
        let mut table = held();
        table.apply(&LeaseChange::Release {
            mac: mac(1),
            address: Some(address),
            at: at(50),
        });
        assert_eq!(table.plugged_in(mac(1), at(50)), None);
        table = held();
        rest(&mut table, 1, address, false);
        assert!(table.ports.is_empty());
        // The address is another's, or the machine was listed.
        for who in [2, 1] {
            table = held();
            bind(&mut table, who, address, 200);
            assert!(table.ports.is_empty());
        }
    }

    #[test]
    fn a_release_ends_the_lease_of_its_address_and_no_later_one() {
        let mut table = LeaseTable::default();
        let (old, new) = (Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 11));
        bind(&mut table, 1, new, 100);
        let release = |address| LeaseChange::Release {
            mac: mac(1),
            address,
            at: at(5),
        };
        table.apply(&release(Some(old)));
        assert_eq!(table.holder(new, at(6)), Some(mac(1)));
        table.apply(&release(Some(new)));
        assert_eq!(table.holder(new, at(6)), None);
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
        /// The daemon's own addresses, wherever in the pool they are and however it is used.
        #[test]
        fn what_is_never_given_is_never_chosen(
            own in proptest::collection::hash_set(10_u8..18, 0..4),
            steps in proptest::collection::vec((0_u8..12, 0_i64..50), 1..100),
        ) {
            let never: Vec<_> = own.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last)).collect();
            let mut table = LeaseTable::default();
            // One was leased before the daemon had it.
            never.iter().for_each(|address| bind(&mut table, 1, *address, 5));
            let mut now = 0;
            for (who, passed) in steps {
                now += passed;
                table.sweep(at(now));
                if let Some(address) = table.choose(pool(10, 17), &never, mac(who), at(now)) {
                    prop_assert!(!never.contains(&address));
                    bind(&mut table, who, address, now + 60);
                }
            }
        }

        /// Whatever the order of asking, releasing and declining: no two hold one address.
        #[test]
        fn no_address_is_given_twice(steps in proptest::collection::vec((0_u8..12, 0_u8..4, 0_i64..50), 1..200)) {
            let mut table = LeaseTable::default();
            let mut now = 0;
            for (who, what, passed) in steps {
                now += passed;
                table.sweep(at(now));
                match what {
                    0 | 1 => if let Some(address) = table.choose(pool(10, 17), &[], mac(who), at(now)) {
                        prop_assert!(table.holder(address, at(now)).is_none_or(|holder| holder == mac(who)));
                        bind(&mut table, who, address, now + 60);
                    },
                    2 => table.apply(&LeaseChange::Release { mac: mac(who), address: None, at: at(now) }),
                    _ => if let Some(lease) = table.of(mac(who)) {
                        table.apply(&LeaseChange::Decline { mac: mac(who), address: lease.address, found: false, until: at(now + 100) });
                    },
                }
                let held: Vec<_> = table.iter().filter(|(_, lease)| lease.expires > at(now)).map(|(_, lease)| lease.address).collect();
                prop_assert_eq!(held.len(), held.iter().collect::<HashSet<_>>().len());
            }
        }
    }
}

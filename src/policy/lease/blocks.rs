//! Which addresses were ever used, and which of them are idle, by blocks of 256.
//!
//! A pool can hold 65,000 addresses and a flood of invented MACs asks for each: a search
//! through them all for every packet would be the attack. Here a search looks at a few
//! words per block.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use jiff::Timestamp;

use crate::inventory::model::AddressRange;

/// The sets, by the first three octets.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks(BTreeMap<u32, Block>);

#[derive(Debug, Clone, Default)]
struct Block {
    used: [u64; 4],
    /// Leased once, neither offered nor resting now: the end of the lease and the last octet.
    idle: BTreeSet<(Timestamp, u8)>,
}

fn split(address: Ipv4Addr) -> (u32, u8) {
    (u32::from(address) >> 8, address.octets()[3])
}

impl Blocks {
    /// Notes whether the address is used, and since when it is idle, in place of what was noted.
    pub(super) fn note(
        &mut self,
        address: Ipv4Addr,
        used: bool,
        was_idle: Option<Timestamp>,
        idle: Option<Timestamp>,
    ) {
        let (block, last) = split(address);
        let entry = self.0.entry(block).or_default();
        let (word, bit) = (usize::from(last / 64), 1 << (last % 64));
        if used {
            entry.used[word] |= bit;
        } else {
            entry.used[word] &= !bit;
        }
        if was_idle != idle {
            was_idle.map(|expires| entry.idle.remove(&(expires, last)));
            idle.map(|expires| entry.idle.insert((expires, last)));
        }
        if entry.used == [0; 4] {
            self.0.remove(&block);
        }
    }

    /// The first address from `start` on, and round, that was never used and is not in `never`.
    pub(super) fn unused(
        &self,
        pool: AddressRange,
        never: &[Ipv4Addr],
        start: Ipv4Addr,
    ) -> Option<Ipv4Addr> {
        let start = u32::from(start);
        let before = start.checked_sub(1).unwrap_or(start);
        self.unused_between(start, u32::from(pool.last), never)
            .or_else(|| self.unused_between(u32::from(pool.first), before, never))
    }

    fn unused_between(&self, first: u32, last: u32, never: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        (first >> 8..=last >> 8).find_map(|block| {
            let low = first.max(block << 8);
            let high = last.min(block << 8 | 0xff);
            let found = self.0.get(&block);
            if found.is_some_and(Block::is_full) {
                return None;
            }
            (low..=high)
                .filter(|address| found.is_none_or(|found| found.is_unused(*address)))
                .map(Ipv4Addr::from)
                .find(|address| !never.contains(address))
        })
    }

    /// The idle address whose lease ran out first, and has by `now`.
    pub(super) fn longest_idle(
        &self,
        pool: AddressRange,
        never: &[Ipv4Addr],
        now: Timestamp,
    ) -> Option<Ipv4Addr> {
        let (first, last) = (u32::from(pool.first) >> 8, u32::from(pool.last) >> 8);
        let oldest = |(block, found): (&u32, &Block)| {
            let here = |octet: u8| Ipv4Addr::from(block << 8 | u32::from(octet));
            let idle = found.idle.iter().map(|(at, octet)| (*at, here(*octet)));
            idle.take_while(|(expires, _)| *expires <= now)
                .find(|(_, address)| pool.contains(*address) && !never.contains(address))
        };
        let found = self.0.range(first..=last).filter_map(oldest).min();
        found.map(|(_, address)| address)
    }
}

impl Block {
    fn is_full(&self) -> bool {
        self.used == [u64::MAX; 4]
    }

    fn is_unused(&self, address: u32) -> bool {
        let last = address & 0xff;
        self.used[(last / 64) as usize] >> (last % 64) & 1 == 0
    }
}

//! One mad client must not starve the others.
//!
//! A machine that boots sends a packet or two a second, and a machine that went mad sends
//! thousands: each MAC has a budget. A relay speaks for thousands of machines, so its address
//! has none; but where it names the port that a packet came in by (option 82, RFC 3046), each
//! port has one, large enough for a row of racks, so that one port's invented MACs can't
//! drown the other ports' machines.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::floodgate::Budget;
use crate::inventory::model::MacAddr;
use crate::wire::dhcp::Request;

/// What a packet costs a MAC: 10 a second, 40 at once.
const MACHINE: Duration = Duration::from_millis(100);
/// What it costs a port of a relay: 1,000 a second, 4,000 at once.
const PORT: Duration = Duration::from_millis(1);
/// Senders that are remembered. Who comes on top of that is not cut: a flood of invented MACs
/// is nothing that a budget by MAC can tell from a large site.
const SENDERS: usize = 1 << 16;
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Whose budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    /// The machine's.
    Machine,
    /// The relay's port's.
    Port,
}

/// A packet over budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Whose budget it was.
    pub(super) spent: Spent,
    /// The first since this sender was last within its budget.
    pub(super) first: bool,
}

/// What every sender has left.
#[derive(Debug, Default)]
pub(super) struct Limits {
    machines: Senders<MacAddr>,
    ports: Senders<u64>,
    hasher: RandomState,
}

impl Limits {
    /// Whether the packet may be answered.
    pub(super) fn admit(&mut self, request: &Request, now: Instant) -> Result<(), Cut> {
        let cut = |spent| move |first| Cut { spent, first };
        self.machines
            .admit(request.mac, MACHINE, now)
            .map_err(cut(Spent::Machine))?;
        let port = request.bytes(82);
        if request.giaddr.is_unspecified() || port.is_empty() {
            return Ok(());
        }
        let port = self.hasher.hash_one((request.giaddr, port));
        self.ports.admit(port, PORT, now).map_err(cut(Spent::Port))
    }
}

/// What each sender has left, and whether it was cut last.
#[derive(Debug)]
struct Senders<K> {
    known: HashMap<K, (Budget, bool)>,
    swept: Option<Instant>,
}

impl<K> Default for Senders<K> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            swept: None,
        }
    }
}

impl<K: std::hash::Hash + Eq> Senders<K> {
    /// Takes one packet from the sender's budget; the error says whether it is the first.
    fn admit(&mut self, key: K, cost: Duration, now: Instant) -> Result<(), bool> {
        if self.known.len() >= SENDERS && !self.known.contains_key(&key) {
            self.sweep(now);
            if self.known.len() >= SENDERS {
                return Ok(());
            }
        }
        let (budget, cut) = self.known.entry(key).or_default();
        if budget.take(cost, now) {
            *cut = false;
            return Ok(());
        }
        Err(!std::mem::replace(cut, true))
    }

    /// Forgets whose budget is whole; once a second, for it looks at all.
    fn sweep(&mut self, now: Instant) {
        if self
            .swept
            .is_none_or(|at| now.duration_since(at) >= SWEEP_EVERY)
        {
            self.swept = Some(now);
            self.known.retain(|_, (budget, _)| !budget.is_whole(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mac: u32, giaddr: u8, port: &[u8]) -> Request {
        let [a, b, c, d] = mac.to_be_bytes();
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[24..28].copy_from_slice(&[10, 77, 0, giaddr]);
        bytes[28..34].copy_from_slice(&[2, 0, a, b, c, d]);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(&[53, 1, 1]);
        if !port.is_empty() {
            bytes.extend_from_slice(&[82, u8::try_from(port.len()).unwrap()]);
            bytes.extend_from_slice(port);
        }
        bytes.push(255);
        Request::parse(&bytes).unwrap()
    }

    #[test]
    fn a_mad_machine_is_cut_and_heals_and_its_neighbour_never_notices() {
        let mut limits = Limits::default();
        let now = Instant::now();
        let (mad, other) = (request(1, 0, &[]), request(2, 0, &[]));
        let outcomes: Vec<_> = (0..100).map(|_| limits.admit(&mad, now)).collect();
        assert_eq!(
            outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
            40
        );
        let firsts = |cut: &&Result<(), Cut>| cut.is_err_and(|cut| cut.first);
        assert_eq!(outcomes.iter().filter(firsts).count(), 1, "said once");
        assert!(limits.admit(&other, now).is_ok());
        assert!(limits.admit(&mad, now + Duration::from_millis(101)).is_ok());
        assert!(
            limits
                .admit(&mad, now + Duration::from_millis(101))
                .is_err()
        );
    }

    #[test]
    fn ten_thousand_machines_behind_one_relay_are_served() {
        let mut limits = Limits::default();
        let now = Instant::now();
        let ask = |mac| request(mac, 254, &[]);
        assert!((0..10_000).all(|mac| limits.admit(&ask(mac), now).is_ok()));
    }

    #[test]
    fn a_port_that_invents_machines_spends_its_own_budget_alone() {
        let mut limits = Limits::default();
        let now = Instant::now();
        let mut served = 0;
        for mac in 0..10_000 {
            served += u32::from(limits.admit(&request(mac, 254, &[1, 1, 7]), now).is_ok());
        }
        assert_eq!(served, 4000);
        assert!(limits.admit(&request(20_000, 254, &[1, 1, 8]), now).is_ok());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut limits = Limits::default();
        let now = Instant::now();
        for mac in 0..80_000 {
            assert!(limits.admit(&request(mac, 254, &[]), now).is_ok());
        }
        assert_eq!(limits.machines.known.len(), SENDERS);
        let later = now + Duration::from_secs(1);
        assert!(limits.admit(&request(90_000, 254, &[]), later).is_ok());
        assert_eq!(limits.machines.known.len(), 1);
    }
}

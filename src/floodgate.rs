//! A bound on what one address may ask in a second. What is beyond it costs a receive and a look here, and no file,
//! socket, answer or record: a client gone mad asks faster than we can refuse.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// So many seconds' worth may come at once: a hall behind one address, a loader that looks for its modules.
const BURST: Duration = Duration::from_secs(4);

/// What one sender has left (the generic cell rate algorithm, ITU-T I.371): the time at which it has all again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Budget(Option<Instant>);

impl Budget {
    /// Takes `cost` out, which comes back in as much time; false where that is more than is left.
    pub(crate) fn take(&mut self, cost: Duration, now: Instant) -> bool {
        let whole = self.0.map_or(now, |at| at.max(now)) + cost;
        let is_left = whole.saturating_duration_since(now) <= BURST;
        if is_left {
            self.0 = Some(whole);
        }
        is_left
    }

    /// Whether nothing of it is taken.
    pub(crate) fn is_whole(self, now: Instant) -> bool {
        self.0.is_none_or(|at| at <= now)
    }
}

/// Addresses share budgets: a bound on memory whatever addresses are forged, and with a secret hash nobody can choose
/// whom to share with.
const BUDGETS: usize = 4096;

/// Counts requests by address.
#[derive(Debug)]
pub(crate) struct Floodgate {
    /// Time that one request takes out of its address's share.
    cost: Duration,
    budgets: Box<[Budget]>,
    hash: RandomState,
}

impl Floodgate {
    /// Lets `per_second` requests of an address pass, at least 1.
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            cost: Duration::from_secs(1) / per_second.max(1),
            budgets: vec![Budget::default(); BUDGETS].into(),
            hash: RandomState::new(),
        }
    }

    /// True where a request of `client` may pass now.
    pub(crate) fn pass(&mut self, client: Ipv4Addr, now: Instant) -> bool {
        let share = self.hash.hash_one(client) as usize % BUDGETS;
        self.budgets[share].take(self.cost, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (mut gate, mut now) = (Floodgate::new(10), Instant::now());
        let client = Ipv4Addr::new(10, 77, 0, 11);
        let passed = (0..1000).filter(|_| gate.pass(client, now)).count();
        assert_eq!(passed, 40);
        for _ in 0..5 {
            now += Duration::from_secs(1);
            let passed = (0..1000).filter(|_| gate.pass(client, now)).count();
            assert_eq!(passed, 10);
        }
        now += Duration::from_secs(3600);
        let passed = (0..1000).filter(|_| gate.pass(client, now)).count();
        assert_eq!(passed, 40, "rest is not saved up");
    }

    #[test]
    fn others_pass_beside_a_flood() {
        let (mut gate, now) = (Floodgate::new(10), Instant::now());
        while gate.pass(Ipv4Addr::new(10, 77, 0, 11), now) {}
        let others = (0..100).map(|n| Ipv4Addr::new(10, 77, 1, n));
        let passed = others.filter(|other| gate.pass(*other, now)).count();
        assert!(passed >= 98, "{passed} of 100; two may share its budget");
    }
}

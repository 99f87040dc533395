//! A bound on what one address may ask in a second. What is beyond it costs a receive and a look here, and no file,
//! socket, answer or record: a client gone mad asks faster than we can refuse.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Addresses share buckets: a bound on memory whatever addresses are forged, and with a secret hash nobody can choose
/// whom to share with.
const BUCKETS: usize = 4096;

/// So many seconds' worth may come at once: a hall behind one address, a loader that looks for its modules.
const BURST: u32 = 4;

/// Counts requests by address (the generic cell rate algorithm: a bucket is the time at which it is empty).
#[derive(Debug)]
pub(crate) struct Floodgate {
    /// Time that one request takes out of its address's share.
    cost: Duration,
    burst: Duration,
    empty_at: Box<[Option<Instant>]>,
    hash: RandomState,
}

impl Floodgate {
    /// Lets `per_second` requests of an address pass, at least 1.
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            cost: Duration::from_secs(1) / per_second.max(1),
            burst: Duration::from_secs(BURST.into()),
            empty_at: vec![None; BUCKETS].into(),
            hash: RandomState::new(),
        }
    }

    /// True where a request of `client` may pass now.
    pub(crate) fn pass(&mut self, client: Ipv4Addr, now: Instant) -> bool {
        let bucket = self.hash.hash_one(client) as usize % BUCKETS;
        let empty_at = &mut self.empty_at[bucket];
        let filled = empty_at.map_or(now, |at| at.max(now)) + self.cost;
        let passes = filled.saturating_duration_since(now) <= self.burst;
        if passes {
            *empty_at = Some(filled);
        }
        passes
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
        assert!(passed >= 98, "{passed} of 100; two may share its bucket");
    }
}

//! Large transfers take turns: some at once are done sooner than all at once, and the first to come are first done.
//!
//! A transfer that is slow gives its place to the next after [`HELD`] and goes on beside it, so that nobody waits
//! for a host that hardly moves, and a wait has an end: [`HELD`] for each `at_once` transfers ahead.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::metrics::HttpMetrics;

/// A body of more than this takes its turn, bytes; a loader or a script does not wait behind initrds.
pub(super) const LARGE: usize = 1 << 20;
/// How long a transfer keeps others waiting.
const HELD: Duration = Duration::from_secs(20);
/// One address has at most this part of the places: a host that asks for everything at once waits for itself.
const SHARE: usize = 8;

/// Who transfers, and who waits.
#[derive(Debug)]
pub struct Turns {
    queue: Mutex<Queue>,
    metrics: HttpMetrics,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    at_once: usize,
    running: Vec<Running>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Running {
    id: u64,
    peer: Ipv4Addr,
    until: Instant,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    peer: Ipv4Addr,
    call: oneshot::Sender<()>,
}

impl Queue {
    /// Lets as many begin as may, in the order in which they came.
    fn proceed(&mut self, now: Instant) {
        self.running.retain(|one| one.until > now);
        let most = self.at_once.div_ceil(SHARE);
        let mut of_peer: HashMap<Ipv4Addr, usize> = HashMap::new();
        for one in &self.running {
            *of_peer.entry(one.peer).or_default() += 1;
        }
        let mut at = 0;
        while self.running.len() < self.at_once && at < self.waiting.len() {
            let count = of_peer.entry(self.waiting[at].peer).or_default();
            if *count >= most {
                at += 1;
                continue;
            }
            let Some(Waiting { id, peer, call }) = self.waiting.remove(at) else {
                break;
            };
            // Who has gone meanwhile takes no place.
            if call.send(()).is_ok() {
                *count += 1;
                let until = now + HELD;
                self.running.push(Running { id, peer, until });
            }
        }
    }
}

impl Turns {
    /// Nobody runs, nobody waits.
    pub fn new(metrics: HttpMetrics) -> Self {
        Self {
            queue: Mutex::default(),
            metrics,
        }
    }

    /// Gets in line. `at_once` is what the inventory says now.
    pub(super) fn queue(self: &Arc<Self>, peer: Ipv4Addr, at_once: usize) -> Place {
        let (call, called) = oneshot::channel();
        let mut queue = self.lock();
        let id = queue.next;
        queue.next += 1;
        queue.at_once = at_once;
        queue.waiting.push_back(Waiting { id, peer, call });
        self.proceed(&mut queue);
        let before = queue.waiting.iter().position(|one| one.id == id);
        drop(queue);
        Place {
            turns: self.clone(),
            id,
            before,
            called: Some(called),
        }
    }

    /// How many run with a place, and how many wait.
    pub fn count(&self) -> (usize, usize) {
        let mut queue = self.lock();
        self.proceed(&mut queue);
        (queue.running.len(), queue.waiting.len())
    }

    fn proceed(&self, queue: &mut Queue) {
        queue.proceed(Instant::now());
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics
            .transfers_running
            .set(count(queue.running.len()));
        self.metrics
            .transfers_waiting
            .set(count(queue.waiting.len()));
    }

    fn leave(&self, id: u64) {
        let mut queue = self.lock();
        queue.running.retain(|one| one.id != id);
        queue.waiting.retain(|one| one.id != id);
        self.proceed(&mut queue);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is whole before the lock goes.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line, and then among those that run. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<Turns>,
    id: u64,
    before: Option<usize>,
    called: Option<oneshot::Receiver<()>>,
}

impl Place {
    /// How many stood before it when it got in line; `None` if it could begin at once.
    pub(super) fn before(&self) -> Option<usize> {
        self.before
    }

    /// Ready once it is its turn.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(called) = &mut self.called else {
            return Poll::Ready(());
        };
        std::task::ready!(Pin::new(called).poll(context)).ok();
        self.called = None;
        Poll::Ready(())
    }

    /// Whoever waits sees to it from time to time that those who held their places long enough make room.
    pub(super) fn look(&self) {
        let mut queue = self.turns.lock();
        self.turns.proceed(&mut queue);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, last)
    }

    fn running(place: &mut Place) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        place.poll(&mut context).is_ready()
    }

    fn turns() -> Arc<Turns> {
        Arc::new(Turns::new(HttpMetrics::default()))
    }

    #[test]
    fn first_come_first_served() {
        let turns = turns();
        let mut places: Vec<Place> = (0..5).map(|last| turns.queue(host(last), 2)).collect();
        let before: Vec<_> = places.iter().map(Place::before).collect();
        assert_eq!(before, [None, None, Some(0), Some(1), Some(2)]);
        assert_eq!(turns.count(), (2, 3));
        drop(places.remove(0));
        let now: Vec<bool> = places.iter_mut().map(running).collect();
        assert_eq!(now, [true, true, false, false]);
        // Who gives up while waiting makes nobody wait.
        drop(places.remove(2));
        drop(places.remove(0));
        assert!(places.iter_mut().all(running));
        drop(places);
        assert_eq!(turns.count(), (0, 0));
    }

    #[test]
    fn one_host_does_not_take_all_places() {
        let turns = turns();
        let mut mad: Vec<Place> = (0..40).map(|_| turns.queue(host(1), 16)).collect();
        let mut other = turns.queue(host(2), 16);
        assert!(running(&mut other));
        let begun = mad.iter_mut().filter_map(|one| running(one).then_some(()));
        assert_eq!(begun.count(), 2);
    }

    #[test]
    fn a_slow_transfer_does_not_keep_others_waiting_for_ever() {
        let turns = turns();
        let mut slow = turns.queue(host(1), 1);
        let mut next = turns.queue(host(2), 1);
        assert!(running(&mut slow) && !running(&mut next));
        turns.lock().proceed(Instant::now() + HELD);
        assert!(running(&mut next) && running(&mut slow));
    }
}

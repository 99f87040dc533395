//! Large transfers take turns: some at once are done sooner than all at once, and the first to come are first done.
//!
//! A transfer that is slow gives its place to the next and goes on beside it, so that nobody waits for a host that hardly
//! moves, and a wait has an end. Slow is below [`SLOWEST`]: a place that went after a fixed time would go while everything
//! moves as it should on a link that is full, and soon all would transfer at once.

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
/// How long a transfer keeps others waiting at least.
const HELD: Duration = Duration::from_secs(20);
/// Bytes a second that a transfer must make to keep its place to its end: a third of what each of 128 has of 1 Gb/s.
const SLOWEST: usize = 256 << 10;
/// One address has at most this part of the places while others want them: a host that asks for everything at once
/// waits for itself. So much stays free of such hosts always, for whoever comes.
const SHARE: usize = 8;

/// How long a transfer of `length` bytes keeps others waiting.
fn held(length: usize) -> Duration {
    HELD.max(Duration::from_secs((length / SLOWEST) as u64))
}

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
    held: Duration,
    call: oneshot::Sender<()>,
}

impl Queue {
    /// Lets as many begin as may, in the order in which they came; then, where places are left, those of addresses
    /// that have their share: a hall behind one address is many hosts.
    fn proceed(&mut self, now: Instant) {
        self.running.retain(|one| one.until > now);
        let share = self.share();
        self.admit(now, self.at_once, share);
        self.admit(now, self.at_once.saturating_sub(share), usize::MAX);
    }

    /// Places that one address may have while others want them.
    fn share(&self) -> usize {
        self.at_once.div_ceil(SHARE)
    }

    /// Lets begin until `places` run, of one address `most`.
    fn admit(&mut self, now: Instant, places: usize, most: usize) {
        let mut of_peer: HashMap<Ipv4Addr, usize> = HashMap::new();
        for one in &self.running {
            *of_peer.entry(one.peer).or_default() += 1;
        }
        let mut at = 0;
        while self.running.len() < places && at < self.waiting.len() {
            let count = of_peer.entry(self.waiting[at].peer).or_default();
            if *count >= most {
                at += 1;
                continue;
            }
            let Some(one) = self.waiting.remove(at) else {
                break;
            };
            // Who has gone meanwhile takes no place.
            if one.call.send(()).is_ok() {
                *count += 1;
                let (id, peer, until) = (one.id, one.peer, now + one.held);
                self.running.push(Running { id, peer, until });
            }
        }
    }

    /// What stands before a transfer that waits.
    fn before(&self, id: u64) -> Option<Before> {
        let waiting = self.waiting.iter().position(|one| one.id == id)?;
        let peer = self.waiting[waiting].peer;
        // With a place free, its address alone is what keeps it.
        let has_share = self.running.len() < self.at_once;
        let of_address = self.running.iter().filter(|one| one.peer == peer).count();
        Some(Before {
            waiting,
            of_address: has_share.then_some(of_address),
        })
    }
}

/// What stood before a transfer when it got in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    /// Others that wait.
    pub(super) waiting: usize,
    /// Places that its own address has, if those are why it waits.
    pub(super) of_address: Option<usize>,
}

impl Turns {
    /// Nobody runs, nobody waits.
    pub fn new(metrics: HttpMetrics) -> Self {
        Self {
            queue: Mutex::default(),
            metrics,
        }
    }

    /// Gets in line for `length` bytes. `at_once` is what the inventory says now.
    pub(super) fn queue(self: &Arc<Self>, peer: Ipv4Addr, length: usize, at_once: usize) -> Place {
        let (call, called) = oneshot::channel();
        let mut queue = self.lock();
        let id = queue.next;
        queue.next += 1;
        queue.at_once = at_once;
        let held = held(length);
        queue.waiting.push_back(Waiting {
            id,
            peer,
            held,
            call,
        });
        self.proceed(&mut queue);
        let before = queue.before(id);
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
    before: Option<Before>,
    called: Option<oneshot::Receiver<()>>,
}

impl Place {
    /// What stood before it when it got in line; `None` if it could begin at once.
    pub(super) fn before(&self) -> Option<Before> {
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

    const MIB: usize = 1 << 20;

    fn begun(places: &mut [Place]) -> usize {
        places.iter_mut().map(running).filter(|runs| *runs).count()
    }

    #[test]
    fn first_come_first_served() {
        let turns = turns();
        let mut places: Vec<Place> = (0..5).map(|last| turns.queue(host(last), MIB, 2)).collect();
        let before: Vec<_> = places
            .iter()
            .map(|place| place.before().map(|before| before.waiting))
            .collect();
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
        let mut mad: Vec<Place> = (0..40).map(|_| turns.queue(host(1), MIB, 16)).collect();
        let mut others = [2, 3].map(|last| turns.queue(host(last), MIB, 16));
        assert_eq!(begun(&mut others), 2, "two places stay free of it");
        assert_eq!(begun(&mut mad), 14);
        // Whoever else waits comes before what is beyond the share.
        let mut late: Vec<Place> = (4..24)
            .map(|last| turns.queue(host(last), MIB, 16))
            .collect();
        mad.drain(..12);
        assert_eq!((begun(&mut late), begun(&mut mad)), (12, 2));
    }

    #[test]
    fn a_hall_behind_one_address_has_the_places_that_nobody_else_wants() {
        let turns = turns();
        let mut hall: Vec<Place> = (0..500).map(|_| turns.queue(host(1), MIB, 128)).collect();
        assert_eq!(begun(&mut hall), 112);
        let before = hall.last().and_then(Place::before).unwrap();
        let of_address = Some(112);
        assert_eq!(
            before,
            Before {
                waiting: 387,
                of_address
            }
        );
        // The others' queue is not its fault.
        let _rest: Vec<Place> = (2..20)
            .map(|last| turns.queue(host(last), MIB, 128))
            .collect();
        let late = turns.queue(host(20), MIB, 128).before().unwrap();
        assert_eq!(late.of_address, None);
    }

    #[test]
    fn a_slow_transfer_does_not_keep_others_waiting_for_ever() {
        let turns = turns();
        let mut slow = turns.queue(host(1), MIB, 1);
        let mut next = turns.queue(host(2), MIB, 1);
        assert!(running(&mut slow) && !running(&mut next));
        turns.lock().proceed(Instant::now() + HELD);
        assert!(running(&mut next) && running(&mut slow));
    }

    #[test]
    fn the_queue_stands_while_a_full_link_serves_a_storm() {
        // 1,000 hosts, 60 MB, 1 Gb/s: 128 at a time take a minute.
        let (turns, began) = (turns(), Instant::now());
        let host = |n: u16| Ipv4Addr::from(0x0a4d_0000 + u32::from(n));
        let queue = |n| turns.queue(host(n), 60_000_000, 128);
        let mut places: Vec<Place> = (0..1000).map(queue).collect();
        turns.lock().proceed(began + Duration::from_secs(65));
        assert_eq!(begun(&mut places), 128);
        // Who makes less than 256 KiB a second keeps nobody for ever.
        turns.lock().proceed(began + Duration::from_secs(231));
        assert_eq!(begun(&mut places), 256);
    }
}

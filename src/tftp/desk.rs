//! Who is being served: one transfer per client port, a bounded number in all and per client address.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::worker::Bell;

/// A late copy of a request may come this long after the first; see [`Desk::admit`].
const DOUBT: Duration = Duration::from_millis(500);

/// What a running transfer is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    /// The request came again.
    RequestAgain = 1,
    /// A new request from the same port took its place.
    Replaced = 2,
    /// The server stops now.
    Shutdown = 4,
    /// Its client has not answered yet, and another needs the place.
    GiveUp = 8,
}

/// Between the desk and one transfer. Commands are flags: told twice is told once, and none is lost.
#[derive(Debug, Default)]
pub(super) struct Line {
    commands: AtomicU8,
    /// Wakes the transfer's thread; none before it has one, which looks here when it begins.
    bell: OnceLock<Bell>,
    progress: AtomicU64,
}

impl Line {
    /// Gives a command to the transfer.
    pub(super) fn tell(&self, command: Command) {
        let before = self.commands.fetch_or(command as u8, Ordering::AcqRel);
        // A bell that rings already isn't rung again, so that nobody can fill the thread's inbox.
        if let Some(bell) = self.bell.get()
            && before == 0
        {
            bell.ring();
        }
    }

    /// Tells which bell to ring.
    pub(super) fn hang(&self, bell: Bell) {
        // A session is given to a thread once.
        let _ = self.bell.set(bell);
    }

    /// True where a command waits.
    pub(super) fn is_ringing(&self) -> bool {
        self.commands.load(Ordering::Acquire) != 0
    }

    /// Takes one command back out; true where it was given.
    pub(super) fn take(&self, command: Command) -> bool {
        let command = command as u8;
        self.commands.fetch_and(!command, Ordering::AcqRel) & command != 0
    }

    /// Shows how far the transfer is; 0 means that the client hasn't answered yet.
    pub(super) fn show_progress(&self, progress: u64) {
        self.progress.store(progress, Ordering::Relaxed);
    }

    fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }
}

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Admission {
    /// Serve it, on this seat.
    Seated(Seat),
    /// Its transfer runs and was told to answer again.
    Repeated,
    /// Its transfer runs well: leave it alone.
    Stale,
    /// All seats are taken, or all that one client may have.
    Full,
}

/// All running transfers.
#[derive(Debug)]
pub(super) struct Desk {
    most: usize,
    most_per_client: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    by_peer: HashMap<SocketAddrV4, Entry>,
    per_client: HashMap<Ipv4Addr, usize>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    request: Box<[u8]>,
    line: Arc<Line>,
    /// The progress that was seen when a copy of the request came, and when that was.
    doubted: Option<(u64, Instant)>,
}

/// The right to serve one request. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Seat {
    desk: Arc<Desk>,
    peer: SocketAddrV4,
    id: u64,
    /// Where the transfer is told things.
    pub(super) line: Arc<Line>,
}

impl Desk {
    pub(super) fn new(most: usize, most_per_client: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_client,
            table: Mutex::default(),
        })
    }

    /// Decides on a request, given as the bytes that came.
    ///
    /// The same bytes again are a retransmission while the client hasn't heard from us. Later they are a late copy (in
    /// a storm several wait in the receive buffer), and to begin anew would leave the client with two servers; or the
    /// client was reset and has a fixed port. A second copy without any progress since the first tells the latter.
    ///
    /// Where all places are taken, the one goes whose client has waited longest with its first answer: requests that
    /// nobody stands behind (a forged sender, a host that is gone) must not keep out those who answer.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: SocketAddrV4,
        request: &[u8],
        now: Instant,
    ) -> Admission {
        let mut table = self.table();
        if let Some(entry) = table.by_peer.get_mut(&peer) {
            if *entry.request == *request && !entry.is_abandoned(now) {
                return entry.repeat();
            }
            entry.line.tell(Command::Replaced);
            table.remove(peer);
        }
        let of_client = table.per_client.get(peer.ip()).copied().unwrap_or(0);
        let own = of_client >= self.most_per_client;
        if (own || table.by_peer.len() >= self.most) && !table.crowd_out(own.then_some(*peer.ip()))
        {
            return Admission::Full;
        }
        Admission::Seated(self.seat(&mut table, peer, request))
    }

    /// Tells every transfer to stop.
    pub(super) fn stop_all(&self) {
        for entry in self.table().by_peer.values() {
            entry.line.tell(Command::Shutdown);
        }
    }

    fn seat(self: &Arc<Self>, table: &mut Table, peer: SocketAddrV4, request: &[u8]) -> Seat {
        let line = Arc::new(Line::default());
        let id = table.next_id;
        table.next_id += 1;
        let entry = Entry {
            id,
            request: request.into(),
            line: line.clone(),
            doubted: None,
        };
        table.by_peer.insert(peer, entry);
        *table.per_client.entry(*peer.ip()).or_default() += 1;
        Seat {
            desk: self.clone(),
            peer,
            id,
            line,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code panics while it holds the lock, and a table is never left half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Frees the place of the transfer that waits longest for its client's first answer, of `client` alone if one is
    /// given; false where all have been answered. Looks through the whole table, and only where that is full.
    fn crowd_out(&mut self, client: Option<Ipv4Addr>) -> bool {
        let of_client = |peer: &SocketAddrV4| client.is_none_or(|client| client == *peer.ip());
        let unanswered = self.by_peer.iter();
        let unanswered =
            unanswered.filter(|(peer, entry)| of_client(peer) && entry.line.progress() == 0);
        let oldest = unanswered.min_by_key(|(_, entry)| entry.id);
        let Some(peer) = oldest.map(|(peer, _)| *peer) else {
            return false;
        };
        if let Some(entry) = self.remove(peer) {
            entry.line.tell(Command::GiveUp);
        }
        true
    }

    fn remove(&mut self, peer: SocketAddrV4) -> Option<Entry> {
        let entry = self.by_peer.remove(&peer)?;
        if let Some(count) = self.per_client.get_mut(peer.ip()) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(peer.ip());
            }
        }
        Some(entry)
    }
}

impl Entry {
    /// Answers a copy of the request.
    fn repeat(&mut self) -> Admission {
        if self.line.progress() > 0 {
            return Admission::Stale;
        }
        self.line.tell(Command::RequestAgain);
        Admission::Repeated
    }

    /// True where a copy of the request came some time ago and nothing moved since. Remembers this copy otherwise.
    fn is_abandoned(&mut self, now: Instant) -> bool {
        let progress = self.line.progress();
        match self.doubted {
            _ if progress == 0 => false,
            Some((seen, at)) if seen == progress => now.saturating_duration_since(at) >= DOUBT,
            _ => {
                self.doubted = Some((progress, now));
                false
            }
        }
    }
}

impl Seat {
    /// Gives the place back and tells whether the request came again in the meantime, unseen by the transfer.
    pub(super) fn leave(self) -> bool {
        // After this no command can come any more. One for a seat that another took is void.
        let was_mine = self.give_back();
        was_mine && self.line.take(Command::RequestAgain)
    }

    fn give_back(&self) -> bool {
        let mut table = self.desk.table();
        let entry = table.by_peer.get(&self.peer);
        let is_mine = entry.is_some_and(|entry| entry.id == self.id);
        if is_mine {
            table.remove(self.peer);
        }
        is_mine
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 11), 2070);

    #[track_caller]
    fn seated(desk: &Arc<Desk>, peer: SocketAddrV4, request: &[u8], now: Instant) -> Seat {
        match desk.admit(peer, request, now) {
            Admission::Seated(seat) => seat,
            other => panic!("not seated: {other:?}"),
        }
    }

    fn port(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(*PEER.ip(), port)
    }

    #[test]
    fn copies_before_the_first_answer_repeat_it() {
        let (desk, now) = (Desk::new(9, 9), Instant::now());
        let seat = seated(&desk, PEER, b"request", now);
        for _ in 0..3 {
            let again = desk.admit(PEER, b"request", now);
            assert!(matches!(again, Admission::Repeated));
        }
        assert!(seat.line.take(Command::RequestAgain));
        assert!(!seat.line.is_ringing());
        assert!(!seat.leave());
    }

    #[test]
    fn copies_of_a_request_under_way_are_stale() {
        let (desk, mut now) = (Desk::new(9, 9), Instant::now());
        let seat = seated(&desk, PEER, b"request", now);
        for progress in 1..5 {
            seat.line.show_progress(progress);
            for _ in 0..3 {
                let again = desk.admit(PEER, b"request", now);
                assert!(matches!(again, Admission::Stale));
            }
            now += Duration::from_secs(1);
        }
        let anew = desk.admit(PEER, b"request", now);
        assert!(
            matches!(anew, Admission::Seated(_)),
            "nothing moved for 1 s"
        );
        assert!(seat.line.take(Command::Replaced));
    }

    #[test]
    fn request_that_came_again_at_the_end_is_told() {
        let (desk, now) = (Desk::new(9, 9), Instant::now());
        let seat = seated(&desk, PEER, b"request", now);
        desk.admit(PEER, b"request", now);
        assert!(seat.leave());
        let seat = seated(&desk, PEER, b"request", now);
        desk.admit(PEER, b"request", now);
        let other = seated(&desk, PEER, b"other", now);
        assert!(!seat.leave(), "another request is being served");
        assert!(matches!(
            desk.admit(PEER, b"other", now),
            Admission::Repeated
        ));
        drop(other);
    }

    #[test]
    fn places_are_counted_and_come_back() {
        let (desk, now) = (Desk::new(3, 2), Instant::now());
        let answered = |seat: Seat| {
            seat.line.show_progress(1);
            seat
        };
        let first = answered(seated(&desk, port(1), b"request", now));
        let second = answered(seated(&desk, port(2), b"request", now));
        assert!(matches!(
            desk.admit(port(3), b"request", now),
            Admission::Full
        ));
        let other = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 12), 1);
        let third = answered(seated(&desk, other, b"request", now));
        let fourth = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 13), 1);
        assert!(matches!(
            desk.admit(fourth, b"request", now),
            Admission::Full
        ));
        // A new request on a port that is served needs no other place.
        let anew = seated(&desk, port(2), b"other", now);
        drop((first, second, third, anew));
        let table = desk.table();
        assert!(table.by_peer.is_empty() && table.per_client.is_empty());
    }

    /// Found by the soak: requests from ports that were closed again kept every place for half a minute each.
    #[test]
    fn who_never_answered_makes_room() {
        let (desk, now) = (Desk::new(3, 2), Instant::now());
        let forged = [1, 2].map(|n| seated(&desk, port(n), b"request", now));
        let other = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 12), 1);
        let third = seated(&desk, other, b"request", now);
        // The client's own bound costs its own oldest, the bound of all the oldest of all.
        let fourth = seated(&desk, port(3), b"request", now);
        assert!(forged[0].line.take(Command::GiveUp) && !forged[1].line.is_ringing());
        fourth.line.show_progress(1);
        let fifth = seated(
            &desk,
            SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 13), 1),
            b"x",
            now,
        );
        assert!(forged[1].line.take(Command::GiveUp) && !third.line.is_ringing());
        drop((forged, third, fourth, fifth));
        let table = desk.table();
        assert!(table.by_peer.is_empty() && table.per_client.is_empty());
    }

    #[test]
    fn all_are_told_to_stop() {
        let (desk, now) = (Desk::new(9, 9), Instant::now());
        let seats = [1, 2, 3].map(|n| seated(&desk, port(n), b"request", now));
        desk.stop_all();
        assert!(seats.iter().all(|seat| seat.line.take(Command::Shutdown)));
    }
}

//! One transfer on its socket: carries datagrams and time between [`Transfer`] and the kernel. Nothing here waits.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::contract::Reached;
use super::desk::{Command, Line, Seat};
use super::outcome::{Ended, Outcome};
use super::socket::Sender;
use super::transfer::Transfer;
use crate::wire::tftp::{ErrorCode, Packet};

/// While the client acknowledges, it is told this often how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Longest datagram that a client may have for us: an ERROR with its text.
const LARGEST: usize = 600;

/// Socket errors in a row, other than a closed port, that end a transfer. A route that flaps gives some.
const MOST_FAILURES: u32 = 64;

/// Datagrams that are taken out of a socket in one go: a bound against a peer that sends faster than we read.
const MOST_WAITING: usize = 64;

/// What the thread does next with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    GoOn,
    /// Watches the socket for these.
    Watch(EpollFlags),
    /// Ends it.
    End,
}

/// Who is told of a transfer.
pub(super) struct Reports {
    /// How far it is, now and then.
    pub(super) moving: Box<dyn Fn(Reached) + Send>,
    /// What became of it; gives the seat back.
    pub(super) finished: Box<dyn FnOnce(Seat, Outcome) + Send>,
}

/// A transfer under way.
pub(super) struct Session {
    socket: UdpSocket,
    transfer: Transfer,
    seat: Seat,
    reports: Reports,
    /// When it was last told how far it is, and how far that was, bytes.
    told: (Instant, u64),
    sender: Sender,
    /// What the socket had no room for.
    unsent: Range<u64>,
    waits_for_room: bool,
    failures: u32,
    /// The earliest alarm that is set.
    alarm: Option<Instant>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("socket", &self.socket)
            .field("transfer", &self.transfer)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Nothing is sent before [`Self::begin`].
    pub(super) fn new(socket: UdpSocket, transfer: Transfer, seat: Seat, reports: Reports) -> Self {
        Self {
            sender: Sender::new(transfer.terms()),
            socket,
            transfer,
            seat,
            reports,
            told: (Instant::now(), 0),
            unsent: 0..0,
            waits_for_room: false,
            failures: 0,
            alarm: None,
        }
    }

    pub(super) fn line(&self) -> &Line {
        &self.seat.line
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// An alarm that is needed and not set.
    pub(super) fn new_alarm(&mut self) -> Option<Instant> {
        let deadline = self.transfer.deadline();
        let is_set = self.alarm.is_some_and(|at| at <= deadline);
        (!is_set).then(|| *self.alarm.insert(deadline))
    }

    /// Sends the first datagrams, unless the socket can't be watched.
    pub(super) fn begin(&mut self, watched: nix::Result<()>, now: Instant) -> Then {
        if let Err(errno) = watched {
            let kind = io::Error::from(errno).kind();
            self.transfer.end(Ended::Socket(kind), now);
        }
        self.go_on(now)
    }

    /// The socket has something for us, or room.
    pub(super) fn on_ready(&mut self, events: EpollFlags, now: Instant) -> Then {
        if events != EpollFlags::EPOLLOUT {
            let mut buffer = [0; LARGEST];
            let received = self.socket.recv(&mut buffer);
            self.take(received, &buffer, now);
        }
        // After each event, so that a flood of packets can't hold up time.
        self.on_time(now);
        self.go_on(now)
    }

    /// The alarm that was set for `at` rings. It may be an old one, or the deadline has moved.
    pub(super) fn on_alarm(&mut self, at: Instant, now: Instant) -> Then {
        if self.alarm == Some(at) {
            self.alarm = None;
        }
        self.on_time(now);
        self.go_on(now)
    }

    /// A thread that was kept from its core finds the deadline past and the answer in the socket, maybe behind others:
    /// what waits there counts first, until some of it moves the deadline.
    fn on_time(&mut self, now: Instant) {
        let mut buffer = [0; LARGEST];
        for _ in 0..MOST_WAITING {
            if self.transfer.has_ended() || now < self.transfer.deadline() {
                return;
            }
            match self.socket.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                received => self.take(received, &buffer, now),
            }
        }
        self.transfer.on_deadline(now);
    }

    /// The desk has told the transfer something.
    pub(super) fn on_command(&mut self, now: Instant) -> Then {
        self.go_on(now)
    }

    /// Says goodbye, reports, and gives the seat back.
    pub(super) fn end(self: Box<Self>) {
        let Some(outcome) = self.transfer.outcome() else {
            return;
        };
        self.say_goodbye(&outcome.ended);
        // The socket goes last: a copy of the client's packets that comes now finds no closed port.
        let Self { seat, reports, .. } = *self;
        (reports.finished)(seat, outcome);
    }

    fn go_on(&mut self, now: Instant) -> Then {
        while self.line().is_ringing() && !self.transfer.has_ended() {
            self.obey(now);
        }
        // Before the client can see that its answer was taken.
        self.line().show_progress(self.transfer.progress());
        self.tell_moves(now);
        self.send_pending(now);
        if self.transfer.has_ended() {
            return Then::End;
        }
        let waits = !self.unsent.is_empty();
        if waits == self.waits_for_room {
            return Then::GoOn;
        }
        self.waits_for_room = waits;
        let room = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        Then::Watch(if waits { room } else { EpollFlags::EPOLLIN })
    }

    fn tell_moves(&mut self, now: Instant) {
        let (at, before) = self.told;
        if now.saturating_duration_since(at) < TOLD_EVERY {
            return;
        }
        let reached = self.transfer.reached(now);
        if reached.bytes_acked > before {
            self.told = (now, reached.bytes_acked);
            (self.reports.moving)(reached);
        }
    }

    fn take(&mut self, received: io::Result<usize>, buffer: &[u8], now: Instant) {
        match received {
            Ok(length) => {
                self.failures = 0;
                self.transfer.on_datagram(&buffer[..length], now);
            }
            // A datagram whose checksum is wrong announces itself, and isn't there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.count(&error, now),
        }
    }

    fn obey(&mut self, now: Instant) {
        if self.line().take(Command::Shutdown) {
            self.transfer.end(Ended::Shutdown, now);
        }
        if self.line().take(Command::GiveUp) {
            self.transfer.end(Ended::GaveUp, now);
        }
        if self.line().take(Command::Replaced) {
            self.take_waiting(now);
            self.transfer.end_unanswered(Ended::Replaced, now);
        }
        if self.line().take(Command::RequestAgain) {
            self.repeat(now);
        }
    }

    fn repeat(&mut self, now: Instant) {
        self.take_waiting(now);
        if self.transfer.has_ended() {
            // Left for the one who gives up the seat: this client waits for a new transfer.
            self.line().tell(Command::RequestAgain);
        } else {
            self.transfer.on_request_again(now);
        }
    }

    /// What the client sent before it asked anew, above all an ERROR, waits in the socket and counts first.
    fn take_waiting(&mut self, now: Instant) {
        let mut buffer = [0; LARGEST];
        for _ in 0..MOST_WAITING {
            match self.socket.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                received => self.take(received, &buffer, now),
            }
        }
    }

    /// Puts on the wire what is due, as far as there is room.
    fn send_pending(&mut self, now: Instant) {
        let due = self.transfer.take_pending();
        if !due.is_empty() {
            // What follows on what waits is sent behind it; what goes back makes it void.
            let follows = due.start == self.unsent.end && !self.unsent.is_empty();
            let start = if follows {
                self.unsent.start
            } else {
                due.start
            };
            self.unsent = start..due.end;
        }
        while !self.unsent.is_empty() && !self.transfer.has_ended() {
            let sent = self
                .sender
                .send(&self.socket, &self.transfer, self.unsent.clone());
            match sent {
                Ok(count) => self.unsent.start += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // All of it counts as lost: the transfer sends it again. One failure, not one for each block.
                    self.unsent = 0..0;
                    self.count(&error, now);
                }
            }
        }
    }

    fn count(&mut self, error: &io::Error, now: Instant) {
        self.failures += 1;
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.take_last_words(now);
            self.transfer.end_unanswered(Ended::Unreachable, now);
        } else if self.failures >= MOST_FAILURES {
            self.transfer.end(Ended::Socket(error.kind()), now);
        }
    }

    /// What the client sent before it closed its port: the kernel gives the error first, though it came later.
    fn take_last_words(&mut self, now: Instant) {
        let mut buffer = [0; LARGEST];
        for _ in 0..MOST_WAITING {
            match self.socket.recv(&mut buffer) {
                Ok(length) => self.transfer.on_datagram(&buffer[..length], now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    /// Tells a client that still listens why nothing more comes. Sent once, by courtesy.
    fn say_goodbye(&self, ended: &Ended) {
        if !matches!(ended, Ended::Shutdown | Ended::Overdue) {
            return;
        }
        let message = ended.to_string().into();
        let code = ErrorCode::NotDefined;
        let _ = self
            .socket
            .send(&Packet::Error { code, message }.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::super::desk::{Admission, Desk};
    use super::super::negotiate::{Ceiling, Terms};
    use super::super::outcome::Patience;
    use super::*;
    use crate::wire::tftp::Options;

    /// A session that sends a file of one block with an OACK, and its client.
    fn session(now: Instant) -> (Session, UdpSocket) {
        session_of(b"hello", Box::new(|_| {}), now)
    }

    fn session_of(
        file: &'static [u8],
        moving: Box<dyn Fn(Reached) + Send>,
        now: Instant,
    ) -> (Session, UdpSocket) {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(peer) = client.local_addr().unwrap() else {
            unreachable!()
        };
        let socket = super::super::socket::transfer_socket(*peer.ip(), peer).unwrap();
        client.connect(socket.local_addr().unwrap()).unwrap();
        let asked = Options {
            block_size: Some(512),
            ..Options::default()
        };
        let terms = Terms::agree(&asked, Ceiling::default(), file.len() as u64);
        let transfer = Transfer::new(file.into(), terms, Patience::default(), now);
        let Admission::Seated(seat) = Desk::new(1, 1).admit(peer, b"", now) else {
            panic!("no seat")
        };
        let reports = Reports {
            moving,
            finished: Box::new(|_, _| {}),
        };
        let mut session = Session::new(socket, transfer, seat, reports);
        assert_eq!(session.begin(Ok(()), now), Then::GoOn);
        (session, client)
    }

    fn ack(client: &UdpSocket, block: u16) {
        client.send(&Packet::Ack { block }.to_bytes()).unwrap();
    }

    #[test]
    fn answer_that_waits_in_the_socket_counts_before_the_deadline() {
        let now = Instant::now();
        let late = now + Duration::from_secs(2);
        for by_alarm in [true, false] {
            let (mut session, client) = session(now);
            // The one that counts is second.
            ack(&client, 77);
            ack(&client, 0);
            let then = match by_alarm {
                true => session.on_alarm(now, late),
                false => session.on_ready(EpollFlags::EPOLLIN, late),
            };
            assert_eq!((then, session.transfer.progress()), (Then::GoOn, 1));
            session.transfer.end(Ended::Shutdown, late);
            assert_eq!(session.transfer.outcome().unwrap().retransmissions, 0);
        }
    }

    #[test]
    fn it_is_told_now_and_then_how_far_a_transfer_is_that_goes_on() {
        let (tell, told) = std::sync::mpsc::channel();
        let now = Instant::now();
        let tell = move |reached: Reached| tell.send(reached).unwrap();
        let (mut session, client) = session_of(&[7; 5000], Box::new(tell), now);
        let begun = session.told.0.max(now);
        let mut at = |second, block| {
            ack(&client, block);
            session.on_ready(EpollFlags::EPOLLIN, begun + Duration::from_secs(second));
            told.try_recv().ok().map(|reached| reached.bytes_acked)
        };
        assert_eq!(at(0, 0), None);
        assert_eq!(at(1, 1), None);
        assert_eq!(at(5, 2), Some(1024));
        assert_eq!(at(6, 3), None);
        // The same once more is no progress.
        assert_eq!(at(10, 3), Some(1536));
        assert_eq!(at(15, 3), None);
        assert_eq!(at(16, 4), Some(2048));
    }

    #[test]
    fn last_ack_counts_though_the_port_is_closed() {
        let now = Instant::now();
        let (mut session, client) = session(now);
        ack(&client, 0);
        session.on_ready(EpollFlags::EPOLLIN, now);
        ack(&client, 1);
        drop(client);
        // A copy meets the closed port; the kernel reports it ahead of the ACK.
        session.socket.send(b"copy").unwrap();
        assert_eq!(session.on_ready(EpollFlags::EPOLLIN, now), Then::End);
        assert_eq!(session.transfer.outcome().unwrap().ended, Ended::Done);
    }
}

//! One transfer on its socket: carries datagrams and time between [`Transfer`] and the kernel.

use std::io;
use std::pin::{Pin, pin};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep_until};

use super::desk::{Command, Seat};
use super::outcome::{Ended, Outcome};
use super::socket;
use super::transfer::Transfer;
use crate::wire::tftp::{ErrorCode, Packet};

/// Longest datagram that a client may have for us: an ERROR with its text.
const LARGEST: usize = 600;

/// Socket errors in a row, other than a closed port, that end a transfer. A route that flaps gives some.
const MOST_FAILURES: u32 = 64;

/// Runs `transfer` to its end and reports how it ended, before the client's place is free for another.
/// True where the client ended it and sent the very same request again, and so waits for an answer.
pub(super) async fn run(
    socket: UdpSocket,
    transfer: Transfer,
    seat: Seat,
    report: impl FnOnce(Outcome),
) -> bool {
    let mut session = Session {
        socket,
        transfer,
        seat,
        failures: 0,
    };
    let outcome = session.drive().await;
    session.say_goodbye(&outcome.ended);
    let by_client = matches!(
        outcome.ended,
        Ended::ClientError { .. } | Ended::Unreachable
    );
    report(outcome);
    session.seat.leave() && by_client
}

struct Session {
    socket: UdpSocket,
    transfer: Transfer,
    seat: Seat,
    failures: u32,
}

impl Session {
    async fn drive(&mut self) -> Outcome {
        let mut alarm = pin!(sleep_until(self.transfer.deadline().into()));
        loop {
            self.send_pending().await;
            if let Some(outcome) = self.transfer.outcome() {
                return outcome;
            }
            self.seat.line.show_progress(self.transfer.progress());
            // A deadline mostly moves away: then the alarm may ring early, which costs less than to set it each time.
            if alarm.deadline().into_std() > self.transfer.deadline() {
                alarm.as_mut().reset(self.transfer.deadline().into());
            }
            self.wait(alarm.as_mut()).await;
        }
    }

    /// Waits for whatever comes first, and hands it to the transfer.
    async fn wait(&mut self, mut alarm: Pin<&mut Sleep>) {
        let mut buffer = [0; LARGEST];
        tokio::select! {
            biased;
            received = self.socket.recv(&mut buffer) => self.take(received, &buffer),
            () = self.seat.line.ring() => {}
            () = alarm.as_mut() => {}
        }
        // Both are looked at after each event, so that a flood of packets can't hold up time or commands.
        if self.seat.line.is_ringing() {
            self.obey();
        }
        let now = Instant::now();
        self.transfer.on_deadline(now);
        if alarm.is_elapsed() {
            alarm.reset(self.transfer.deadline().into());
        }
    }

    fn take(&mut self, received: io::Result<usize>, buffer: &[u8]) {
        match received {
            Ok(length) => {
                self.failures = 0;
                self.transfer.on_datagram(&buffer[..length], Instant::now());
            }
            Err(error) => self.count(&error),
        }
    }

    fn obey(&mut self) {
        let now = Instant::now();
        if self.seat.line.take(Command::Shutdown) {
            self.transfer.end(Ended::Shutdown, now);
        }
        if self.seat.line.take(Command::Replaced) {
            self.take_waiting();
            self.transfer.end(Ended::Replaced, now);
        }
        if self.seat.line.take(Command::RequestAgain) {
            self.repeat(now);
        }
    }

    fn repeat(&mut self, now: Instant) {
        self.take_waiting();
        if self.transfer.outcome().is_none() {
            self.transfer.on_request_again(now);
        } else {
            // Left for the one who gives up the seat: this client waits for a new transfer.
            self.seat.line.tell(Command::RequestAgain);
        }
    }

    /// What the client sent before it asked anew, above all an ERROR, waits in the socket and counts first. Bounded
    /// against a peer that sends faster than we read.
    fn take_waiting(&mut self) {
        let mut buffer = [0; LARGEST];
        for _ in 0..64 {
            match self.socket.try_recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                received => self.take(received, &buffer),
            }
        }
    }

    async fn send_pending(&mut self) {
        let deadline = self.transfer.deadline();
        for unit in self.transfer.take_pending() {
            let datagram = self.transfer.datagram(unit);
            if let Err(error) = socket::send(&self.socket, datagram, deadline).await {
                // The datagram counts as lost: the transfer sends it again.
                self.count(&error);
            }
        }
    }

    fn count(&mut self, error: &io::Error) {
        self.failures += 1;
        let now = Instant::now();
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.transfer.end(Ended::Unreachable, now);
        } else if self.failures >= MOST_FAILURES {
            self.transfer.end(Ended::Socket(error.kind()), now);
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
            .try_send(&Packet::Error { code, message }.to_bytes());
    }
}

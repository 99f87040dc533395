//! One read transfer as a state machine: packets and time go in, datagrams and a deadline come out.
//!
//! Everything sent is numbered in *units*: unit 0 is the OACK, unit n is DATA n, without wrapping.
//! The block number on the wire is the unit modulo 65536, so files may have any length.
//!
//! What is sent again, and when:
//! - no answer in time: all that is unacknowledged, with the delay doubling up to the client's `timeout`;
//! - an ACK inside the window (RFC 7440 section 4): what follows it, at once;
//! - an ACK of what came before the window: its first block is lost, so the whole window, at once.
//!
//! But once something was sent again, such ACKs may only answer a block that came twice, and to answer each with a
//! block is the Sorcerer's Apprentice (RFC 1123 section 4.2.3.1). In lock-step an ACK that repeats is ignored; in a
//! window, up to the end of the next one, odd ACKs shorten the wait to one round trip, and the real ACK calls it off.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::contract::Reached;
use super::negotiate::Terms;
use super::outcome::{Ended, Outcome, Patience};
use super::round_trip::RoundTrip;
use crate::wire::tftp::{Packet, data_header};

/// One datagram to send: the first four bytes, then the rest, which borrows the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Opcode and block number (of an OACK: its first four bytes).
    pub header: [u8; 4],
    /// What follows.
    pub payload: &'a [u8],
}

/// A read transfer. See the module for its rules.
#[derive(Debug)]
pub struct Transfer {
    file: Bytes,
    terms: Terms,
    patience: Patience,
    /// The OACK's first four bytes, and the others; `None` where no option was granted.
    option_ack: Option<([u8; 4], Vec<u8>)>,
    /// Number of the last DATA block.
    last: u64,
    /// First unit of all: 0 with an OACK, else 1.
    first: u64,
    /// First unit that isn't acknowledged.
    acked: u64,
    /// One past the last unit that was ever sent.
    sent: u64,
    /// Units that wait to be put on the wire.
    pending: Range<u64>,
    flight: Flight,
    round_trip: RoundTrip,
    /// How often the present flight went unanswered.
    backoff: u32,
    started: Instant,
    progress: Instant,
    deadline: Instant,
    retransmissions: u64,
    strays: u64,
    ended: Option<(Ended, Instant)>,
}

/// What is on the wire.
#[derive(Debug)]
struct Flight {
    since: Instant,
    /// It holds units that were sent before: its ACK can't be timed.
    resent: bool,
    /// The flight before it did: late answers to that one may still arrive.
    echoes: bool,
}

impl Transfer {
    /// Starts to send `file` on `terms`; the first datagrams are due at once.
    #[must_use]
    pub fn new(file: Bytes, terms: Terms, patience: Patience, now: Instant) -> Self {
        let option_ack = encode_option_ack(&terms);
        let first = u64::from(option_ack.is_none());
        let mut transfer = Self {
            last: file.len() as u64 / u64::from(terms.block_size) + 1,
            file,
            terms,
            patience,
            option_ack,
            first,
            acked: first,
            sent: first,
            pending: first..first,
            flight: Flight {
                since: now,
                resent: false,
                echoes: false,
            },
            round_trip: RoundTrip::default(),
            backoff: 0,
            started: now,
            progress: now,
            deadline: now,
            retransmissions: 0,
            strays: 0,
            ended: None,
        };
        transfer.send_window(now);
        transfer
    }

    /// Units to send now, in order; empty where there is nothing to do. Each call gives them once.
    pub fn take_pending(&mut self) -> Range<u64> {
        let empty = self.pending.end..self.pending.end;
        std::mem::replace(&mut self.pending, empty)
    }

    /// The datagram of `unit`, one that [`Self::take_pending`] gave.
    #[must_use]
    pub fn datagram(&self, unit: u64) -> Datagram<'_> {
        match (&self.option_ack, unit) {
            (Some((header, payload)), 0) => Datagram {
                header: *header,
                payload,
            },
            _ => Datagram {
                header: data_header(unit as u16),
                payload: &self.file[self.extent(unit)],
            },
        }
    }

    /// When [`Self::on_deadline`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Blocks acknowledged so far, an OACK counting as one; 0 means that the client hasn't answered yet.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.acked - self.first
    }

    /// How far it is.
    #[must_use]
    pub fn reached(&self, now: Instant) -> Reached {
        Reached {
            bytes_acked: self.bytes_acked(),
            size: self.file.len() as u64,
            elapsed: now.saturating_duration_since(self.started),
        }
    }

    /// What was agreed.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// True once it has ended, one way or another.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// What became of it, once it has ended.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let (ended, at) = self.ended.as_ref()?;
        Some(Outcome {
            ended: ended.clone(),
            size: self.file.len() as u64,
            bytes_acked: self.bytes_acked(),
            elapsed: at.saturating_duration_since(self.started),
            retransmissions: self.retransmissions,
            strays: self.strays,
            asked_size: self.terms.granted.transfer_size.is_some(),
        })
    }

    /// Takes a datagram from the client.
    pub fn on_datagram(&mut self, bytes: &[u8], now: Instant) {
        if self.ended.is_some() {
            return;
        }
        match Packet::parse(bytes) {
            Ok(Packet::Ack { block }) => self.on_ack(block, now),
            Ok(Packet::Error { code, message }) => {
                let message = message.into_owned();
                self.end(Ended::ClientError { code, message }, now);
            }
            _ => self.strays += 1,
        }
    }

    /// Takes the passing of [`Self::deadline`]; does nothing before it.
    pub fn on_deadline(&mut self, now: Instant) {
        if self.ended.is_some() || now < self.deadline {
            return;
        }
        if now.saturating_duration_since(self.progress) >= self.stall_limit() {
            return self.end_unanswered(Ended::GaveUp, now);
        }
        self.backoff += 1;
        self.resend(now);
    }

    /// Takes a repetition of the request: the client hasn't seen our first answer. Of no use after that.
    pub fn on_request_again(&mut self, now: Instant) {
        if self.ended.is_none() && self.progress() == 0 {
            self.resend(now);
        }
    }

    /// Takes it that the client listens no more, for the reason `ended`. Where only the last ACK is missing, the client
    /// most likely has the file.
    pub fn end_unanswered(&mut self, ended: Ended, now: Instant) {
        let has_all = self.awaits_last_ack() && self.progress() > 0;
        self.end(
            if has_all {
                Ended::LastAckMissing
            } else {
                ended
            },
            now,
        );
    }

    /// Ends the transfer from outside; the first reason counts.
    pub fn end(&mut self, ended: Ended, now: Instant) {
        if self.ended.is_none() {
            self.ended = Some((ended, now));
            self.take_pending();
        }
    }

    fn on_ack(&mut self, block: u16, now: Instant) {
        // Distance from the unit before the window, which makes the wrap of block numbers invisible.
        let answered = u64::from(block.wrapping_add(1).wrapping_sub(self.acked as u16));
        if answered == 0 {
            self.on_repeated_ack(now);
        } else if answered <= self.outstanding() {
            self.on_progress(answered, now);
        } else {
            self.strays += 1;
        }
    }

    fn on_progress(&mut self, answered: u64, now: Instant) {
        let whole = answered == self.outstanding();
        // An ACK of all that went twice may answer the first copy, late. Then the next flight would be late, too, and
        // sent twice, and never timed: the long wait stays until one was (Karn; RFC 6298 section 5). An ACK inside
        // the flight tells of a loss instead, and nothing about the time.
        if !whole || !self.flight.resent {
            self.backoff = 0;
        }
        if whole && !self.flight.resent {
            self.round_trip.sample(now - self.flight.since);
        }
        self.acked += answered;
        self.progress = now;
        if self.acked > self.last {
            self.end(Ended::Done, now);
        } else if now.saturating_duration_since(self.started) >= self.patience.lifetime {
            self.end(Ended::Overdue, now);
        } else if whole || self.is_calm() {
            self.send_window(now);
        } else {
            self.slide(now);
        }
    }

    /// ACK of the unit before the window: a lost first block, or an echo of something sent twice.
    fn on_repeated_ack(&mut self, now: Instant) {
        if self.outstanding() < 2 {
            // Lock-step: never answered (RFC 1123 section 4.2.3.1).
            self.strays += 1;
        } else if self.is_calm() {
            self.resend(now);
        } else {
            // EDK2 acknowledges every block out of order, so one loss gives several of these.
            self.strays += 1;
            self.expect_answer(now);
        }
    }

    /// True where an odd ACK can't be the answer to something that was sent again.
    fn is_calm(&self) -> bool {
        !self.flight.resent && !self.flight.echoes
    }

    /// Completes the window with what was never sent; what is out already may well arrive.
    fn slide(&mut self, now: Instant) {
        let sent = self.sent;
        self.sent = self.window_end();
        self.pending = sent..self.sent;
        if sent < self.sent {
            self.flight.since = now;
        }
        self.flight.echoes = true;
        self.deadline = now + self.retry_delay(self.patience.floor);
        self.expect_answer(now);
    }

    /// Waits no longer than the measured round trip for the answer to the present flight, unless a flight went
    /// unanswered that long: then the path may have become slower than measured.
    fn expect_answer(&mut self, now: Instant) {
        if self.backoff == 0 {
            let answer_due = self.flight.since + self.retry_delay(Duration::ZERO);
            self.deadline = self.deadline.min(answer_due.max(now));
        }
    }

    /// Sends the window from `acked` on; what was out already goes again.
    fn send_window(&mut self, now: Instant) {
        let repeated = self.outstanding();
        self.retransmissions += repeated;
        self.sent = self.window_end();
        self.launch(repeated > 0, now);
    }

    /// One past the last unit that may be sent before another ACK; the OACK goes alone.
    fn window_end(&self) -> u64 {
        match self.acked {
            0 => 1,
            first => (first + u64::from(self.terms.window_size)).min(self.last + 1),
        }
    }

    fn resend(&mut self, now: Instant) {
        self.retransmissions += self.outstanding();
        self.launch(true, now);
    }

    fn launch(&mut self, resent: bool, now: Instant) {
        self.pending = self.acked..self.sent;
        self.flight = Flight {
            since: now,
            resent,
            echoes: self.flight.resent,
        };
        let give_up = self.progress + self.stall_limit();
        self.deadline = give_up.min(now + self.retry_delay(self.patience.floor));
    }

    /// Time from sending to sending again, by the measured round trip and the tries so far.
    fn retry_delay(&self, floor: Duration) -> Duration {
        let longest = self.terms.timeout.unwrap_or(Duration::MAX);
        let longest = longest.min(self.patience.ceiling);
        let delay = self.round_trip.overdue().unwrap_or(self.patience.first);
        delay
            .max(floor)
            .saturating_mul(1 << self.backoff.min(16))
            .min(longest)
    }

    fn stall_limit(&self) -> Duration {
        match self.round_trip.overdue() {
            // Sixteen times the first wait leaves four more tries where the path is slow.
            Some(answer) if self.awaits_last_ack() => {
                let few_tries = self.patience.last_ack.max(answer.saturating_mul(16));
                few_tries.min(self.patience.stalled)
            }
            _ => self.patience.stalled,
        }
    }

    fn awaits_last_ack(&self) -> bool {
        self.sent > self.last
    }

    fn outstanding(&self) -> u64 {
        self.sent - self.acked
    }

    fn bytes_acked(&self) -> u64 {
        let blocks = self.acked.saturating_sub(1);
        (blocks * u64::from(self.terms.block_size)).min(self.file.len() as u64)
    }

    fn extent(&self, unit: u64) -> Range<usize> {
        let block_size = usize::from(self.terms.block_size);
        let start = (unit.saturating_sub(1) as usize).saturating_mul(block_size);
        let start = start.min(self.file.len());
        start..start.saturating_add(block_size).min(self.file.len())
    }
}

fn encode_option_ack(terms: &Terms) -> Option<([u8; 4], Vec<u8>)> {
    if terms.granted.is_empty() {
        return None;
    }
    let bytes = Packet::OptionAck(terms.granted).to_bytes();
    let (header, payload) = bytes.split_first_chunk::<4>()?;
    Some((*header, payload.to_vec()))
}

#[cfg(test)]
mod tests;

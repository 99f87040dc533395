//! TFTP: any datagram is read or refused; a transfer, whatever its client sends and when, sends within bounds and ends.

use std::time::{Duration, Instant};

use bridgehead::tftp::{Ceiling, Patience, Terms, Transfer};
use bridgehead::wire::tftp::{Options, Packet};
use bytes::Bytes;

/// More alarms in a row than any transfer needs to give up on a silent client.
const ALARMS: usize = 10_000;

/// Holds for every datagram, and for every script of a conversation.
pub(crate) fn check(bytes: &[u8]) {
    check_packet(bytes);
    if let Some((size, options, script)) = script(bytes) {
        Conversation::new(size, &options).play(script);
    }
}

/// What was read says the same when it is written and read again.
fn check_packet(bytes: &[u8]) {
    match Packet::parse(bytes) {
        Err(malformed) => assert!(!malformed.to_string().is_empty()),
        Ok(packet) => {
            let written = packet.to_bytes();
            assert_eq!(Packet::parse(&written), Ok(packet));
        }
    }
}

/// Of the bytes: the file's size (3), the length of the options and these as in a request, then steps.
fn script(bytes: &[u8]) -> Option<(usize, Options, &[u8])> {
    let [a, b, c, length, rest @ ..] = bytes else {
        return None;
    };
    let size = usize::from(*a & 0x0f) << 16 | usize::from(*b) << 8 | usize::from(*c);
    let (options, steps) = rest.split_at_checked(usize::from(*length))?;
    let request = [b"\0\x01f\0octet\0", options].concat();
    match Packet::parse(&request) {
        Ok(Packet::Read(request)) => Some((size, request.options, steps)),
        _ => None,
    }
}

struct Conversation {
    transfer: Transfer,
    size: u64,
    block_size: usize,
    window: u64,
    now: Instant,
    began: Instant,
    patience: Patience,
    /// Unit that was sent last: what a client that is well would acknowledge.
    newest: u16,
}

impl Conversation {
    fn new(size: usize, asked: &Options) -> Self {
        let terms = Terms::agree(asked, Ceiling::default().for_mtu(1500), size as u64);
        let (began, patience) = (Instant::now(), Patience::default());
        let file = Bytes::from(vec![0xa5; size]);
        Self {
            block_size: terms.block_size.into(),
            window: terms.window_size.into(),
            transfer: Transfer::new(file, terms, patience, began),
            size: size as u64,
            now: began,
            began,
            patience,
            newest: 0,
        }
    }

    fn play(&mut self, mut steps: &[u8]) {
        self.take_sent();
        while let Some((step, rest)) = steps.split_first() {
            steps = self.step(*step, rest);
            self.take_sent();
            self.check_outcome();
        }
        self.check_end();
    }

    /// One thing that can happen to a transfer; gives what is left of the script.
    fn step<'a>(&mut self, step: u8, rest: &'a [u8]) -> &'a [u8] {
        let argument = rest.first().copied().unwrap_or(0);
        let behind = rest.get(1..).unwrap_or(&[]);
        match step % 8 {
            0 | 1 => {
                self.acknowledge(self.newest);
                rest
            }
            2 => {
                self.acknowledge(self.newest.wrapping_sub(argument.into()));
                behind
            }
            3 => {
                self.acknowledge(self.newest.wrapping_add(argument.into()));
                behind
            }
            4 => {
                self.now += Duration::from_millis(u64::from(argument) * 17);
                self.transfer.on_deadline(self.now);
                behind
            }
            5 => {
                self.now = self.now.max(self.transfer.deadline());
                self.transfer.on_deadline(self.now);
                rest
            }
            6 => {
                self.transfer.on_request_again(self.now);
                rest
            }
            _ => {
                let (datagram, rest) = behind.split_at(usize::from(argument).min(behind.len()));
                self.transfer.on_datagram(datagram, self.now);
                rest
            }
        }
    }

    fn acknowledge(&mut self, block: u16) {
        let bytes = Packet::Ack { block }.to_bytes();
        self.transfer.on_datagram(&bytes, self.now);
    }

    /// One input makes one window at most, and no datagram is larger than was agreed.
    fn take_sent(&mut self) {
        let units = self.transfer.take_pending();
        let count = units.end - units.start;
        assert!(count <= self.window, "{count} datagrams for one input");
        for unit in units {
            let datagram = self.transfer.datagram(unit);
            if datagram.header[1] == 3 {
                assert!(datagram.payload.len() <= self.block_size);
            }
            self.newest = unit as u16;
        }
        assert!(
            self.transfer.take_pending().is_empty(),
            "each is given once"
        );
    }

    fn check_outcome(&mut self) {
        let Some(outcome) = self.transfer.outcome() else {
            return;
        };
        assert!(outcome.bytes_acked <= self.size);
        assert!(!outcome.ended.to_string().is_empty());
        // Nothing brings it back.
        self.acknowledge(self.newest);
        self.transfer.on_request_again(self.now);
        self.transfer.on_deadline(self.now + self.patience.lifetime);
        assert!(
            self.transfer.take_pending().is_empty(),
            "sent after its end"
        );
        assert_eq!(self.transfer.outcome(), Some(outcome), "it ends once");
    }

    /// Left alone it ends, soon, and what it sends meanwhile is bounded: nobody is flooded in a spoofed name.
    fn check_end(&mut self) {
        let (alone, mut sent) = (self.now, 0);
        for _ in 0..ALARMS {
            if self.transfer.outcome().is_some() {
                break;
            }
            let due = self.transfer.deadline();
            self.now = self.now.max(due);
            self.transfer.on_deadline(self.now);
            let units = self.transfer.take_pending();
            sent += units.end - units.start;
        }
        let outcome = self.transfer.outcome().expect("an abandoned transfer ends");
        assert!(self.now - alone <= self.patience.stalled + self.patience.ceiling);
        // A floor of 100 ms that doubles up to 4 s leaves a dozen tries in 30 s; a client's `timeout` of 1 s, thirty.
        assert!(sent <= 45 * self.window, "{sent} datagrams to nobody");
        assert!(outcome.elapsed <= self.now - self.began);
    }
}

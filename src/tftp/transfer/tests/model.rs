//! A receiver, a network, and both ends of a transfer in model time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::*;
use crate::tftp::negotiate::Ceiling;
use crate::wire::tftp::Options;

pub(super) const LATENCY: Duration = Duration::from_millis(5);
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(10);

/// How a receiver acknowledges blocks that are out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Once for each gap, as RFC 7440 section 4 describes it. U-Boot (net/tftp.c) does so even in lock-step: where that
    /// ACK is lost, no block that comes again gets an answer, until its own timer ends.
    OncePerGap,
    /// Each of them, as EDK2 does (Mtftp4Rrq.c).
    Each,
}

/// A client that takes a file.
pub(super) struct Receiver {
    manner: Manner,
    block_size: usize,
    window: u64,
    file: Vec<u8>,
    /// Next unit it wants.
    wanted: u64,
    unacked: u64,
    gap_told: bool,
    complete: bool,
    /// It got what it wanted and runs it.
    gone: bool,
}

impl Receiver {
    /// Takes a datagram; the block number to acknowledge, if any.
    fn take(&mut self, bytes: &[u8]) -> Option<u16> {
        if self.gone {
            return None;
        }
        match Packet::parse(bytes).unwrap() {
            Packet::OptionAck(_) => {
                self.wanted = self.wanted.max(1);
                Some(self.last_taken())
            }
            Packet::Data { block, payload } if block == self.wanted as u16 => self.keep(payload),
            Packet::Data { .. } => self.refuse(),
            other => panic!("server sent {other:?}"),
        }
    }

    fn keep(&mut self, payload: &[u8]) -> Option<u16> {
        assert!(!self.complete, "a block after the last");
        self.file.extend_from_slice(payload);
        self.wanted += 1;
        self.unacked += 1;
        self.gap_told = false;
        self.complete = payload.len() < self.block_size;
        (self.complete || self.unacked >= self.window).then(|| self.acknowledge())
    }

    fn refuse(&mut self) -> Option<u16> {
        if self.manner == Manner::OncePerGap && self.gap_told && !self.complete {
            return None;
        }
        self.gap_told = true;
        Some(self.acknowledge())
    }

    fn acknowledge(&mut self) -> u16 {
        self.unacked = 0;
        self.last_taken()
    }

    fn last_taken(&self) -> u16 {
        (self.wanted as u16).wrapping_sub(1)
    }
}

/// What the network does to the nth datagram of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    Lost,
    Twice,
}

pub(super) type Event = Reverse<(Instant, u64, bool, Vec<u8>)>;

pub(super) struct Network<'a> {
    start: Instant,
    now: Instant,
    latency: fn(Duration) -> Duration,
    order: u64,
    under_way: BinaryHeap<Event>,
    /// Fate of the nth datagram to the client (true) or to the server (false).
    fate: &'a mut dyn FnMut(bool, u64) -> Fate,
    to_client: u64,
    to_server: u64,
    /// When each datagram to the client was sent, and its block number.
    trace: Vec<(Duration, u16)>,
}

impl Network<'_> {
    fn carry(&mut self, to_client: bool, bytes: &[u8]) {
        let count = if to_client {
            &mut self.to_client
        } else {
            &mut self.to_server
        };
        let copies = match (self.fate)(to_client, *count) {
            Fate::Lost => 0,
            Fate::Arrives => 1,
            Fate::Twice => 2,
        };
        *count += 1;
        if to_client {
            let block = u16::from_be_bytes([bytes[2], bytes[3]]);
            self.trace.push((self.now - self.start, block));
        }
        for _ in 0..copies {
            self.order += 1;
            let due = self.now + (self.latency)(self.now - self.start);
            let event = (due, self.order, to_client, bytes.to_vec());
            self.under_way.push(Reverse(event));
        }
    }
}

pub(super) struct Played {
    pub(super) outcome: Outcome,
    pub(super) received: Vec<u8>,
    /// Datagrams that the server sent.
    pub(super) sent: u64,
    /// When each of them was sent, and its block number.
    pub(super) trace: Vec<(Duration, u16)>,
    pub(super) elapsed: Duration,
}

#[derive(Clone, Copy)]
pub(super) struct Play {
    pub(super) size: usize,
    pub(super) block_size: u16,
    pub(super) window: u16,
    pub(super) manner: Manner,
    pub(super) options: bool,
    /// The receiver leaves as soon as it has all, without its last ACK.
    pub(super) leaves: bool,
    pub(super) patience: Patience,
    /// One way, by the time since the start.
    pub(super) latency: fn(Duration) -> Duration,
}

pub(super) const PLAY: Play = Play {
    size: 100 * 64,
    block_size: 64,
    window: 4,
    manner: Manner::OncePerGap,
    options: true,
    leaves: false,
    patience: PATIENCE,
    latency: |_| LATENCY,
};

/// The default, as a constant.
pub(super) const PATIENCE: Patience = Patience {
    first: Duration::from_secs(1),
    floor: Duration::from_millis(100),
    ceiling: Duration::from_secs(4),
    stalled: Duration::from_secs(30),
    last_ack: Duration::from_secs(5),
    lifetime: Duration::from_secs(3600),
};

pub(super) fn content(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i / 7 + i * 31) as u8).collect()
}

pub(super) fn terms(play: Play, size: usize) -> Terms {
    let asked = Options {
        block_size: Some(play.block_size.into()),
        window_size: Some(play.window),
        transfer_size: Some(0),
        timeout: None,
    };
    let terms = Terms::agree(&asked, Ceiling::default(), size as u64);
    let granted = if play.options {
        terms.granted
    } else {
        Options::default()
    };
    Terms { granted, ..terms }
}

impl Receiver {
    fn of(play: &Play) -> Self {
        Self {
            manner: play.manner,
            block_size: play.block_size.into(),
            window: play.window.into(),
            file: Vec::new(),
            wanted: u64::from(!play.options),
            unacked: 0,
            gap_told: false,
            complete: false,
            gone: false,
        }
    }

    /// Its last ACK again, which it sends when it hears nothing for [`REPEATS`].
    fn repeat(&mut self) -> Option<u16> {
        (self.wanted > 0 && !self.complete).then(|| self.acknowledge())
    }
}

/// How long the client waits before it repeats its last ACK.
pub(super) const REPEATS: Duration = Duration::from_secs(2);

/// How often the server sends to a client that is silent until it [`REPEATS`]: after 100, 200, 400, 800 and 1600 ms.
/// The wait after that, 3200 ms, is longer than the client's.
pub(super) const TRIES_IN_SILENCE: u64 = 5;

/// Both ends and what is between them.
pub(super) struct Stage<'a> {
    play: Play,
    transfer: Transfer,
    client: Receiver,
    network: Network<'a>,
    /// When the client last heard something.
    heard: Instant,
}

impl<'a> Stage<'a> {
    fn new(play: Play, fate: &'a mut dyn FnMut(bool, u64) -> Fate) -> Self {
        let start = Instant::now();
        let (file, terms) = (content(play.size), terms(play, play.size));
        Self {
            play,
            transfer: Transfer::new(file.into(), terms, play.patience, start),
            client: Receiver::of(&play),
            network: Network {
                start,
                now: start,
                latency: play.latency,
                order: 0,
                under_way: BinaryHeap::new(),
                fate,
                to_client: 0,
                to_server: 0,
                trace: Vec::new(),
            },
            heard: start,
        }
    }

    /// Sends what the server wants to send now.
    fn send(&mut self) {
        for unit in self.transfer.take_pending() {
            let datagram = self.transfer.datagram(unit);
            let bytes = [&datagram.header, datagram.payload].concat();
            self.network.carry(true, &bytes);
        }
    }

    /// Lets the next thing happen: a datagram arrives, or somebody's patience ends.
    fn step(&mut self) {
        let client_due = self.heard + REPEATS;
        let timer = self.transfer.deadline().min(client_due);
        let network = &mut self.network;
        let arrives = network.under_way.peek();
        if arrives.is_some_and(|Reverse((due, ..))| *due <= timer)
            && let Some(Reverse((due, _, to_client, bytes))) = network.under_way.pop()
        {
            network.now = due;
            if to_client {
                self.client_hears(&bytes, due);
            } else {
                self.transfer.on_datagram(&bytes, due);
            }
            return;
        }
        network.now = timer;
        self.transfer.on_deadline(timer);
        if timer >= client_due {
            self.heard = timer;
            let again = self.client.repeat();
            self.acknowledge(again);
        }
    }

    fn client_hears(&mut self, bytes: &[u8], now: Instant) {
        self.heard = now;
        let answer = self.client.take(bytes);
        self.client.gone |= self.client.complete && self.play.leaves;
        self.acknowledge(answer.filter(|_| !self.client.gone));
    }

    fn acknowledge(&mut self, block: Option<u16>) {
        if let Some(block) = block {
            let ack = Packet::Ack { block }.to_bytes();
            self.network.carry(false, &ack);
        }
    }
}

/// Plays a transfer to its end.
pub(super) fn play(play: Play, fate: &mut dyn FnMut(bool, u64) -> Fate) -> Played {
    let mut stage = Stage::new(play, fate);
    loop {
        stage.send();
        if let Some(outcome) = stage.transfer.outcome() {
            return Played {
                outcome,
                received: stage.client.file,
                sent: stage.network.to_client,
                trace: stage.network.trace,
                elapsed: stage.network.now - stage.network.start,
            };
        }
        stage.step();
    }
}

pub(super) fn losing(lost: &'static [u64]) -> impl FnMut(bool, u64) -> Fate {
    move |to_client, n| {
        if to_client && lost.contains(&n) {
            Fate::Lost
        } else {
            Fate::Arrives
        }
    }
}

pub(super) fn clean(p: Play) -> Played {
    play(p, &mut |_, _| Fate::Arrives)
}

#[track_caller]
pub(super) fn assert_done(played: &Played, p: Play) {
    assert_eq!(played.outcome.ended, Ended::Done);
    assert_eq!(played.outcome.bytes_acked, p.size as u64);
    assert!(played.received == content(p.size), "file differs");
}

//! A transfer against a model receiver over a model network, in model time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::tftp::negotiate::Ceiling;
use crate::wire::tftp::{ErrorCode, Options};

const LATENCY: Duration = Duration::from_millis(5);
const ROUND_TRIP: Duration = Duration::from_millis(10);

/// How a receiver acknowledges blocks that are out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Once for each gap, as RFC 7440 section 4 describes it. U-Boot (net/tftp.c) does so even in lock-step: where that
    /// ACK is lost, no block that comes again gets an answer, until its own timer ends.
    OncePerGap,
    /// Each of them, as EDK2 does (Mtftp4Rrq.c).
    Each,
}

/// A client that takes a file.
struct Receiver {
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
enum Fate {
    Arrives,
    Lost,
    Twice,
}

type Event = Reverse<(Instant, u64, bool, Vec<u8>)>;

struct Network<'a> {
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

struct Played {
    outcome: Outcome,
    received: Vec<u8>,
    /// Datagrams that the server sent.
    sent: u64,
    /// When each of them was sent, and its block number.
    trace: Vec<(Duration, u16)>,
    elapsed: Duration,
}

#[derive(Clone, Copy)]
struct Play {
    size: usize,
    block_size: u16,
    window: u16,
    manner: Manner,
    options: bool,
    /// The receiver leaves as soon as it has all, without its last ACK.
    leaves: bool,
    patience: Patience,
    /// One way, by the time since the start.
    latency: fn(Duration) -> Duration,
}

const PLAY: Play = Play {
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
const PATIENCE: Patience = Patience {
    first: Duration::from_secs(1),
    floor: Duration::from_millis(100),
    ceiling: Duration::from_secs(4),
    stalled: Duration::from_secs(30),
    last_ack: Duration::from_secs(5),
    lifetime: Duration::from_secs(3600),
};

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i / 7 + i * 31) as u8).collect()
}

fn terms(play: Play, size: usize) -> Terms {
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
const REPEATS: Duration = Duration::from_secs(2);

/// How often the server sends to a client that is silent until it [`REPEATS`]: after 100, 200, 400, 800 and 1600 ms.
/// The wait after that, 3200 ms, is longer than the client's.
const TRIES_IN_SILENCE: u64 = 5;

/// Both ends and what is between them.
struct Stage<'a> {
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
fn play(play: Play, fate: &mut dyn FnMut(bool, u64) -> Fate) -> Played {
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

fn losing(lost: &'static [u64]) -> impl FnMut(bool, u64) -> Fate {
    move |to_client, n| {
        if to_client && lost.contains(&n) {
            Fate::Lost
        } else {
            Fate::Arrives
        }
    }
}

fn clean(p: Play) -> Played {
    play(p, &mut |_, _| Fate::Arrives)
}

#[track_caller]
fn assert_done(played: &Played, p: Play) {
    assert_eq!(played.outcome.ended, Ended::Done);
    assert_eq!(played.outcome.bytes_acked, p.size as u64);
    assert!(played.received == content(p.size), "file differs");
}

#[test]
fn clean_transfer_sends_each_unit_once() {
    for window in [1, 4, 16] {
        for options in [true, false] {
            let p = Play {
                window: if options { window } else { 1 },
                options,
                ..PLAY
            };
            let played = clean(p);
            assert_done(&played, p);
            assert_eq!(played.outcome.retransmissions, 0);
            assert_eq!(played.outcome.strays, 0);
            assert_eq!(played.sent, 101 + u64::from(options));
        }
    }
}

#[test]
fn sizes_around_a_block_and_a_window() {
    for size in [0, 1, 63, 64, 65, 255, 256, 257, 4 * 64 * 3] {
        let p = Play { size, ..PLAY };
        assert_done(&clean(p), p);
    }
}

#[test]
fn lost_first_block_of_a_window_costs_a_round_trip() {
    for manner in [Manner::OncePerGap, Manner::Each] {
        let p = Play { manner, ..PLAY };
        // Datagram 0 is the OACK; the third window is 9 to 12.
        let played = play(p, &mut losing(&[9]));
        assert_done(&played, p);
        assert_eq!(played.outcome.retransmissions, 4, "{manner:?}");
        assert_eq!(played.elapsed, clean(p).elapsed + ROUND_TRIP, "{manner:?}");
    }
}

#[test]
fn lost_first_block_of_all_costs_a_round_trip() {
    let played = play(PLAY, &mut losing(&[1]));
    assert_done(&played, PLAY);
    assert_eq!(played.elapsed, clean(PLAY).elapsed + ROUND_TRIP);
}

#[test]
fn lost_middle_block_resends_only_what_follows() {
    for manner in [Manner::OncePerGap, Manner::Each] {
        let p = Play { manner, ..PLAY };
        let played = play(p, &mut losing(&[11]));
        assert_done(&played, p);
        // Blocks 11 and 12 of 9 to 12.
        assert_eq!(played.outcome.retransmissions, 2, "{manner:?}");
        assert!(
            played.elapsed <= clean(p).elapsed + ROUND_TRIP,
            "{manner:?}"
        );
    }
}

#[test]
fn lost_last_block_of_a_window_waits_for_the_measured_round_trip() {
    let played = play(PLAY, &mut losing(&[12]));
    assert_done(&played, PLAY);
    let extra = played.elapsed - clean(PLAY).elapsed;
    assert!(extra <= Patience::default().floor + ROUND_TRIP, "{extra:?}");
    assert_eq!(played.outcome.retransmissions, 4);
}

#[test]
fn block_lost_twice_is_sent_thrice_without_the_long_wait() {
    // 9 is lost, its repetition (13) too; the repeated ACK shortens the wait.
    let p = Play {
        manner: Manner::Each,
        ..PLAY
    };
    let played = play(p, &mut losing(&[9, 13]));
    assert_done(&played, p);
    let extra = played.elapsed - clean(p).elapsed;
    assert!(extra < Duration::from_millis(60), "{extra:?}");
}

#[test]
fn lost_option_ack_is_sent_again() {
    let played = play(PLAY, &mut losing(&[0]));
    assert_done(&played, PLAY);
    assert_eq!(played.outcome.retransmissions, 1);
}

#[test]
fn lost_last_ack_is_repeated_on_the_block() {
    let p = Play { size: 10, ..PLAY };
    // ACK 0 is that of the OACK, 1 that of the only block.
    let played = play(p, &mut |to_client, n| {
        if !to_client && n == 1 {
            Fate::Lost
        } else {
            Fate::Arrives
        }
    });
    assert_done(&played, p);
    assert_eq!(played.outcome.retransmissions, 1);
}

/// The ACK of block 1 is lost, and so is that of its repetition: the client, which answers a gap once, is silent now.
/// To the server that is a network that carries nothing: it doubles its wait from the floor on, until that outlasts
/// [`REPEATS`] and the client speaks. What follows goes once.
#[test]
fn client_that_answers_a_gap_once_is_asked_ever_more_slowly() {
    let p = Play {
        size: 2936,
        block_size: 512,
        window: 1,
        ..PLAY
    };
    let played = play(p, &mut |to_client, n| match (to_client, n) {
        (false, 1 | 2) => Fate::Lost,
        _ => Fate::Arrives,
    });
    assert_done(&played, p);
    let trace: Vec<_> = played
        .trace
        .iter()
        .map(|(at, block)| (at.as_millis(), *block))
        .collect();
    // An OACK has no block number: its next two bytes are the first letters of an option.
    let blocks = &trace[1..];
    let first = [10, 110, 310, 710, 1510, 3110].map(|at| (at, 1));
    // The client last heard block 1 at 3115 and repeats its ACK at 5115.
    let others = [(5120, 2), (5130, 3), (5140, 4), (5150, 5), (5160, 6)];
    assert_eq!(blocks, [&first[..], &others].concat());
    assert_eq!(first.len() as u64 - 1, TRIES_IN_SILENCE);
}

#[test]
fn client_that_runs_the_loader_at_once_is_left_soon() {
    let p = Play {
        leaves: true,
        ..PLAY
    };
    let played = play(p, &mut |_, _| Fate::Arrives);
    assert_eq!(played.outcome.ended, Ended::LastAckMissing);
    assert!(played.received == content(p.size));
    assert!(played.elapsed < Duration::from_secs(7));
    assert!(played.outcome.retransmissions <= 40);
}

#[test]
fn block_numbers_wrap() {
    let p = Play {
        size: 8 * 140_000,
        block_size: 8,
        window: 16,
        ..PLAY
    };
    // Losses around both wraps.
    let played = play(p, &mut losing(&[65_530, 65_537, 65_540, 131_080]));
    assert_done(&played, p);
}

#[test]
fn block_numbers_wrap_in_lock_step() {
    let p = Play {
        size: 8 * 65_540,
        block_size: 8,
        window: 1,
        ..PLAY
    };
    let played = play(p, &mut losing(&[65_535, 65_537]));
    assert_done(&played, p);
}

/// The path becomes slower than the floor of the wait: the first late flight goes twice, not all of them.
#[test]
fn path_that_slows_down_costs_few_repetitions() {
    let jump: fn(Duration) -> Duration = |at| match at {
        at if at < Duration::from_millis(50) => Duration::from_micros(2500),
        _ => Duration::from_millis(75),
    };
    // Half a second in which everything waits, then a path of 20 ms.
    let stall: fn(Duration) -> Duration = |at| match at {
        at if at < Duration::from_millis(50) => Duration::from_micros(2500),
        at => Duration::from_millis(400)
            .saturating_sub(at)
            .max(LATENCY * 2),
    };
    for latency in [jump, stall] {
        for (window, manner) in [
            (1, Manner::Each),
            (4, Manner::Each),
            (4, Manner::OncePerGap),
            (16, Manner::Each),
        ] {
            let p = Play {
                window,
                manner,
                latency,
                size: 400 * 64,
                ..PLAY
            };
            let played = clean(p);
            assert_done(&played, p);
            let again = played.outcome.retransmissions;
            assert!(
                again <= 40,
                "window {window}, {manner:?}: {again} of 400 blocks sent again"
            );
        }
    }
}

/// The long wait ends as soon as an ACK tells that blocks are lost and not late.
#[test]
fn lossy_path_keeps_its_pace() {
    let p = Play {
        window: 16,
        manner: Manner::Each,
        size: 1000 * 64,
        ..PLAY
    };
    // One datagram in ten, either way, at random places.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut fate = |_, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state >> 32 & 1023 {
            ..102 => Fate::Lost,
            _ => Fate::Arrives,
        }
    };
    let played = play(p, &mut fate);
    assert_done(&played, p);
    assert!(
        played.elapsed < Duration::from_secs(30),
        "{:?}",
        played.elapsed
    );
}

#[test]
fn no_sorcerers_apprentice() {
    for window in [1, 2, 4, 16] {
        for manner in [Manner::OncePerGap, Manner::Each] {
            let p = Play {
                window,
                manner,
                ..PLAY
            };
            let once = clean(p).sent;
            // One ACK comes twice: the doubling must die out.
            let mut one = |to_client, n| match (to_client, n) {
                (false, 2) => Fate::Twice,
                _ => Fate::Arrives,
            };
            let played = play(p, &mut one);
            assert_done(&played, p);
            let more = played.sent - once;
            assert!(
                more <= 2 * u64::from(window),
                "window {window}, {manner:?}: {more} more"
            );
            // Every ACK comes twice: in lock-step nothing may be sent again.
            let mut all = |to_client, _| {
                if to_client {
                    Fate::Arrives
                } else {
                    Fate::Twice
                }
            };
            let played = play(p, &mut all);
            assert_done(&played, p);
            let most = if window == 1 { once } else { once * 2 };
            assert!(
                played.sent <= most,
                "window {window}, {manner:?}: {} for {once}",
                played.sent
            );
        }
    }
}

#[test]
fn every_block_twice_does_not_double_again() {
    for window in [1, 4, 16] {
        let p = Play {
            window,
            manner: Manner::Each,
            ..PLAY
        };
        let once = clean(p).sent;
        let mut fate = |to_client, _| {
            if to_client {
                Fate::Twice
            } else {
                Fate::Arrives
            }
        };
        let played = play(p, &mut fate);
        assert_done(&played, p);
        assert!(
            played.sent <= 2 * once,
            "window {window}: {} for {once}",
            played.sent
        );
    }
}

#[test]
fn model_uses_the_default_patience() {
    assert_eq!(PATIENCE, Patience::default());
}

fn started(p: Play) -> (Transfer, Instant) {
    let now = Instant::now();
    let file = content(p.size).into();
    let transfer = Transfer::new(file, terms(p, p.size), Patience::default(), now);
    (transfer, now)
}

fn ack(block: u16) -> Vec<u8> {
    Packet::Ack { block }.to_bytes()
}

#[test]
fn error_from_the_client_ends_it_at_once() {
    let (mut transfer, now) = started(PLAY);
    assert_eq!(transfer.take_pending(), 0..1);
    transfer.on_datagram(b"\0\x05\0\x08User aborted the transfer\0", now + LATENCY);
    let outcome = transfer.outcome().unwrap();
    assert_eq!(
        outcome.ended,
        Ended::ClientError {
            code: ErrorCode::OptionsRefused,
            message: "User aborted the transfer".into()
        }
    );
    assert!(outcome.is_size_probe());
    assert_eq!(outcome.elapsed, LATENCY);
    assert!(transfer.take_pending().is_empty());
    transfer.on_datagram(&ack(0), now + ROUND_TRIP);
    transfer.on_deadline(now + Duration::from_secs(60));
    assert!(transfer.take_pending().is_empty());
}

#[test]
fn silent_client_is_given_up_within_thirty_seconds() {
    let (mut transfer, start) = started(PLAY);
    let mut tries = 0;
    while transfer.outcome().is_none() {
        tries += u32::from(!transfer.take_pending().is_empty());
        let deadline = transfer.deadline();
        assert!(deadline <= start + Duration::from_secs(30));
        transfer.on_deadline(deadline);
    }
    let outcome = transfer.outcome().unwrap();
    assert_eq!(outcome.ended, Ended::GaveUp);
    assert_eq!(outcome.elapsed, Duration::from_secs(30));
    assert!((8..=14).contains(&tries), "{tries}");
}

#[test]
fn clients_timeout_bounds_every_wait() {
    let asked = Options {
        timeout: Some(1),
        ..Options::default()
    };
    let terms = Terms::agree(&asked, Ceiling::default(), 5);
    let start = Instant::now();
    let mut transfer = Transfer::new(
        Bytes::from_static(b"hello"),
        terms,
        Patience::default(),
        start,
    );
    let mut last = start;
    while transfer.outcome().is_none() {
        let deadline = transfer.deadline();
        assert!(deadline <= last + Duration::from_secs(1));
        transfer.on_deadline(deadline);
        last = deadline;
    }
}

#[test]
fn round_trip_is_measured_and_backs_off() {
    let (mut transfer, start) = started(PLAY);
    transfer.take_pending();
    let now = start + Duration::from_millis(200);
    transfer.on_datagram(&ack(0), now);
    assert_eq!(transfer.take_pending(), 1..5);
    // SRTT 200 ms, RTTVAR 100 ms.
    assert_eq!(transfer.deadline(), now + Duration::from_millis(600));
    let now = transfer.deadline();
    transfer.on_deadline(now);
    assert_eq!(transfer.take_pending(), 1..5);
    assert_eq!(transfer.deadline(), now + Duration::from_millis(1200));
}

#[test]
fn slow_dripping_client_is_ended() {
    let p = Play {
        size: 8 * 1000,
        block_size: 8,
        window: 1,
        ..PLAY
    };
    let (mut transfer, mut now) = started(p);
    for block in 0..1000 {
        now += Duration::from_secs(25);
        transfer.take_pending();
        transfer.on_datagram(&ack(block), now);
    }
    let outcome = transfer.outcome().unwrap();
    assert_eq!(outcome.ended, Ended::Overdue);
    assert!(outcome.elapsed < Patience::default().lifetime + Duration::from_secs(30));
}

#[test]
fn repeated_request_gets_the_first_answer_again_but_only_at_first() {
    let (mut transfer, now) = started(PLAY);
    transfer.take_pending();
    transfer.on_request_again(now);
    assert_eq!(transfer.take_pending(), 0..1);
    transfer.on_datagram(&ack(0), now);
    transfer.take_pending();
    transfer.on_request_again(now);
    assert!(transfer.take_pending().is_empty());
}

#[test]
fn old_and_future_acks_are_counted_and_left() {
    let (mut transfer, now) = started(PLAY);
    transfer.take_pending();
    for block in [1, 2, 5, 32768, 65534] {
        transfer.on_datagram(&ack(block), now);
    }
    transfer.on_datagram(b"\0\x03\0\x01data", now);
    transfer.on_datagram(b"junk", now);
    assert!(transfer.take_pending().is_empty());
    assert_eq!(transfer.progress(), 0);
    transfer.end(Ended::Shutdown, now);
    assert_eq!(transfer.outcome().unwrap().strays, 7);
}

/// The most windows that `faults` of the network may cost.
///
/// A fault makes the server send one window again at once (an ACK tells of a gap, or comes twice), one at the end of
/// its wait (nothing comes), or both. In lock-step only the wait does so, hence one.
///
/// A client that answers a gap only once may be silenced besides. For that, the ACK of a whole window must be lost, and
/// so must be that of its repetition; every later loss of an ACK then waits for the client's own timer. No server can
/// tell such a client from a dead network: it doubles its wait (RFC 6298 section 5.5) and sends [`TRIES_IN_SILENCE`]
/// times until that outlasts the client's. The first of these windows answers the first loss, so two faults cost five.
fn most_windows_resent(p: &Play, faults: u64) -> u64 {
    let each = if p.window == 1 { 1 } else { 2 };
    match p.manner {
        Manner::Each => each * faults,
        Manner::OncePerGap => TRIES_IN_SILENCE * (faults / 2) + each * (faults % 2),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever finitely many losses and copies the network makes, the file arrives whole, and they cost
    /// [`most_windows_resent`] at most.
    #[test]
    fn finitely_many_losses_end_in_the_whole_file(
        size in 0_usize..6000,
        block_size in prop_oneof![Just(8_u16), Just(64), Just(512), Just(1468)],
        window in 1_u16..=16,
        options: bool,
        each: bool,
        to_client in proptest::collection::vec(0_u8..6, 0..120),
        to_server in proptest::collection::vec(0_u8..6, 0..60),
    ) {
        let p = Play {
            size,
            block_size,
            window: if options { window } else { 1 },
            manner: if each { Manner::Each } else { Manner::OncePerGap },
            options,
            leaves: false,
            // The network may be dead for minutes here.
            patience: Patience {
                stalled: Duration::from_secs(3600),
                last_ack: Duration::from_secs(3600),
                lifetime: Duration::from_secs(36_000),
                ..PATIENCE
            },
            ..PLAY
        };
        let mut faults = 0;
        let mut fate = |client, n: u64| {
            let list = if client { &to_client } else { &to_server };
            let fate = match list.get(n as usize) {
                Some(0 | 1) => Fate::Lost,
                Some(2) => Fate::Twice,
                _ => Fate::Arrives,
            };
            faults += u64::from(fate != Fate::Arrives);
            fate
        };
        let played = play(p, &mut fate);
        prop_assert!(played.received == content(size), "{:?}", played.outcome);
        prop_assert_eq!(played.outcome.ended, Ended::Done);
        let units = size as u64 / u64::from(block_size) + 2;
        let most = units + u64::from(p.window) * most_windows_resent(&p, faults);
        prop_assert!(played.sent <= most, "{} sent, {} units, {} faults", played.sent, units, faults);
    }

    /// Whatever a client sends and whenever, nothing panics and the transfer ends.
    #[test]
    fn any_packets_at_any_time_end(
        steps in proptest::collection::vec((0_u64..3000, 0_u8..4, any::<u16>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..300),
        window in 1_u16..=16,
    ) {
        let (mut transfer, mut now) = started(Play { window, ..PLAY });
        for (wait, kind, number, junk) in steps {
            for unit in transfer.take_pending() {
                let _ = transfer.datagram(unit);
            }
            now += Duration::from_millis(wait);
            match kind {
                0 => transfer.on_datagram(&ack(number), now),
                1 => transfer.on_datagram(&ack((transfer.progress() as u16).wrapping_add(number % 18).wrapping_sub(1)), now),
                2 => transfer.on_datagram(&junk, now),
                _ => transfer.on_deadline(now),
            }
            prop_assert!(transfer.take_pending().count() <= usize::from(window));
        }
        transfer.on_deadline(now + Duration::from_secs(60));
        prop_assert!(transfer.outcome().is_some());
    }
}

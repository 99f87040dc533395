//! The server's end alone: each packet and deadline by hand.

use proptest::prelude::*;

use super::super::*;
use super::model::{LATENCY, PLAY, Play, ROUND_TRIP, content, terms};
use crate::tftp::negotiate::Ceiling;
use crate::wire::tftp::{ErrorCode, Options};

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

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

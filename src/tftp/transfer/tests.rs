//! A transfer against a model receiver over a model network, in model time.

mod alone;
mod model;

use proptest::prelude::*;

use super::*;
use model::{
    Fate, LATENCY, Manner, PATIENCE, PLAY, Play, ROUND_TRIP, TRIES_IN_SILENCE, assert_done, clean,
    content, losing, play,
};

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
}

//! The wall clock under the timeline.
//!
//! Somebody sets it, or NTP does an hour after the start: then every boot under way would be late, or none for an hour,
//! and the log out of order. So a step is noticed (`CLOCK_BOOTTIME` makes none), told, and what happened since the start
//! is told by the new time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

use crate::policy::event::{BootEvent, ClockSet, MachineId, Stage, StageState};
use crate::span::span;

/// A smaller step changes nothing that anybody sees, milliseconds.
const LEAST_MS: i64 = 2_000;

/// A clock that is set so soon after the start was wrong since then, seconds. Later it was wrong for a while, or the
/// machine was saved and woke up: what is long past was told rightly.
const EARLY_S: u64 = 7200;
/// So much of what happened before a later step is told by the new time, seconds: boots that are under way.
const LATELY_S: i64 = 3600;

/// What the wall clock was before.
#[derive(Debug)]
pub(super) struct WallClock {
    /// When the daemon started, by the wall clock as it is now.
    started: Timestamp,
    /// The system's uptime then.
    started_up: Duration,
    /// How far the wall clock was ahead of the system's uptime at the last look, milliseconds.
    ahead_ms: i64,
}

impl WallClock {
    pub(super) fn start() -> Self {
        let (wall, up) = now();
        Self::at(wall, up)
    }

    fn at(wall: Timestamp, up: Duration) -> Self {
        Self {
            started: wall,
            started_up: up,
            ahead_ms: ahead(wall, up),
        }
    }

    /// Whether it was set since the last look. What NTP does by and by is none.
    pub(super) fn look(&mut self) -> Option<ClockSet> {
        let (wall, up) = now();
        self.look_at(wall, up)
    }

    fn look_at(&mut self, wall: Timestamp, up: Duration) -> Option<ClockSet> {
        let ahead = ahead(wall, up);
        let ms = ahead.saturating_sub(self.ahead_ms);
        self.ahead_ms = ahead;
        if ms.saturating_abs() < LEAST_MS {
            return None;
        }
        let by = SignedDuration::from_millis(ms);
        let until = wall.checked_sub(by).ok()?;
        let lately = until
            .checked_sub(SignedDuration::from_secs(LATELY_S))
            .ok()?;
        let since = match up.saturating_sub(self.started_up).as_secs() < EARLY_S {
            true => self.started,
            false => lately.max(self.started),
        };
        let set = ClockSet { since, until, ms };
        self.started = self.started.checked_add(by).unwrap_or(wall);
        Some(set)
    }
}

fn ahead(wall: Timestamp, up: Duration) -> i64 {
    let up = i64::try_from(up.as_millis()).unwrap_or(i64::MAX);
    wall.as_millisecond().saturating_sub(up)
}

/// Both at one moment, or nearly: who is stopped in between looks again.
fn now() -> (Timestamp, Duration) {
    const TOGETHER: Duration = Duration::from_millis(100);
    let mut before = uptime();
    for _ in 0..5 {
        let (wall, after) = (Timestamp::now(), uptime());
        if after.saturating_sub(before) < TOGETHER {
            return (wall, after);
        }
        before = after;
    }
    (Timestamp::now(), uptime())
}

fn uptime() -> Duration {
    // It has no way to fail: the clock exists since Linux 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// What is told of it, among what belongs to nobody.
pub(super) fn event(set: ClockSet, now: Timestamp) -> BootEvent {
    let way = if set.ms < 0 { "back" } else { "ahead" };
    let by = span(set.ms.saturating_abs().saturating_add(500) / 1000);
    let message = format!(
        "the clock of this machine was set {way} by {by}: boots that are under way are told by the new time"
    );
    let state = StageState::Info;
    let mut event = BootEvent::sent(now, MachineId::wire(), Stage::Dhcp, state, message);
    event.clock = Some(set);
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn up(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_step_is_noticed_and_what_goes_by_itself_is_none() {
        let mut clock = WallClock::at(at(10_000), up(50));
        assert_eq!(clock.look_at(at(10_060), up(110)), None);
        // A second in an hour is slewed.
        assert_eq!(clock.look_at(at(13_661), up(3_710)), None);
        let back = clock.look_at(at(10_071), up(3_720)).unwrap();
        assert_eq!(
            (back.since, back.until, back.ms),
            (at(10_000), at(13_671), -3_600_000)
        );
        // It is noticed once; what the start was is told by the new time.
        assert_eq!(clock.look_at(at(10_081), up(3_730)), None);
        let ahead = clock.look_at(at(10_691), up(3_740)).unwrap();
        assert_eq!(
            (ahead.since, ahead.until, ahead.ms),
            (at(6_400), at(10_091), 600_000)
        );
        // Weeks later what is long past was told rightly.
        let late = clock.look_at(at(2_000_000), up(1_000_000)).unwrap();
        assert_eq!(late.until.as_second() - late.since.as_second(), LATELY_S);
        let told = event(back, at(10_071)).message;
        assert!(
            told.starts_with("the clock of this machine was set back by 1h00m:"),
            "{told}"
        );
    }
}

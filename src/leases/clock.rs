//! The clock by which leases run out.
//!
//! Clients count a lease's seconds; the wall clock of a server jumps (no battery, NTP, a
//! hand). So the lease clock reads the wall once, and goes on by `CLOCK_BOOTTIME`: a jump
//! under way touches no lease. The journal holds marks of it, so that after a restart
//! - in the same boot of the system it goes on where it would be, whatever the wall says,
//! - in another boot it never stands before its last mark: with a wall clock that was set
//!   back, leases live on for what was left of them, and not for years.
//!
//! What cannot be told from a long outage is a wall clock that jumped ahead over a reboot:
//! then leases count as run out, and their addresses are probed before they are given.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What the system's clocks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since the system booted, suspended or not.
    pub up: Duration,
    /// The boot.
    pub boot: String,
}

impl Reading {
    pub(super) fn now() -> Self {
        // Without /proc every start counts as another boot.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            wall: Timestamp::now(),
            up: uptime(),
            boot: boot.unwrap_or_default().trim().to_owned(),
        }
    }
}

fn uptime() -> Duration {
    // It has no way to fail: the clock exists since Linux 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// What the lease clock said once; the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The lease clock.
    pub at: Timestamp,
    /// The system's uptime then, milliseconds.
    pub up_ms: u64,
    /// Which boot of the system.
    pub boot: String,
}

/// The clock of the leases.
#[derive(Debug, Clone)]
pub struct LeaseClock {
    started: Timestamp,
    up: Duration,
    boot: String,
}

impl LeaseClock {
    /// Goes on from the journal's last mark.
    pub(super) fn start(reading: Reading, last: Option<&Mark>) -> Self {
        Self {
            started: resume(&reading, last),
            up: reading.up,
            boot: reading.boot,
        }
    }

    /// What time it is for leases.
    pub fn now(&self) -> Timestamp {
        self.at(uptime())
    }

    fn at(&self, up: Duration) -> Timestamp {
        let passed = up.saturating_sub(self.up);
        self.started
            .saturating_add(passed)
            .unwrap_or(Timestamp::MAX)
    }

    pub(super) fn mark(&self) -> Mark {
        let up = uptime();
        Mark {
            at: self.at(up),
            up_ms: u64::try_from(up.as_millis()).unwrap_or(u64::MAX),
            boot: self.boot.clone(),
        }
    }
}

fn resume(reading: &Reading, last: Option<&Mark>) -> Timestamp {
    let Some(last) = last else {
        return reading.wall;
    };
    let passed = reading.up.checked_sub(Duration::from_millis(last.up_ms));
    match passed.filter(|_| !last.boot.is_empty() && last.boot == reading.boot) {
        Some(passed) => last.at.saturating_add(passed).unwrap_or(Timestamp::MAX),
        None => reading.wall.max(last.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn reading(wall: i64, up: u64, boot: &str) -> Reading {
        Reading {
            wall: at(wall),
            up: Duration::from_secs(up),
            boot: boot.into(),
        }
    }

    #[test]
    fn the_wall_clock_decides_only_where_nothing_else_is_known() {
        let last = Mark {
            at: at(10_000),
            up_ms: 500_000,
            boot: "a".into(),
        };
        // 60 s later in the same boot: whatever the wall says, 60 s have passed.
        for wall in [0, 10_060, 1_000_000_000] {
            assert_eq!(resume(&reading(wall, 560, "a"), Some(&last)), at(10_060));
        }
        // Another boot: the wall is believed, but not when it stands before the mark.
        assert_eq!(resume(&reading(20_000, 5, "b"), Some(&last)), at(20_000));
        assert_eq!(resume(&reading(0, 5, "b"), Some(&last)), at(10_000));
        assert_eq!(resume(&reading(77, 5, "b"), None), at(77));
    }

    #[test]
    fn it_never_goes_back() {
        let clock = LeaseClock::start(reading(1000, 50, "a"), None);
        assert_eq!(clock.at(Duration::from_secs(40)), at(1000));
        assert_eq!(clock.at(Duration::from_secs(51)), at(1001));
    }
}

//! A file on its way: its end is an event, and what is between is no silence.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::policy::event::Stage;

/// A client that takes nothing for so long is stuck, seconds.
pub const PATIENCE_S: i64 = 60;

/// A file that a machine fetches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moving {
    /// Below the data directory.
    pub file: String,
    /// What it is for.
    pub stage: Stage,
    /// When it began.
    pub began: Timestamp,
    /// When the machine last took some of it.
    pub at: Timestamp,
    /// So much it has, bytes.
    pub taken: u64,
    /// Of so much, bytes.
    pub total: u64,
}

impl Moving {
    /// Whether the machine takes it at `now`.
    pub fn goes_on(&self, now: Timestamp) -> bool {
        now.as_second() - self.at.as_second() <= PATIENCE_S
    }

    /// When it counts as stuck, if nothing more of it is taken.
    pub fn deadline(&self) -> Option<Timestamp> {
        let patience = SignedDuration::from_secs(PATIENCE_S);
        self.at.checked_add(patience).ok()
    }

    /// `initrds/default.img: 24 of 57 MiB, 0.5 MiB/s`.
    pub fn words(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let seconds = self.at.duration_since(self.began).as_secs_f64();
        let rate = mib(self.taken) / seconds.max(1.0);
        format!(
            "{}: {:.1} of {:.1} MiB, {rate:.2} MiB/s",
            self.file,
            mib(self.taken),
            mib(self.total)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_it_is_and_when_it_stands_still() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let moving = Moving {
            file: "initrds/default.img".into(),
            stage: Stage::Initrd,
            began: at(100),
            at: at(148),
            taken: 24 << 20,
            total: 57 << 20,
        };
        assert_eq!(
            moving.words(),
            "initrds/default.img: 24.0 of 57.0 MiB, 0.50 MiB/s"
        );
        assert_eq!(moving.deadline(), Some(at(148 + PATIENCE_S)));
        assert!(moving.goes_on(at(148 + PATIENCE_S)));
        assert!(!moving.goes_on(at(149 + PATIENCE_S)));
    }
}

//! How a machine stands at a time, by what was heard of it.

use jiff::Timestamp;
use serde::Serialize;

use crate::policy::attempt::Attempt;
use crate::policy::event::{BootEvent, Stage, StageState};
use crate::policy::progress::Machine;

/// So long a machine may ask for addresses before it comes for something else, seconds.
const ASKS_ON_S: i64 = 2 * Stage::Dhcp.patience_s();
/// A boot of which nothing is heard for so long was switched off, whatever its stage, seconds: the longest patience of
/// one is four minutes, and who waits at a menu gets a new script when somebody chooses.
const DEAD_S: i64 = 3600;
/// After so many boots that ended alike one is stuck, and was not just switched off.
const LOOP: usize = 2;

/// How an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Nothing is known yet.
    Unseen,
    /// It asked, and got no answer.
    Refused,
    /// On its way.
    Running,
    /// Joined.
    Done,
    /// It runs what does not report: its local disk, or a memory test.
    Away,
    /// Joined, but something is not as it should be.
    Degraded,
    /// A stage failed for good.
    Failed,
    /// Silent for longer than its stage may take.
    Stalled,
}

impl Standing {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::Unseen,
        Self::Refused,
        Self::Running,
        Self::Done,
        Self::Away,
        Self::Degraded,
        Self::Failed,
        Self::Stalled,
    ];

    /// `3 hosts: 1 stalled, 2 done`, worst first; `part` has the words of those who stand so, if any do.
    pub fn sum(hosts: usize, part: impl FnMut(Self) -> Option<String>) -> String {
        let parts: Vec<_> = Self::ALL.iter().rev().copied().filter_map(part).collect();
        let hosts = match hosts {
            1 => "1 host".to_owned(),
            _ => format!("{hosts} hosts"),
        };
        format!("{hosts}: {}", parts.join(", "))
    }

    /// The word in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Refused => "refused",
            Self::Running => "running",
            Self::Done => "done",
            Self::Away => "away",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Stalled => "stalled",
        }
    }

    /// Whether somebody should look at the machine.
    pub const fn needs_a_look(self) -> bool {
        matches!(
            self,
            Self::Stalled | Self::Failed | Self::Degraded | Self::Refused
        )
    }
}

impl Machine {
    /// How the machine stands at `now`.
    pub fn standing(&self, now: Timestamp) -> Standing {
        let Some(attempt) = self.attempt() else {
            return match self.refusal() {
                Some(_) => Standing::Refused,
                None => Standing::Unseen,
            };
        };
        match attempt.current() {
            Some(event) if event.state == StageState::Fail => Standing::Failed,
            Some(event) if event.state == StageState::Degraded => Standing::Degraded,
            _ if attempt.joined.is_some() => Standing::Done,
            _ if attempt.is_away() => Standing::Away,
            _ if attempt.fetches(now).is_some() => Standing::Running,
            Some(event) if is_silent(event, now) => Standing::Stalled,
            _ if asks_on(attempt, now) || self.fruitless() >= LOOP => Standing::Stalled,
            _ => Standing::Running,
        }
    }

    /// Attempts that go on, whose machine keeps what it began with: the newest, or one that a forged DISCOVER hides.
    /// What failed, or joined, is over for this: it tries on with what the operator has mended. So is what is dead.
    pub fn under_way(&self, now: Timestamp) -> impl Iterator<Item = &Attempt> {
        let goes_on = matches!(self.standing(now), Standing::Running | Standing::Stalled);
        let open = move |attempt: &&Attempt| {
            let dead = now.as_second() - attempt.went_on().as_second() > DEAD_S;
            goes_on && attempt.joined.is_none() && !attempt.failed && !dead
        };
        self.believable().filter(open)
    }

    /// How many boots in a row, the newest not counted, ended without a word where the newest is, or later: each began
    /// anew before its stage's time was up, and so none was ever silent for long.
    pub fn fruitless(&self) -> usize {
        let mut newest_first = self.attempts.iter().rev();
        let stage = |attempt: &Attempt| {
            let current = attempt.current()?;
            let waits = current.stage.patience_s() == 0;
            let silent = !attempt.claimed && !attempt.failed && attempt.reports() && !waits;
            (silent && current.state != StageState::Fail).then_some(current.stage)
        };
        let Some(now) = newest_first.next().and_then(stage) else {
            return 0;
        };
        let mut before = newest_first.map(stage);
        let Some(Some(end)) = before.next() else {
            return 0;
        };
        if now > end {
            return 0;
        }
        1 + before.take_while(|stage| *stage == Some(end)).count()
    }
}

/// Whether it asks for an address again and again and comes no further: firmware begins anew before its silence is long.
fn asks_on(attempt: &Attempt, now: Timestamp) -> bool {
    let newest = attempt.events.iter().rev();
    let asked = newest.filter(|event| event.state != StageState::Info);
    let first = asked.take_while(|event| event.stage == Stage::Dhcp).last();
    first
        .is_some_and(|first| now.as_second() - first.at.as_second() > ASKS_ON_S && !attempt.claimed)
}

/// Whether nothing came for longer than the event's stage may take; the clock may have jumped.
pub(super) fn is_silent(event: &BootEvent, now: Timestamp) -> bool {
    let patience = event.stage.patience_s();
    patience > 0 && now.as_second() - event.at.as_second() > patience
}

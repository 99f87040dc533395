//! One boot: what happened in it, and where it is.

use std::collections::{BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::inventory::model::MacAddr;
use crate::policy::client::Asker;
use crate::policy::event::{
    AttemptId, BootEvent, Choice, ClockSet, Evidence, MachineId, Stage, StageState,
};
use crate::policy::moving::Moving;

/// For so long a report that is no host's own counts, seconds.
const DOUBLE_S: i64 = 120;

/// So many of them are no accident.
const DOUBLED: usize = 3;

/// One boot, from the firmware's first DISCOVER on.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// When it began.
    pub began: Timestamp,
    /// After how many others, of whatever machine: clocks are set back.
    #[serde(skip)]
    pub order: u64,
    /// What happened, oldest first; the first ones go where there are too many.
    pub events: VecDeque<BootEvent>,
    /// The host has shown its report token: the boot token is spent.
    pub claimed: bool,
    /// What the machine took out of its menu, if it has one.
    pub choice: Option<Choice>,
    /// When the host was accepted as joined.
    pub joined: Option<Timestamp>,
    /// Something of it failed; the host may go on for all that.
    pub failed: bool,
    /// What the newest known failure in its last words means.
    pub hint: Option<String>,
    /// The file that it fetches, if it has taken long, or stopped on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
}

impl Attempt {
    pub(super) fn new(id: AttemptId, began: Timestamp) -> Self {
        Self {
            id,
            began,
            order: 0,
            events: VecDeque::new(),
            claimed: false,
            choice: None,
            joined: None,
            failed: false,
            hint: None,
            moving: None,
        }
    }

    /// Tells what happened by the time that the clock was set to.
    pub(super) fn clock_set(&mut self, set: &ClockSet) {
        set.mend(&mut self.began);
        self.joined.iter_mut().for_each(|at| set.mend(at));
        self.events
            .iter_mut()
            .for_each(|event| set.mend(&mut event.at));
        if let Some(moving) = &mut self.moving {
            set.mend(&mut moving.began);
            set.mend(&mut moving.at);
        }
    }

    /// Notes what an event says of the host's last words. Once it has spoken for itself its loader's are past, and
    /// what anybody can forge is no hint any more.
    pub(super) fn hear(&mut self, event: &BootEvent) {
        if !self.claimed && speaks_for_itself(event) {
            self.claimed = true;
            self.hint = None;
        }
        let heard = !self.claimed || event.evidence != Evidence::Unproven;
        if let Some(hint) = event.hint.as_ref().filter(|_| heard) {
            self.hint = Some(hint.clone());
        }
        let moves = !matches!(event.state, StageState::Ignored | StageState::Info);
        if heard && moves {
            self.moving = None;
        }
    }

    /// The file that the machine fetches at `now`.
    pub fn fetches(&self, now: Timestamp) -> Option<&Moving> {
        self.moving.as_ref().filter(|moving| moving.goes_on(now))
    }

    /// When it was last seen to go on.
    pub fn went_on(&self) -> Timestamp {
        let event = self.current().map_or(self.began, |event| event.at);
        let moving = self.moving.as_ref().map(|moving| moving.at);
        moving.map_or(event, |at| at.max(event))
    }

    /// When an event happened. What the initrd reports before it has an address arrives
    /// together, later; the host's own uptime tells when each of it was.
    pub fn time_of(&self, event: &BootEvent) -> Timestamp {
        let powered_on = |event: &BootEvent| {
            let uptime = SignedDuration::from_millis(i64::try_from(event.uptime_ms?).ok()?);
            event.at.checked_sub(uptime).ok()
        };
        // The report that was under way for the shortest time knows best.
        let kernel_began = self.events.iter().filter_map(powered_on).min();
        let told = kernel_began
            .zip(event.uptime_ms)
            .and_then(|(began, uptime)| {
                let uptime = SignedDuration::from_millis(i64::try_from(uptime).ok()?);
                began.checked_add(uptime).ok()
            });
        told.unwrap_or(event.at)
    }

    /// How long each stage took that is done, `last` included: from the end of the stage before it.
    pub fn stages_took(&self, last: &BootEvent) -> Vec<(Stage, SignedDuration)> {
        let mut done: Vec<(Timestamp, Stage)> = Vec::new();
        let events = self.events.iter().chain([last]);
        for event in events.filter(|event| event.state == StageState::Ok) {
            // An iPXE asks for an address again, and a loader for its script.
            if done.iter().all(|(_, stage)| *stage != event.stage) {
                done.push((self.time_of(event), event.stage));
            }
        }
        done.sort_unstable();
        let mut before = self.began;
        let took = done.into_iter().map(|(at, stage)| {
            let took = at.duration_since(before).max(SignedDuration::ZERO);
            before = before.max(at);
            (stage, took)
        });
        took.collect()
    }

    /// The newest event that moved the boot on. What we refused or ignored does not,
    /// and once the host speaks for itself, nothing else does: anybody on the wire can
    /// send a DISCOVER in its name. The system on a local disk sends its own.
    pub fn current(&self) -> Option<&BootEvent> {
        let moves = |event: &&BootEvent| {
            !matches!(event.state, StageState::Ignored | StageState::Info)
                && (!self.claimed || event.evidence == Evidence::Reported)
                && (self.reports() || event.stage != Stage::Dhcp)
        };
        self.events.iter().rev().find(moves)
    }

    /// Whether reports came lately in this host's name that are not its own, once it speaks for itself: a second machine
    /// with its MAC has the same address.
    pub fn is_doubled(&self, now: Timestamp) -> bool {
        let lately = |event: &&BootEvent| now.as_second() - event.at.as_second() <= DOUBLE_S;
        let newest = self.events.iter().rev().take_while(lately);
        let strange = |event: &&BootEvent| {
            event.state == StageState::Ignored && event.stage >= Stage::Early && self.claimed
        };
        newest.filter(strange).count() >= DOUBLED
    }

    /// The events without which it would be forgotten: how it began, what was chosen, when the host first spoke for
    /// itself and joined, and where it is.
    pub(super) fn essence(&self) -> Vec<BootEvent> {
        let events = &self.events;
        let current = self.current();
        let is_current =
            |event: &BootEvent| current.is_some_and(|known| std::ptr::eq(known, event));
        let picked: BTreeSet<usize> = [
            events.iter().rposition(|event| event.choice.is_some()),
            events.iter().position(is_reported),
            events.iter().position(speaks_for_itself),
            events.iter().position(is_joined),
            events.iter().rposition(|event| event.hint.is_some()),
            events.iter().position(is_current),
        ]
        .into_iter()
        .flatten()
        .collect();
        let Some(machine) = events.front().map(|event| event.machine.clone()) else {
            return Vec::new();
        };
        let begun = events.iter().find(|event| event.begins.is_some());
        // The first events go where there are too many.
        let begun = begun.cloned().unwrap_or_else(|| {
            let message = "the boot began".to_owned();
            let mut event =
                BootEvent::sent(self.began, machine, Stage::Dhcp, StageState::Info, message);
            event.begins = Some(self.id.clone());
            event
        });
        let later = picked.into_iter().map(|index| &events[index]);
        let later = later.filter(|event| event.begins.is_none());
        let pushed_out = self.pushed_out(&begun.machine);
        let first = std::iter::once(begun).chain(pushed_out);
        first.chain(later.cloned()).collect()
    }

    /// In the place of the event by which it joined, or first spoke for itself, where others came in too many.
    fn pushed_out(&self, machine: &MachineId) -> Option<BootEvent> {
        let joined = self.joined.filter(|_| !self.events.iter().any(is_joined));
        let claimed = self.claimed && !self.events.iter().any(speaks_for_itself);
        let (at, state, message) = match joined {
            Some(at) => (at, StageState::Ok, "it joined"),
            None if claimed => (self.began, StageState::Info, "it spoke for itself"),
            None => return None,
        };
        let machine = machine.clone();
        let mut event = BootEvent::sent(at, machine, Stage::Joined, state, message.to_owned());
        event.evidence = Evidence::Reported;
        event.attempt = Some(self.id.clone());
        Some(event)
    }

    /// Whether what the machine boots will tell how it goes on.
    pub(super) fn reports(&self) -> bool {
        self.choice.as_ref().is_none_or(|choice| choice.reports)
    }

    /// Which NIC, and which program, asked first.
    pub(super) fn first_asker(&self) -> Option<(MacAddr, Asker)> {
        let first = self.events.iter().find(|event| event.begins.is_some())?;
        Some((first.mac?, first.begun_by?))
    }

    /// Whether it has left for what never reports.
    pub(super) fn is_away(&self) -> bool {
        let left = |event: &BootEvent| {
            matches!(event.stage, Stage::LocalDisk | Stage::Kernel) && event.state == StageState::Ok
        };
        !self.reports() && self.current().is_some_and(left)
    }
}

fn is_reported(event: &BootEvent) -> bool {
    event.evidence == Evidence::Reported
}

/// A host reports beyond its configuration with what came in it.
pub(super) fn speaks_for_itself(event: &BootEvent) -> bool {
    is_reported(event) && event.stage > Stage::Config
}

fn is_joined(event: &BootEvent) -> bool {
    event.stage == Stage::Joined && event.state == StageState::Ok
}

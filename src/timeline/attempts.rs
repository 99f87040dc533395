//! Which boot attempt a machine is in: begun by what its firmware asks, or by the first that is heard of it.

use jiff::Timestamp;
use uuid::Uuid;

use super::Timeline;
use crate::policy::client::Asker;
use crate::policy::event::{AttemptId, BootEvent, MachineId, Stage, StageState};
use crate::policy::progress::Machine;

impl Timeline {
    /// Takes a DISCOVER's event in, which begins a boot attempt where the machine was just
    /// switched on.
    pub fn record_asking(&self, mut event: BootEvent, asker: Asker) {
        let begins = {
            let inner = self.lock();
            let machine = inner.machines.get(&event.machine);
            machine.map_or(asker != Asker::Other, |m| m.begins_attempt(asker, event.at))
        };
        if begins {
            event.begun_by = Some(asker);
            event.begins = Some(new_attempt(event.at));
        }
        self.record(event);
    }

    /// The newest attempt of a machine, begun now if there is none: the daemon's state
    /// may have been lost while the machine was booting.
    pub fn attempt(&self, machine: &MachineId, now: Timestamp) -> AttemptId {
        self.attempt_where(machine, now, |_| true)
    }

    /// The same for a loader's question on a network where nobody sees DISCOVERs (`dhcp: off`): it is the first that
    /// is heard of a boot.
    pub fn attempt_unseen(&self, machine: &MachineId, now: Timestamp) -> AttemptId {
        self.attempt_where(machine, now, |known| !known.is_over(now))
    }

    /// The attempt in which a machine goes on from `former`, one of `of` that nobody had listed: the newest, if it is
    /// no older than that (whatever the clock says), else one that begins now. None where that attempt's token is spent: the host has come up
    /// since, and whoever shows the former one's has read it there.
    pub fn attempt_following(
        &self,
        machine: &MachineId,
        (of, former): (&MachineId, &AttemptId),
        now: Timestamp,
    ) -> Option<AttemptId> {
        let inner = self.lock();
        let mut formers = inner.machines.get(of)?.attempts.iter();
        let since = formers.find(|known| known.id == *former)?.order;
        let newest = inner.machines.get(machine).and_then(Machine::attempt);
        let follows = newest.filter(|newest| newest.order > since);
        if follows.is_some_and(|newest| newest.claimed) {
            return None;
        }
        let goes_on = follows.is_some();
        drop(inner);
        Some(self.attempt_where(machine, now, |_| goes_on))
    }

    fn attempt_where(
        &self,
        machine: &MachineId,
        now: Timestamp,
        goes_on: impl FnOnce(&Machine) -> bool,
    ) -> AttemptId {
        let known = {
            let inner = self.lock();
            let known = inner.machines.get(machine).filter(|known| goes_on(known));
            known
                .and_then(Machine::attempt)
                .map(|attempt| attempt.id.clone())
        };
        known.unwrap_or_else(|| {
            let id = new_attempt(now);
            let message = "seen for the first time in this boot".to_owned();
            let mut event =
                BootEvent::sent(now, machine.clone(), Stage::Dhcp, StageState::Info, message);
            event.begins = Some(id.clone());
            self.record(event);
            id
        })
    }
}

fn new_attempt(at: Timestamp) -> AttemptId {
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    let nanos = u32::try_from(at.subsec_nanosecond()).unwrap_or(0);
    let stamp = uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos);
    AttemptId(Uuid::new_v7(stamp).simple().to_string())
}

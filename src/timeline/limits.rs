//! What anybody on the wire can cause is kept in bounds: per second, and per boot.

use jiff::Timestamp;

use super::Inner;
use crate::policy::event::{BootEvent, MachineId};
use crate::policy::progress::Machine;

/// Events that anybody on the wire can cause, kept per second; a flood is counted instead.
pub(super) const IGNORED_PER_SECOND: u32 = 20;
/// Events of machines that are not listed, on disk per second; the rest is in memory alone. Whoever invents machines
/// must not push the story of the listed hosts, which their tokens hang on, out of the log.
pub(super) const UNLISTED_PER_SECOND: u32 = 50;
/// So many of them every boot of a listed host may have besides: a thousand hosts that power on together are no flood,
/// and the story of each is to be whole.
pub(super) const IGNORED_PER_BOOT: usize = 20;

/// What was counted in this second.
#[derive(Debug, Default)]
pub(super) struct Second {
    at: i64,
    ignored: u32,
    unlisted: u32,
}

impl Inner {
    /// Whether a listed host's boot may have one more of the events that anybody can cause.
    pub(super) fn has_room(&self, machine: &MachineId) -> bool {
        let attempt = self.machines.get(machine).and_then(Machine::attempt);
        let told = attempt.map(|attempt| attempt.events.iter().filter(|e| e.is_cheap()).count());
        machine.unlisted_mac().is_none() && told.is_some_and(|told| told < IGNORED_PER_BOOT)
    }

    pub(super) fn admit_ignored(&mut self, at: Timestamp) -> bool {
        self.begin_second(at);
        self.second.ignored += 1;
        let admitted = self.second.ignored <= IGNORED_PER_SECOND;
        self.suppressed += u64::from(!admitted);
        admitted
    }

    pub(super) fn is_written(&mut self, event: &BootEvent) -> bool {
        if event.machine.unlisted_mac().is_none() {
            return true;
        }
        self.begin_second(event.at);
        self.second.unlisted += 1;
        self.second.unlisted <= UNLISTED_PER_SECOND
    }

    fn begin_second(&mut self, at: Timestamp) {
        if at.as_second() != self.second.at {
            self.second = Second {
                at: at.as_second(),
                ..Second::default()
            };
        }
    }
}

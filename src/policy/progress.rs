//! Events folded into where each machine stands.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

use crate::inventory::model::MacAddr;
use crate::policy::client::Asker;
use crate::policy::event::{AttemptId, BootEvent, ClockSet, MachineId, Stage, StageState};
use crate::policy::moving::Moving;

pub use crate::policy::attempt::Attempt;
pub use crate::policy::standing::Standing;

/// How much is remembered of a machine.
struct Memory {
    attempts: usize,
    /// Per attempt.
    events: usize,
    /// Outside any attempt.
    strays: usize,
}

/// A boot has some forty events; retries fill the rest.
const LISTED: Memory = Memory {
    attempts: 5,
    events: 300,
    strays: 100,
};
/// Anybody on the wire can be thousands of machines that nobody listed, and have an event with each packet.
const UNLISTED: Memory = Memory {
    attempts: 2,
    events: 40,
    strays: 20,
};

impl Memory {
    fn of(machine: &MachineId) -> &'static Self {
        match machine.unlisted_mac() {
            Some(_) => &UNLISTED,
            None => &LISTED,
        }
    }
}

/// After this an iPXE DISCOVER begins a new attempt, whatever came before, seconds.
const CHAINLOAD_PATIENCE_S: i64 = 300;

/// For so long after a machine was sent to its local disk, its firmware may still be on its way through its boot
/// order, seconds: EDK2 tries PXE by IPv6 for two minutes before it comes to HTTP boot.
const BOOT_ORDER_S: i64 = 300;

/// A file takes no longer, seconds: whoever has a host's address and reads for ever is no boot of it.
const LONGEST_FILE_S: i64 = 3600;

/// Everything known of one machine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// Its attempts, newest last.
    pub attempts: VecDeque<Attempt>,
    /// Failed attempts in a row; sets the hold before the next reboot.
    pub failures: u32,
    /// What happened outside any attempt, such as packets that were not answered.
    pub strays: VecDeque<BootEvent>,
}

impl Machine {
    /// The newest attempt.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempts.back()
    }

    /// What happened last, whether it moved a boot on or not.
    pub fn newest(&self) -> Option<&BootEvent> {
        let events = self
            .attempt()
            .map_or(&self.strays, |attempt| &attempt.events);
        let mut newest = events.iter().rev();
        newest.find(|event| event.state != StageState::Info)
    }

    /// When anything was last heard of it, whatever it is: somebody used its name or address.
    pub fn heard(&self) -> Option<Timestamp> {
        let attempts = self.attempts.iter();
        let newest = attempts.filter_map(|attempt| attempt.events.back());
        let events = newest.chain(self.strays.back());
        events.map(|event| event.at).max()
    }

    /// Attempts whose tokens count: the newest, and while that has not been heard of, the one
    /// before. A forged DISCOVER must not silence a host that is booting, or running.
    pub fn believable(&self) -> impl Iterator<Item = &Attempt> {
        let open = self.attempt().is_some_and(|attempt| !attempt.claimed);
        self.attempts.iter().rev().take(if open { 2 } else { 1 })
    }

    /// What it asked last and was not answered, where it never got as far as a boot.
    pub fn refusal(&self) -> Option<&BootEvent> {
        let mut strays = self
            .strays
            .iter()
            .rev()
            .filter(|_| self.attempts.is_empty());
        strays.find(|event| event.state == StageState::Ignored)
    }

    /// A report of the attempt before proves that the machine was not switched off: the
    /// newest one was never real.
    fn drop_disproved(&mut self, reported: &AttemptId) {
        if self.is_disproved_by(reported) {
            self.attempts.pop_back();
        }
    }

    /// Whether the newest attempt was never real, if this one goes on.
    pub fn is_disproved_by(&self, reported: &AttemptId) -> bool {
        let mut newest_first = self.believable();
        newest_first
            .next()
            .is_some_and(|newest| newest.id != *reported)
            && newest_first
                .next()
                .is_some_and(|before| before.id == *reported)
    }

    /// Tells what happened by the time that the clock was set to: how long a stage has been silent is not what a jump of
    /// the clock makes of it.
    /// Attempts up to the one of this number know it already.
    pub fn clock_set(&mut self, set: &ClockSet, known: u64) {
        let attempts = self.attempts.iter_mut();
        attempts
            .filter(|attempt| attempt.order > known)
            .for_each(|attempt| attempt.clock_set(set));
        self.strays
            .iter_mut()
            .for_each(|event| set.mend(&mut event.at));
    }

    /// Takes an event in.
    pub fn fold(&mut self, event: BootEvent) {
        if let Some(reported) = &event.attempt {
            self.drop_disproved(reported);
        }
        let memory = Memory::of(&event.machine);
        if let Some(id) = &event.begins {
            self.forget(id);
            if self.attempts.len() >= memory.attempts {
                self.attempts.pop_front();
            }
            self.attempts.push_back(Attempt::new(id.clone(), event.at));
        }
        let Some(attempt) = self.attempts.back_mut() else {
            push_bounded(&mut self.strays, event, memory.strays);
            return;
        };
        // A report whose answer was lost comes again.
        if event.uptime_ms.is_some()
            && attempt
                .events
                .iter()
                .any(|known| same_report(known, &event))
        {
            return;
        }
        attempt.hear(&event);
        // What comes from the address of a running host changes nothing of its boot.
        if event.stage == Stage::Menu && !attempt.claimed {
            attempt.choice = None;
        }
        if let Some(choice) = event.choice.as_ref().filter(|_| !attempt.claimed) {
            attempt.choice = Some(choice.clone());
        }
        match (event.stage, event.state) {
            (Stage::Joined, StageState::Ok) => {
                attempt.joined.get_or_insert(event.at);
                self.failures = 0;
            }
            // Boots that failed are counted, and one may report several failures: a host that is to stay tries on.
            (_, StageState::Fail) if !attempt.failed => {
                attempt.failed = true;
                self.failures = self.failures.saturating_add(1);
            }
            _ => {}
        }
        push_bounded(&mut attempt.events, event, memory.events);
    }

    /// Takes in how far a file is that it fetches. What a running host fetches is no part of its boot.
    pub fn fetches(&mut self, moving: Moving) {
        let newest = self.attempts.back_mut();
        let loads = |attempt: &&mut Attempt| {
            let event = attempt.current().map_or(attempt.began, |event| event.at);
            !attempt.claimed && moving.at.as_second() - event.as_second() <= LONGEST_FILE_S
        };
        if let Some(attempt) = newest.filter(loads) {
            attempt.moving = Some(moving);
        }
    }

    /// An attempt that begins a second time is one of which the essence was kept, and now its whole story comes.
    fn forget(&mut self, id: &AttemptId) {
        let Some(index) = self.attempts.iter().position(|known| known.id == *id) else {
            return;
        };
        let known = self.attempts.remove(index);
        let failed = known.is_some_and(|known| known.failed);
        self.failures = self.failures.saturating_sub(u32::from(failed));
    }

    /// The events without which the boots whose tokens count would be forgotten, by the order of each boot.
    pub fn essence(&self) -> Vec<(u64, Vec<BootEvent>)> {
        let newest_first: Vec<_> = self.believable().collect();
        let attempts = newest_first.into_iter().rev();
        attempts
            .map(|attempt| (attempt.order, attempt.essence()))
            .collect()
    }

    /// Whether a loader's question, where nobody sees the firmware's DISCOVER (`dhcp: off`), is of a machine that was
    /// switched on anew: in this boot the host has spoken for itself already, or it began long ago.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let over = |attempt: &Attempt| attempt.claimed || age(attempt, now) > CHAINLOAD_PATIENCE_S;
        self.attempt().is_none_or(over)
    }

    /// Seconds to hold before a reboot: 60, doubled with each failure in a row, at most
    /// 600; and up to half of that on top, which is the machine's own, so that a rack that
    /// fails together does not come back together.
    pub fn hold_s(&self, id: &MachineId) -> u32 {
        let doubled = 60_u32
            .saturating_mul(1 << self.failures.saturating_sub(1).min(4))
            .min(600);
        doubled + spread(id) % (doubled / 2)
    }

    /// Whether this asker is firmware that was just sent on to the local disk, and comes by another entry of its
    /// boot order first.
    ///
    /// Each power-on goes through that order from its beginning: what asks as the attempt began, from the same NIC
    /// by the same way, is the next power-on.
    pub fn leaves_for_disk(&self, mac: MacAddr, asker: Asker, now: Timestamp) -> bool {
        let Some(attempt) = self.attempt().filter(|attempt| attempt.is_away()) else {
            return false;
        };
        let left = attempt
            .current()
            .filter(|event| event.stage == Stage::LocalDisk);
        let recently = left.is_some_and(|event| {
            (0..BOOT_ORDER_S).contains(&(now.as_second() - event.at.as_second()))
        });
        let other_way = attempt
            .first_asker()
            .is_some_and(|first| first != (mac, asker));
        recently && other_way && asker != Asker::Other
    }

    /// Whether a DISCOVER from this asker is a machine that was just switched on.
    ///
    /// Firmware always is. iPXE is where it sits in ROM; where it was chainloaded, the
    /// attempt that sent the loader goes on. A system that does not boot never is.
    pub fn begins_attempt(&self, asker: Asker, now: Timestamp) -> bool {
        let Some(attempt) = self.attempt() else {
            return asker != Asker::Other;
        };
        let before = attempt.events.iter().map(|event| event.stage).max();
        match asker {
            Asker::Other => false,
            // Firmware repeats its DISCOVER until it has an address.
            Asker::PxeRom | Asker::HttpBoot => {
                before > Some(Stage::Dhcp) || age(attempt, now) > CHAINLOAD_PATIENCE_S
            }
            Asker::Ipxe => before > Some(Stage::Loader) || age(attempt, now) > CHAINLOAD_PATIENCE_S,
        }
    }
}

/// A number of the machine's own that is the same in every run (FNV-1a, 32 bits).
fn spread(id: &MachineId) -> u32 {
    id.0.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn same_report(a: &BootEvent, b: &BootEvent) -> bool {
    (a.stage, a.state, a.uptime_ms) == (b.stage, b.state, b.uptime_ms)
}

fn push_bounded(events: &mut VecDeque<BootEvent>, event: BootEvent, most: usize) {
    if events.len() == most {
        // What anybody can cause goes before what tells the story.
        let cheap = |known: &BootEvent| {
            matches!(
                known.state,
                StageState::Info | StageState::Ignored | StageState::Retry
            )
        };
        events.remove(events.iter().position(cheap).unwrap_or(0));
    }
    events.push_back(event);
}

fn age(attempt: &Attempt, now: Timestamp) -> i64 {
    now.as_second() - attempt.began.as_second()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::event::{Choice, Evidence};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn event(second: i64, stage: Stage, state: StageState) -> BootEvent {
        let mut event = BootEvent::sent(
            at(second),
            MachineId("a".into()),
            stage,
            state,
            String::new(),
        );
        if stage >= Stage::Early {
            event.evidence = Evidence::Reported;
        }
        event
    }

    fn began(second: i64) -> Machine {
        let mut machine = Machine::default();
        let mut first = event(second, Stage::Dhcp, StageState::Ok);
        first.begins = Some(AttemptId(format!("attempt-{second}")));
        machine.fold(first);
        machine
    }

    /// Boots that each come to `stage`, a minute apart.
    fn boots(stages: &[Stage]) -> Machine {
        let mut machine = Machine::default();
        for (number, stage) in (0..).zip(stages) {
            let mut first = event(60 * number, Stage::Dhcp, StageState::Ok);
            first.begins = Some(AttemptId(format!("attempt-{number}")));
            machine.fold(first);
            machine.fold(event(60 * number + 5, *stage, StageState::Ok));
        }
        machine
    }

    #[test]
    fn a_file_on_its_way_is_no_silence_and_one_that_stops_is_named() {
        let mut machine = began(0);
        machine.fold(event(5, Stage::Script, StageState::Ok));
        let moving = |second: i64, taken| Moving {
            file: "initrds/default.img".into(),
            stage: Stage::Initrd,
            began: at(6),
            at: at(second),
            taken,
            total: 57 << 20,
        };
        let long_after = 5 + Stage::Script.patience_s() + 100;
        assert_eq!(machine.standing(at(long_after)), Standing::Stalled);
        machine.fetches(moving(long_after, 24 << 20));
        assert_eq!(machine.standing(at(long_after + 9)), Standing::Running);
        // Nothing more of it was taken.
        let stopped = at(long_after + 100);
        assert_eq!(machine.standing(stopped), Standing::Stalled);
        let likely = crate::policy::stall::stuck(&machine, stopped).unwrap();
        assert!(likely.cause.contains("24.0 of 57.0 MiB"), "{likely:?}");
        // Its end is an event as ever.
        machine.fold(event(long_after + 101, Stage::Initrd, StageState::Ok));
        let attempt = machine.attempt().unwrap();
        assert_eq!(attempt.moving, None);
        // A host that speaks for itself fetches what it likes.
        let mut speaks = event(long_after + 102, Stage::Identity, StageState::Ok);
        speaks.evidence = Evidence::Reported;
        machine.fold(speaks);
        machine.fetches(moving(long_after + 103, 1));
        assert_eq!(machine.attempt().unwrap().moving, None);
    }

    #[test]
    fn boots_that_end_alike_again_and_again_are_stuck_though_none_is_silent_for_long() {
        use Stage::{Dhcp, Identity, Initrd, Kernel};
        for (stages, fruitless, standing) in [
            (&[Initrd][..], 0, Standing::Running),
            (&[Initrd, Initrd], 1, Standing::Running),
            (&[Initrd, Initrd, Initrd], 2, Standing::Stalled),
            (&[Initrd, Initrd, Dhcp], 2, Standing::Stalled),
            (&[Kernel, Initrd, Initrd], 1, Standing::Running),
            // It is past it now.
            (&[Initrd, Initrd, Identity], 0, Standing::Running),
            (&[Kernel, Kernel, Initrd], 0, Standing::Running),
            (&[Identity, Identity, Initrd], 0, Standing::Running),
        ] {
            let machine = boots(stages);
            let now = at(60 * i64::try_from(stages.len()).unwrap() - 50);
            assert_eq!(machine.fruitless(), fruitless, "{stages:?}");
            assert_eq!(machine.standing(now), standing, "{stages:?}");
        }
    }

    #[test]
    fn who_asks_for_addresses_for_minutes_is_stuck() {
        let mut machine = began(0);
        for second in (30..=120).step_by(30) {
            machine.fold(event(second, Stage::Dhcp, StageState::Ok));
        }
        assert_eq!(machine.standing(at(120)), Standing::Running);
        assert_eq!(machine.standing(at(121)), Standing::Stalled);
        // A loader that was loaded asks anew.
        machine.fold(event(122, Stage::Loader, StageState::Ok));
        machine.fold(event(125, Stage::Dhcp, StageState::Ok));
        assert_eq!(machine.standing(at(140)), Standing::Running);
    }

    #[test]
    fn a_forged_discover_does_not_end_a_boot() {
        let mut machine = began(0);
        machine.fold(event(5, Stage::Identity, StageState::Ok));
        let mut forged = event(6, Stage::Dhcp, StageState::Ok);
        forged.begins = Some(AttemptId("forged".into()));
        machine.fold(forged);
        assert_eq!(machine.believable().count(), 2);
        let mut report = event(7, Stage::Root, StageState::Ok);
        report.attempt = Some(AttemptId("attempt-0".into()));
        machine.fold(report);
        assert_eq!(machine.attempt().unwrap().id.0, "attempt-0");
        assert_eq!(
            machine.attempt().unwrap().current().unwrap().stage,
            Stage::Root
        );
    }

    /// As after a rotation of the event log: what comes back of what was kept.
    fn from_essence(machine: &Machine) -> Machine {
        let mut again = Machine::default();
        for event in machine.essence().into_iter().flat_map(|(_, events)| events) {
            again.fold(event);
        }
        again
    }

    #[test]
    fn the_essence_holds_the_boot_that_a_forged_discover_hides() {
        let mut machine = began(0);
        machine.fold(event(5, Stage::Identity, StageState::Ok));
        machine.fold(event(9, Stage::Joined, StageState::Ok));
        let mut forged = event(10, Stage::Dhcp, StageState::Ok);
        forged.begins = Some(AttemptId("forged".into()));
        machine.fold(forged);
        let again = from_essence(&machine);
        let kept: Vec<_> = again.believable().map(|known| &*known.id.0).collect();
        assert_eq!(kept, ["forged", "attempt-0"]);
        assert_eq!(again.attempts[0].joined, Some(at(9)));
    }

    #[test]
    fn the_essence_holds_that_it_joined_whatever_came_after() {
        let mut machine = began(0);
        machine.fold(event(9, Stage::Joined, StageState::Ok));
        let mut spoke = began(0);
        spoke.fold(event(9, Stage::Root, StageState::Ok));
        for machine in [&mut machine, &mut spoke] {
            for second in 10..1000 {
                machine.fold(event(second, Stage::Dhcp, StageState::Ok));
            }
        }
        assert_eq!(from_essence(&machine).standing(at(1000)), Standing::Done);
        assert_eq!(from_essence(&machine).attempts[0].joined, Some(at(9)));
        let spoke = from_essence(&spoke);
        assert!(spoke.attempts[0].claimed && spoke.attempts[0].joined.is_none());
    }

    #[test]
    fn silence_past_the_deadline_is_a_stall_and_joined_never_stalls() {
        let mut machine = began(0);
        assert_eq!(machine.standing(at(60)), Standing::Running);
        assert_eq!(machine.standing(at(61)), Standing::Stalled);
        machine.fold(event(70, Stage::Joined, StageState::Ok));
        assert_eq!(machine.standing(at(1_000_000)), Standing::Done);
    }

    fn chose(second: i64, stage: Stage, entry: &str, reports: bool) -> BootEvent {
        let mut event = event(second, stage, StageState::Ok);
        let entry = entry.to_owned();
        event.choice = Some(Choice { entry, reports });
        event
    }

    #[test]
    fn a_machine_that_left_for_its_disk_is_away_whatever_asks_for_an_address_then() {
        let mut machine = began(0);
        machine.fold(event(3, Stage::Menu, StageState::Ok));
        assert_eq!(machine.standing(at(10_000)), Standing::Running);
        machine.fold(chose(9, Stage::LocalDisk, "disk", false));
        machine.fold(event(30, Stage::Dhcp, StageState::Ok));
        assert_eq!(machine.standing(at(10_000)), Standing::Away);
        let current = machine.attempt().unwrap().current().unwrap();
        assert_eq!(current.stage, Stage::LocalDisk);
        // It has no disk, and its firmware comes back to the network.
        assert!(machine.begins_attempt(Asker::PxeRom, at(60)));
        assert!(!machine.begins_attempt(Asker::Other, at(60)));
    }

    /// OVMF after iPXE's `exit 1`: PXE by IPv6, HTTP boot, and only then the disk.
    #[test]
    fn on_the_way_to_its_disk_firmware_is_not_brought_back_by_another_entry_of_its_boot_order() {
        let (nic, other) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let mut machine = Machine::default();
        let mut first = event(0, Stage::Dhcp, StageState::Ok).from_mac(nic);
        first.begins = Some(AttemptId("first".into()));
        first.begun_by = Some(Asker::PxeRom);
        machine.fold(first);
        machine.fold(chose(9, Stage::Script, "kvm", true));
        assert!(!machine.leaves_for_disk(nic, Asker::HttpBoot, at(20)));
        machine.fold(chose(19, Stage::LocalDisk, "disk", false));
        let leaves = |mac, asker, second| machine.leaves_for_disk(mac, asker, at(second));
        assert!(leaves(nic, Asker::HttpBoot, 80));
        assert!(leaves(other, Asker::PxeRom, 80));
        // The system that booted from it.
        assert!(!leaves(nic, Asker::Other, 80));
        assert!(leaves(nic, Asker::HttpBoot, 318));
        // The next power-on: it begins as this one did, or later.
        assert!(!leaves(nic, Asker::PxeRom, 80));
        assert!(!leaves(nic, Asker::HttpBoot, 319));
        assert!(!leaves(nic, Asker::HttpBoot, 10));
    }

    #[test]
    fn a_bare_kernel_is_away_once_it_has_come() {
        let mut machine = began(0);
        machine.fold(chose(9, Stage::Script, "memtest", false));
        assert_eq!(machine.standing(at(70)), Standing::Stalled);
        machine.fold(event(12, Stage::Kernel, StageState::Ok));
        assert_eq!(machine.standing(at(10_000)), Standing::Away);
    }

    #[test]
    fn what_was_chosen_holds_until_the_menu_comes_again_or_the_host_speaks() {
        let entry = |machine: &Machine| {
            let choice = machine.attempt().unwrap().choice.clone();
            choice.map(|choice| choice.entry)
        };
        let mut machine = began(0);
        machine.fold(chose(5, Stage::Script, "rescue", true));
        assert_eq!(entry(&machine).as_deref(), Some("rescue"));
        machine.fold(event(6, Stage::Menu, StageState::Ok));
        assert_eq!(entry(&machine), None);
        machine.fold(chose(7, Stage::Script, "kvm", true));
        machine.fold(event(40, Stage::Identity, StageState::Ok));
        machine.fold(chose(50, Stage::LocalDisk, "disk", false));
        machine.fold(event(51, Stage::Menu, StageState::Ok));
        assert_eq!(entry(&machine).as_deref(), Some("kvm"));
        assert_eq!(machine.standing(at(52)), Standing::Running);
    }

    #[test]
    fn the_chainloaded_ipxe_goes_on_with_its_attempt() {
        let mut machine = began(0);
        machine.fold(event(1, Stage::Loader, StageState::Ok));
        assert!(!machine.begins_attempt(Asker::Ipxe, at(5)));
        machine.fold(event(6, Stage::Script, StageState::Ok));
        assert!(machine.begins_attempt(Asker::Ipxe, at(30)));
        assert!(machine.begins_attempt(Asker::PxeRom, at(30)));
        assert!(!machine.begins_attempt(Asker::Other, at(3000)));
    }

    #[test]
    fn firmware_that_repeats_its_discover_does_not_begin_again() {
        let machine = began(0);
        assert!(!machine.begins_attempt(Asker::PxeRom, at(4)));
        assert!(machine.begins_attempt(Asker::PxeRom, at(301)));
    }

    #[test]
    fn a_new_attempt_does_not_show_the_last_ones_failure() {
        let mut machine = began(0);
        machine.fold(event(10, Stage::Root, StageState::Fail));
        assert_eq!(machine.standing(at(11)), Standing::Failed);
        let mut again = event(100, Stage::Dhcp, StageState::Ok);
        again.begins = Some(AttemptId("second".into()));
        machine.fold(again);
        assert_eq!(machine.standing(at(101)), Standing::Running);
        assert_eq!(machine.failures, 1);
    }

    #[test]
    fn a_boot_that_fails_again_and_again_is_one_failure_and_the_next_one_another() {
        let mut machine = began(0);
        for second in 10..20 {
            machine.fold(event(second, Stage::Root, StageState::Fail));
        }
        assert_eq!(machine.failures, 1);
        let mut again = event(100, Stage::Dhcp, StageState::Ok);
        again.begins = Some(AttemptId("second".into()));
        machine.fold(again);
        machine.fold(event(110, Stage::Root, StageState::Fail));
        assert_eq!(machine.failures, 2);
        machine.fold(event(120, Stage::Joined, StageState::Ok));
        assert_eq!(machine.failures, 0);
    }

    #[test]
    fn reports_that_waited_for_an_address_keep_their_own_time() {
        let mut machine = began(100);
        let mut report = |at, stage, uptime| {
            let mut event = event(at, stage, StageState::Ok);
            event.uptime_ms = Some(uptime);
            machine.fold(event);
        };
        report(120, Stage::Early, 2_000);
        report(120, Stage::Address, 9_000);
        report(121, Stage::Root, 11_000);
        let attempt = machine.attempt().unwrap();
        let seconds: Vec<i64> = attempt
            .events
            .iter()
            .map(|e| attempt.time_of(e).as_second())
            .collect();
        assert_eq!(seconds, [100, 112, 119, 121]);
    }

    #[test]
    fn a_stage_took_from_the_end_of_the_one_before() {
        let mut machine = began(100);
        let mut then = |at, stage, uptime: Option<u64>| {
            let mut event = event(at, stage, StageState::Ok);
            event.uptime_ms = uptime;
            machine.fold(event);
        };
        then(103, Stage::Loader, None);
        then(104, Stage::Dhcp, None);
        then(105, Stage::Script, None);
        // Told together when there is an address: at 112, 119 and 121.
        then(120, Stage::Early, Some(2_000));
        then(120, Stage::Address, Some(9_000));
        then(121, Stage::Root, Some(11_000));
        let joined = event(150, Stage::Joined, StageState::Ok);
        let took = machine.attempt().unwrap().stages_took(&joined);
        let took: Vec<_> = took
            .iter()
            .map(|(stage, took)| (stage.name(), took.as_secs()))
            .collect();
        assert_eq!(
            took,
            [
                ("dhcp", 0),
                ("loader", 3),
                ("script", 2),
                ("early", 7),
                ("address", 7),
                ("root", 2),
                ("joined", 29),
            ]
        );
    }

    #[test]
    fn the_hold_doubles_up_to_ten_minutes() {
        let holds: Vec<u32> = (0..8)
            .map(|failures| {
                Machine {
                    failures,
                    ..Machine::default()
                }
                .hold_s(&MachineId("kvm01".into()))
            })
            .collect();
        let least = [60, 60, 120, 240, 480, 600, 600, 600];
        for (hold, least) in holds.iter().zip(least) {
            assert!((least..least * 3 / 2).contains(hold), "{holds:?}");
        }
    }

    #[test]
    fn a_fleet_that_fails_together_does_not_come_back_together() {
        let machine = Machine {
            failures: 3,
            ..Machine::default()
        };
        let mut in_a_second = BTreeMap::<u32, u32>::new();
        for number in 0..200 {
            let id = MachineId(format!("kvm{number:03}"));
            *in_a_second.entry(machine.hold_s(&id)).or_default() += 1;
        }
        let most = in_a_second.values().max();
        assert!(most < Some(&10), "{in_a_second:?}");
        assert!(in_a_second.len() > 60, "{in_a_second:?}");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut machine = began(0);
        for second in 0..2000 {
            machine.fold(event(second, Stage::Pool, StageState::Retry));
        }
        assert_eq!(machine.attempt().unwrap().events.len(), LISTED.events);
    }

    /// Thousands of them are remembered, and who they are is for the sender to say.
    #[test]
    fn of_machines_that_nobody_listed_little_is_remembered() {
        let mut machine = Machine::default();
        for second in 0..2000 {
            let mut event = event(second, Stage::Dhcp, StageState::Ok);
            event.machine = MachineId("mac-020000000001".into());
            event.begins = (second % 100 == 50).then(|| AttemptId(second.to_string()));
            machine.fold(event);
        }
        let kept: usize = machine
            .attempts
            .iter()
            .map(|attempt| attempt.events.len())
            .sum();
        assert_eq!((kept, machine.strays.len()), (80, 20));
    }
}

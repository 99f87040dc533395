//! The machines that a timeline remembers, and which it forgets.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::policy::event::{BootEvent, Evidence, MachineId, UNLISTED_PREFIX};
use crate::policy::progress::Machine;

use super::log::Source;

/// Machines that are not listed, remembered at most; the wire can name any number of MACs. Two thirds of it are for
/// those that have told something with a boot's token, however many others are heard of: who waits in its inventory boot
/// goes on by that token.
const UNLISTED: usize = 6144;
/// What they may take together, bytes: one may have a hundred events of 600 characters each.
const UNLISTED_BYTES: usize = 48 << 20;
/// The part of them that is forgotten together: to look for the oldest takes as long as to look at all.
const STEP: usize = 16;

/// What must not be forgotten: of listed hosts, and of machines that may wait to be one.
pub(super) fn essence(machines: &BTreeMap<MachineId, Machine>) -> Vec<BootEvent> {
    let kept = machines
        .iter()
        .filter(|(id, machine)| id.unlisted_mac().is_none() || is_proven(machine));
    let mut boots: Vec<_> = kept.flat_map(|(_, machine)| machine.essence()).collect();
    // In which they are read, they began.
    boots.sort_by_key(|(order, _)| *order);
    boots.into_iter().flat_map(|(_, events)| events).collect()
}

/// Counts the attempts, in the order in which they began, and what is remembered of machines that are not listed.
#[derive(Debug, Default)]
pub(super) struct Begun {
    last: u64,
    /// Those up to this one were kept with their times mended, for all steps of the clock that stand in the older file.
    kept: Option<u64>,
    /// What the machines take that are not listed, bytes.
    unlisted: usize,
}

impl Begun {
    /// What is folded from now on comes from there.
    pub(super) fn reads(&mut self, source: Source) {
        self.kept = match source {
            Source::Kept => None,
            Source::Old => self.kept.or(Some(self.last)),
            Source::Newer => Some(0),
        };
    }
}

pub(super) fn fold(
    machines: &mut BTreeMap<MachineId, Machine>,
    begun: &mut Begun,
    event: BootEvent,
) {
    let unlisted = event.machine.unlisted_mac().is_some();
    if unlisted && !machines.contains_key(&event.machine) && make_room(machines, UNLISTED, |_| 1) {
        begun.unlisted = weight_of_unlisted(machines);
    }
    if let Some(set) = &event.clock {
        let all = machines.values_mut();
        all.for_each(|machine| machine.clock_set(set, begun.kept.unwrap_or(0)));
    }
    let begins = event.begins.is_some();
    let machine = machines.entry(event.machine.clone()).or_default();
    let weigh = |machine: &Machine| if unlisted { weight(machine) } else { 0 };
    let before = weigh(machine);
    machine.fold(event);
    let after = weigh(machine);
    if let Some(attempt) = machine.attempts.back_mut().filter(|_| begins) {
        begun.last += 1;
        attempt.order = begun.last;
    }
    if unlisted {
        begun.unlisted = (begun.unlisted + after).saturating_sub(before);
        if begun.unlisted > UNLISTED_BYTES {
            make_room(machines, UNLISTED_BYTES, weight);
            begun.unlisted = weight_of_unlisted(machines);
        }
    }
}

/// How much memory a machine takes, about; bytes.
fn weight(machine: &Machine) -> usize {
    let boots = machine.attempts.iter().flat_map(|boot| &boot.events);
    boots.chain(&machine.strays).map(BootEvent::weight).sum()
}

fn unlisted(
    machines: &BTreeMap<MachineId, Machine>,
) -> impl Iterator<Item = (&MachineId, &Machine)> {
    let first = MachineId(UNLISTED_PREFIX.into());
    let from = machines.range(first..);
    let named = from.take_while(|(id, _)| id.0.starts_with(UNLISTED_PREFIX));
    // A listed host may have such a name, too.
    named.filter(|(id, _)| id.unlisted_mac().is_some())
}

fn weight_of_unlisted(machines: &BTreeMap<MachineId, Machine>) -> usize {
    unlisted(machines).map(|(_, machine)| weight(machine)).sum()
}

/// Forgets the unlisted machines that were silent longest, where they are `most` or more by what each counts; whether it
/// did.
fn make_room(
    machines: &mut BTreeMap<MachineId, Machine>,
    most: usize,
    count: impl Fn(&Machine) -> usize,
) -> bool {
    let counted = unlisted(machines).map(|(id, machine)| (id, machine, count(machine)));
    let counted: Vec<_> = counted.collect();
    let sum = |some: &[(_, _, usize)]| some.iter().map(|(.., count)| count).sum::<usize>();
    if sum(&counted) < most {
        return false;
    }
    let (proven, others): (Vec<_>, Vec<_>) = counted
        .into_iter()
        .partition(|(_, machine, _)| is_proven(machine));
    let mut going = match sum(&proven) > most / 3 * 2 {
        true => proven,
        false => others,
    };
    going.sort_by_key(|(_, machine, _)| last_seen(machine));
    let mut gone = 0;
    let enough = |(id, _, count): &(&MachineId, &Machine, usize)| {
        let goes = (gone < most / STEP).then(|| (*id).clone());
        gone += count;
        goes
    };
    let ids: Vec<_> = going.iter().map_while(enough).collect();
    for id in &ids {
        machines.remove(id);
    }
    !ids.is_empty()
}

fn last_seen(machine: &Machine) -> Option<Timestamp> {
    let last = machine.attempt()?.events.back()?;
    Some(last.at)
}

/// Whether it has told something with the token of a boot that counts. Anybody can send a DISCOVER in its name since.
fn is_proven(machine: &Machine) -> bool {
    let mut events = machine.believable().flat_map(|boot| &boot.events);
    events.any(|event| event.evidence == Evidence::Reported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::model::MacAddr;
    use crate::policy::event::{AttemptId, Stage, StageState};

    const MOST: usize = 64;

    fn id(index: u32) -> MachineId {
        let [a, b, c, d] = index.to_be_bytes();
        MachineId::unlisted(MacAddr([2, 0, a, b, c, d]))
    }

    /// Something is heard of the `index`th machine, at that second.
    fn heard(machines: &mut BTreeMap<MachineId, Machine>, index: u32, evidence: Evidence) {
        make_room(machines, MOST, |_| 1);
        let at = Timestamp::from_second(i64::from(index)).unwrap();
        let mut event = BootEvent::sent(at, id(index), Stage::Dhcp, StageState::Ok, String::new());
        event.begins = Some(AttemptId(index.to_string()));
        fold(machines, &mut Begun::default(), event);
        let (stage, said) = (Stage::Inventory, String::new());
        let mut event = BootEvent::sent(at, id(index), stage, StageState::Ok, said);
        event.attempt = Some(AttemptId(index.to_string()));
        event.evidence = evidence;
        fold(machines, &mut Begun::default(), event);
    }

    #[test]
    fn of_a_flood_of_macs_the_oldest_are_forgotten_and_no_machine_that_waits() {
        let mut machines = BTreeMap::new();
        for index in 0..20 {
            heard(&mut machines, index, Evidence::Reported);
        }
        // Somebody sends a DISCOVER in the name of one that waits.
        let mut forged = BootEvent::sent(
            Timestamp::from_second(20).unwrap(),
            id(3),
            Stage::Dhcp,
            StageState::Ok,
            String::new(),
        );
        forged.begins = Some(AttemptId("forged".into()));
        fold(&mut machines, &mut Begun::default(), forged);
        for index in 20..300 {
            heard(&mut machines, index, Evidence::Acknowledged);
            assert!(machines.len() <= MOST && machines.contains_key(&id(index)));
        }
        assert!((0..20).all(|index| machines.contains_key(&id(index))));
        let oldest = (20..).find(|index| machines.contains_key(&id(*index)));
        let left = oldest.map(|oldest| 300 - oldest + 20);
        assert_eq!(left, u32::try_from(machines.len()).ok());
    }

    #[test]
    fn machines_that_once_waited_leave_room_for_new_ones() {
        let mut machines = BTreeMap::new();
        for index in 0..100 {
            heard(&mut machines, index, Evidence::Reported);
        }
        for index in 100..300 {
            heard(&mut machines, index, Evidence::Sent);
        }
        let waited = (0..100).filter(|index| machines.contains_key(&id(*index)));
        let waited = waited.count();
        assert!(
            (MOST / 3 * 2 - MOST / STEP..=MOST / 3 * 2).contains(&waited),
            "{waited}"
        );
    }

    /// A hundred events in the name of one machine, as long as one may be.
    fn says_much(machines: &mut BTreeMap<MachineId, Machine>, begun: &mut Begun, index: u32) {
        for second in 0..100 {
            let at = Timestamp::from_second(1000 + i64::from(index) + second).unwrap();
            let said = "\u{10348}".repeat(600);
            let mut event = BootEvent::sent(at, id(index), Stage::Dhcp, StageState::Ok, said);
            event.evidence = Evidence::Acknowledged;
            event.begins = (second % 45 == 0).then(|| AttemptId(second.to_string()));
            fold(machines, begun, event);
        }
    }

    #[test]
    fn a_flood_of_the_largest_strangers_takes_no_more_than_the_bound() {
        let (mut machines, mut begun) = (BTreeMap::new(), Begun::default());
        for index in 0..20 {
            heard(&mut machines, index, Evidence::Reported);
        }
        let mut listed = BootEvent::sent(
            Timestamp::UNIX_EPOCH,
            MachineId("kvm01".into()),
            Stage::Dhcp,
            StageState::Ok,
            String::new(),
        );
        listed.begins = Some(AttemptId("1".into()));
        fold(&mut machines, &mut begun, listed);
        for index in 20..520 {
            says_much(&mut machines, &mut begun, index);
            assert!(weight_of_unlisted(&machines) <= UNLISTED_BYTES);
            assert!(machines.contains_key(&id(index)));
        }
        let there = machines.len();
        assert!((100..500).contains(&there), "{there} machines");
        assert!((0..20).all(|index| machines.contains_key(&id(index))));
        assert!(machines.contains_key(&MachineId("kvm01".into())));
    }

    #[test]
    fn who_waits_is_known_after_the_log_went_round() {
        let mut machines = BTreeMap::new();
        heard(&mut machines, 1, Evidence::Reported);
        heard(&mut machines, 2, Evidence::Acknowledged);
        let mut again = BTreeMap::new();
        for event in essence(&machines) {
            fold(&mut again, &mut Begun::default(), event);
        }
        assert!(again.contains_key(&id(1)) && !again.contains_key(&id(2)));
        assert_eq!(essence(&again), essence(&machines));
    }
}

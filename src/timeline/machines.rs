//! The machines that a timeline remembers, and which it forgets.

use std::collections::BTreeMap;

use crate::policy::event::{BootEvent, MachineId};
use crate::policy::progress::Machine;

/// Machines that are not listed, remembered at most; the wire can name any number of MACs.
pub(super) const UNLISTED: usize = 2048;

/// What must not be forgotten of listed hosts.
pub(super) fn essence(machines: &BTreeMap<MachineId, Machine>) -> Vec<BootEvent> {
    let listed = machines
        .iter()
        .filter(|(id, _)| id.unlisted_mac().is_none());
    listed.flat_map(|(_, machine)| machine.essence()).collect()
}

pub(super) fn fold(machines: &mut BTreeMap<MachineId, Machine>, event: BootEvent) {
    if !machines.contains_key(&event.machine) && event.machine.unlisted_mac().is_some() {
        make_room(machines);
    }
    machines
        .entry(event.machine.clone())
        .or_default()
        .fold(event);
}

/// Forgets the unlisted machine that was silent longest, where there are too many.
fn make_room(machines: &mut BTreeMap<MachineId, Machine>) {
    let unlisted = |id: &MachineId| id.unlisted_mac().is_some();
    if machines.keys().filter(|id| unlisted(id)).count() < UNLISTED {
        return;
    }
    let last_seen = |machine: &Machine| {
        machine
            .attempt()
            .and_then(|a| a.events.back())
            .map(|e| e.at)
    };
    let oldest = machines
        .iter()
        .filter(|(id, _)| unlisted(id))
        .min_by_key(|(_, machine)| last_seen(machine))
        .map(|(id, _)| id.clone());
    if let Some(id) = oldest {
        machines.remove(&id);
    }
}

//! Where every machine stands, as `status` and `log` tell it.

mod machine;
mod story;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::others::Known;
use super::trouble::Trouble;
use super::{ReloadState, Site};
use crate::inventory::model::{Host, Inventory};
use crate::policy::enrol::awaits;
use crate::policy::event::{AttemptId, MachineId};
use crate::policy::near::near_misses;
use crate::policy::progress::Machine;

pub(super) use machine::{DOUBLE, machine_status};
pub use machine::{MachineStatus, StageStatus};
pub use story::{AttemptLog, HostLog, Told};

/// Version of the JSON; a change that could break a reader makes it 2.
const SCHEMA: u32 = 1;

/// Large transfers by HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfers {
    /// Have their turn.
    pub running: usize,
    /// Wait for it.
    pub waiting: usize,
}

/// Where every machine stands.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FleetStatus {
    /// Version of this shape.
    pub schema: u32,
    /// The site's name.
    pub site: String,
    /// Why the last edit is not served, if it is not.
    pub refused_edit: Option<String>,
    /// What is wrong with the daemon itself.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// Listed hosts, by name.
    pub hosts: Vec<MachineStatus>,
    /// Machines that are not listed.
    pub unknown: Vec<MachineStatus>,
    /// Packets without an answer that were counted and not kept.
    pub suppressed: u64,
    /// Large transfers by HTTP.
    #[serde(default)]
    pub transfers: Transfers,
    /// Other DHCP servers that answer on the networks served.
    #[serde(default)]
    pub dhcp_servers: Vec<OtherServerStatus>,
}

/// Another DHCP server.
#[derive(Debug, Serialize, Deserialize)]
pub struct OtherServerStatus {
    /// The interface that it was heard on.
    pub interface: String,
    /// The network.
    pub network: String,
    /// What it calls itself.
    pub server: Ipv4Addr,
    /// Where its answer came from.
    pub mac: String,
    /// Whether it tells PXE clients what to boot.
    pub pxe: bool,
    /// Whether the network reckons with it (`dhcp: proxy`).
    pub expected: bool,
    /// When it last answered.
    pub last_seen: Timestamp,
    /// In words.
    pub note: String,
}

/// Where every machine stands now.
pub fn fleet(site: &Site, reload: &ReloadState, now: Timestamp) -> FleetStatus {
    let snapshot = site.snapshot();
    let inventory = &snapshot.inventory;
    let (mut hosts, mut unknown) = site.timeline.read(|machines| {
        (
            listed(inventory, machines, now),
            unlisted(inventory, machines, now),
        )
    });
    // Some 190 look-ups for each of them: every event waits for the timeline.
    // Of hosts that came, and were bought together, the MACs are as near.
    for status in &mut hosts {
        let id = MachineId(status.host.clone());
        let attempt = status.attempt.clone().map(AttemptId);
        status.edit_waits = attempt.is_some_and(|attempt| site.pins.edit_waits(&id, &attempt));
        let host = inventory.hosts.get(&status.host);
        let home = host.map(|host| host.home.address.addr());
        status.connected = home.is_some_and(|home| site.enrolment.has_root(home));
    }
    let unheard = hosts.iter_mut().filter(|host| host.attempt.is_none());
    let mut unheard: BTreeMap<String, &mut MachineStatus> =
        unheard.map(|host| (host.host.clone(), host)).collect();
    for status in &mut unknown {
        add_near_miss(status, inventory, &mut unheard);
    }
    site.describe(&mut unknown, now);
    let disputed = site.disputed(now);
    for status in hosts.iter_mut().filter(|_| !disputed.is_empty()) {
        let words = disputed.get(&status.host);
        let between = if status.note.is_empty() { "" } else { "; " };
        status
            .note
            .extend(words.map(|words| format!("{between}{words}")));
    }
    for status in &mut unknown {
        let mac = MachineId(status.host.clone()).unlisted_mac();
        let said = mac.and_then(|mac| site.enrolment.said(mac));
        status.note.extend(said.map(|said| format!("; {said}")));
    }
    FleetStatus {
        schema: SCHEMA,
        site: inventory.site.clone(),
        refused_edit: reload.refused(),
        troubles: site.troubles(),
        hosts,
        unknown,
        suppressed: site.timeline.suppressed(),
        transfers: Transfers::default(),
        dhcp_servers: other_servers(site),
    }
}

fn other_servers(site: &Site) -> Vec<OtherServerStatus> {
    let status = |(interface, known): (String, Known)| OtherServerStatus {
        interface,
        network: known.network,
        server: known.heard.server,
        mac: known.heard.mac.to_string(),
        pxe: known.heard.pxe,
        expected: known.expected,
        last_seen: known.at,
        note: known.heard.describe(),
    };
    site.others.list().into_iter().map(status).collect()
}

type Machines = BTreeMap<MachineId, Machine>;

fn listed(inventory: &Inventory, machines: &Machines, now: Timestamp) -> Vec<MachineStatus> {
    let unseen = Machine::default();
    let status = |host: &Arc<Host>| {
        let machine = machines.get(&MachineId(host.name.clone()));
        let mut status = machine_status(&host.name, machine.unwrap_or(&unseen), now);
        if host.waits_for_hardware() && status.note.is_empty() {
            status.note = awaits(host);
        }
        status.rack = host.rack.clone();
        status.unit = host.unit;
        status
    };
    inventory.hosts.values().map(status).collect()
}

fn unlisted(inventory: &Inventory, machines: &Machines, now: Timestamp) -> Vec<MachineStatus> {
    machines
        .iter()
        .filter(|(id, _)| is_unlisted(inventory, id))
        .map(|(id, machine)| machine_status(&id.0, machine, now))
        .collect()
}

/// A host that does not come and a stranger that does are often one machine, and a typing mistake: both are told so.
fn add_near_miss(
    status: &mut MachineStatus,
    inventory: &Inventory,
    unheard: &mut BTreeMap<String, &mut MachineStatus>,
) {
    let Some(mac) = MachineId(status.host.clone()).unlisted_mac() else {
        return;
    };
    let near = near_misses(mac, &inventory.by_mac).into_iter();
    for near in near {
        let Some(host) = unheard.get_mut(&near.host) else {
            continue;
        };
        if host.note.is_empty() {
            host.note = format!("{mac} asks, {near}: a typing mistake?");
        }
        status.note = format!("{near}: a typing mistake? {}", status.note);
        return;
    }
}

/// A machine that was seen and is not in the inventory (any more, or yet).
pub(super) fn is_unlisted(inventory: &Inventory, id: &MachineId) -> bool {
    id.unlisted_mac()
        .is_some_and(|mac| !inventory.by_mac.contains_key(&mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;
    use crate::policy::event::{BootEvent, Stage, StageState};

    #[test]
    fn a_host_without_hardware_says_what_it_waits_for() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let edited = testing::edited(
            dir.path(),
            &site.snapshot(),
            "{mac: \"52:54:00:00:00:01\", ",
            "{",
        );
        let edited = Arc::new(edited);
        let outline = site.outline(Timestamp::now());
        let changes = outline.changes(&edited.inventory.outline());
        site.replace(edited, &changes);
        let fleet = fleet(&site, &ReloadState::default(), Timestamp::now());
        assert_eq!(fleet.hosts[0].state, "unseen");
        assert_eq!(
            fleet.hosts[0].note,
            "waits for its hardware: `bridgehead discover approve MAC --name kvm01` makes a machine that waits this host (`bridgehead discover list` shows them), or add its `mac`"
        );
    }

    #[test]
    fn when_a_host_was_last_heard_is_its_newest_event_whatever_stage_it_stands_in() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let at = |second| Timestamp::from_second(second).unwrap();
        for (second, stage, state) in [
            (1, Stage::Dhcp, StageState::Ok),
            (9, Stage::Joined, StageState::Ok),
            (40, Stage::Pool, StageState::Info),
        ] {
            let id = MachineId("kvm01".into());
            let event = BootEvent::sent(at(second), id, stage, state, String::new());
            site.timeline.record(event);
        }
        let hosts = fleet(&site, &ReloadState::default(), at(50)).hosts;
        assert_eq!((hosts[0].heard, hosts[0].connected), (Some(at(40)), false));
        assert_eq!(hosts[1].heard, None);
    }
}

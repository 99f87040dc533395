//! Strangers that a daemon which ran before knew, from what it left on the disk: events and leases. What they said of
//! themselves is not there: they say it again when they ask, each that waits within a minute or so.

use std::cmp::Reverse;

use jiff::Timestamp;

use crate::inventory::model::{Inventory, MacAddr};
use crate::policy::discovered::Discovered;
use crate::policy::event::{Stage, StageState};
use crate::policy::lease::LeaseTable;
use crate::policy::progress::{Attempt, Machine};
use crate::site::{Site, report};

impl Site {
    /// Remembers machines that are not listed, as far as the timeline and the leases know them. There are no more than
    /// the timeline keeps.
    pub fn remember_strangers(&self) {
        let snapshot = self.snapshot();
        let inventory = &snapshot.inventory;
        let leases = self.leases();
        let mut restored: Vec<_> = self.timeline.read(|machines| {
            let unlisted = machines
                .iter()
                .filter(|(id, _)| report::is_unlisted(inventory, id));
            let restored = unlisted.filter_map(|(id, machine)| {
                stranger(id.unlisted_mac()?, machine, inventory, &leases)
            });
            restored.collect()
        });
        drop(leases);
        // Where not all find room, it is for those heard last.
        restored.sort_by_key(|seen| Reverse(seen.last_seen));
        let mut known = self.discovery.lock();
        restored.into_iter().for_each(|seen| known.restore(seen));
    }
}

/// One that asked; whoever got no answer is none that could be listed.
fn stranger(
    mac: MacAddr,
    machine: &Machine,
    inventory: &Inventory,
    leases: &LeaseTable,
) -> Option<Discovered> {
    let attempts = &machine.attempts;
    let (first_seen, last_seen) = (attempts.front()?.began, machine.heard()?);
    let lease = leases.of(mac);
    let network = lease.and_then(|lease| {
        let mut networks = inventory.networks.values();
        networks.find(|network| network.subnet.contains(&lease.address))
    });
    let network = network.map(|network| network.name.clone());
    Some(Discovered {
        first_seen,
        discovers: attempts.len() as u64,
        held: machine.attempt().and_then(held),
        restored: true,
        ..Discovered::seen(mac, network, String::new(), last_seen)
    })
}

/// When it was last told to wait in this boot.
fn held(attempt: &Attempt) -> Option<Timestamp> {
    let mut newest_first = attempt.events.iter().rev();
    let told =
        newest_first.find(|event| event.stage == Stage::Script && event.state == StageState::Ok);
    told.map(|event| event.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;
    use crate::policy::client::Asker;
    use crate::policy::event::{BootEvent, MachineId};

    #[test]
    fn a_stranger_that_waits_is_known_after_a_restart_and_nobody_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let now = Timestamp::now();
        let mac: MacAddr = "3c:ec:ef:55:00:05".parse().unwrap();
        for (stage, listed) in [
            (Stage::Dhcp, false),
            (Stage::Script, false),
            (Stage::Dhcp, true),
        ] {
            let id = match listed {
                true => MachineId("kvm01".into()),
                false => MachineId::unlisted(mac),
            };
            let event = BootEvent::sent(now, id, stage, StageState::Ok, String::new());
            site.timeline.record_asking(event, Asker::PxeRom);
        }
        assert!(site.discovered(now).machines.is_empty());
        site.remember_strangers();
        let list = site.discovered(now).machines;
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].seen.mac, list[0].waiting), (mac, true));
        assert!(
            list[0].facts()[0].contains("has not asked since"),
            "{:?}",
            list[0].facts()
        );
        // It asks, and is known by what it says.
        let seen = Discovered::of_report(mac, Some("boot".into()), "", now);
        site.discovery.lock().saw(seen);
        let list = site.discovered(now).machines;
        assert!(!list[0].seen.restored);
        assert_eq!(list[0].seen.architecture, "BIOS unknown");
    }
}

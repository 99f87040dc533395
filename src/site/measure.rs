//! The gauges of a scrape, counted when somebody asks.

use std::collections::HashMap;
use std::hash::Hash;

use jiff::Timestamp;

use super::report::{MachineStatus, is_unlisted, machine_status};
use super::{ReloadState, Site};
use crate::inventory::model::Inventory;
use crate::metrics::{Each, Gauge, Label, LeaseState};
use crate::policy::event::{MachineId, Stage};
use crate::policy::progress::{Attempt, Machine, Standing};

/// How the listed hosts stand.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many stand how.
    pub standings: HashMap<Standing, usize>,
    /// The first that needs a look, as `status` lists them.
    pub first: Option<MachineStatus>,
}

impl Site {
    /// Sets the gauges that nobody counts along the way.
    pub fn measure(&self, reload: &ReloadState, now: Timestamp) {
        let snapshot = self.snapshot();
        let fleet = &self.metrics.fleet;
        let (stages, standings, unlisted) = self.count_machines(&snapshot.inventory, now);
        set(&fleet.hosts, &stages);
        set(&fleet.standing, &standings);
        fleet.unlisted.set(unlisted);
        fleet
            .reload_success
            .set(i64::from(reload.refused().is_none()));
        fleet.reload_timestamp.set(reload.served_since());
        let end = snapshot.tls.as_ref().and_then(|tls| tls.ends);
        fleet
            .certificate_end
            .set(end.map_or(0, Timestamp::as_second));
        let mut troubles = Count::new();
        for trouble in self.troubles() {
            *troubles.entry(trouble.part).or_default() += 1;
        }
        set(&fleet.troubles, &troubles);
        set(&self.metrics.leases.leases, &self.count_leases());
    }

    /// How the listed hosts stand, in a line's worth.
    pub fn tally(&self, now: Timestamp) -> Tally {
        let snapshot = self.snapshot();
        self.timeline.read(|machines| {
            let mut tally = Tally::default();
            for name in snapshot.inventory.hosts.keys() {
                let machine = machines.get(&MachineId(name.clone()));
                let standing = machine.map_or(Standing::Unseen, |machine| machine.standing(now));
                *tally.standings.entry(standing).or_default() += 1;
                if standing.needs_a_look() && tally.first.is_none() {
                    tally.first = machine.map(|known| machine_status(name, known, now));
                }
            }
            tally
        })
    }

    fn count_machines(
        &self,
        inventory: &Inventory,
        now: Timestamp,
    ) -> (Count<Stage>, Count<Standing>, i64) {
        let (mut stages, mut standings) = (Count::new(), Count::new());
        let unlisted = self.timeline.read(|machines| {
            for name in inventory.hosts.keys() {
                let machine = machines.get(&MachineId(name.clone()));
                let standing = machine.map_or(Standing::Unseen, |machine| machine.standing(now));
                *standings.entry(standing).or_default() += 1;
                let attempt = machine.and_then(Machine::attempt);
                if let Some(event) = attempt.and_then(Attempt::current) {
                    *stages.entry(event.stage).or_default() += 1;
                }
            }
            let unlisted = machines.keys().filter(|id| is_unlisted(inventory, id));
            i64::try_from(unlisted.count()).unwrap_or(i64::MAX)
        });
        (stages, standings, unlisted)
    }

    fn count_leases(&self) -> Count<LeaseState> {
        let now = self.journal.clock().now();
        let leases = self.leases();
        let mut count = Count::new();
        for (_, lease) in leases.iter() {
            let state = if lease.expires > now {
                LeaseState::Active
            } else {
                LeaseState::Expired
            };
            *count.entry(state).or_default() += 1;
        }
        let resting = leases.resting().filter(|rest| rest.until > now).count();
        count.insert(
            LeaseState::Declined,
            i64::try_from(resting).unwrap_or(i64::MAX),
        );
        count
    }
}

type Count<L> = HashMap<L, i64>;

fn set<L: Label + Eq + Hash>(gauges: &Each<L, Gauge>, count: &Count<L>) {
    for (label, gauge) in gauges.iter() {
        gauge.set(count.get(&label).copied().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;
    use crate::policy::event::{AttemptId, BootEvent, StageState};

    /// What a host said, in a boot of its own.
    fn says(site: &Site, host: &str, stage: Stage, state: StageState) {
        let (now, id) = (Timestamp::now(), MachineId(host.to_owned()));
        let mut event = BootEvent::sent(now, id, stage, state, "said".to_owned());
        event.begins = Some(AttemptId(format!("of {host}")));
        site.timeline.record(event);
    }

    #[test]
    fn the_tally_has_the_first_host_that_needs_a_look() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let tally = |site: &Site| site.tally(Timestamp::now());
        says(&site, "kvm01", Stage::Config, StageState::Ok);
        assert!(tally(&site).first.is_none());
        says(&site, "kvm02", Stage::Root, StageState::Fail);
        // Whom the inventory does not list is not counted.
        says(&site, "mac-525400000009", Stage::Root, StageState::Fail);
        let told = tally(&site);
        let standings = [(Standing::Running, 1), (Standing::Failed, 1)];
        assert_eq!(told.standings, standings.into());
        assert_eq!(told.first.map(|host| host.host).as_deref(), Some("kvm02"));
    }
}

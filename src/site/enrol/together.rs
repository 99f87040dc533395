//! Machines that are looked at together, as those of a rack that is switched on: each is decided on as if those before it
//! were listed already.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::inventory::model::{Host, MacAddr};
use crate::policy::discovered::Discovered;
use crate::policy::enrol::{Because, Decision, Enrol, Evidence, Taken, claim, is_hearsay};
use crate::site::Site;

/// Free hosts that are asked for one machine: of a rack that is switched on each takes one.
const ASKED_AHEAD: usize = 16;

/// What becomes of them.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// These are hosts, all of one file: no host twice.
    pub named: Vec<(MacAddr, Enrol)>,
    /// These wait.
    pub waits: Vec<(MacAddr, Because)>,
    /// These can't be decided on before those are hosts, or before somebody is asked once more.
    pub again: Vec<MacAddr>,
}

impl Site {
    /// The hosts of which is to be known whether they live, before these machines are decided on, and for whom each is
    /// asked. Notes who claims to be a host that has another machine.
    pub fn to_ask(&self, machines: &[Discovered], now: Timestamp) -> Vec<(Arc<Host>, MacAddr)> {
        let mut asked: BTreeMap<String, (Arc<Host>, MacAddr)> = BTreeMap::new();
        let (mut taken, mut ahead) = (Taken::default(), HashSet::new());
        for machine in machines {
            let Ok(claim) = self.claim(machine, &taken, now) else {
                continue;
            };
            let next_free = claim.because == Evidence::NextFree;
            if claim.replaces.is_some() && is_hearsay(machine, &claim.because) {
                self.enrolment.claims(machine.mac, &claim.host, now);
            }
            // Of those that say to be one host each counts as one that says so.
            if next_free {
                taken.insert(claim.host.name.clone());
            }
            let fresh = self.enrolment.is_fresh(&claim.host, now);
            let network = &claim.host.network.name;
            let hosts = match next_free && !fresh && ahead.insert(network.clone()) {
                true => self.from(&claim.host, now),
                false => Vec::from_iter((!fresh).then(|| claim.host.clone())),
            };
            for host in hosts {
                let name = host.name.clone();
                asked.entry(name).or_insert((host, machine.mac));
            }
        }
        asked.into_values().collect()
    }

    /// The host that a machine would be, by what is known of the lives of hosts.
    fn claim(&self, machine: &Discovered, taken: &Taken, now: Timestamp) -> Result<Enrol, Because> {
        let snapshot = self.snapshot();
        let (inventory, free) = (&snapshot.inventory, snapshot.free_hosts());
        let life = |host: &Host| self.life(host, machine.mac, now);
        claim(inventory, free, taken, machine, life, now)
    }

    /// A free host and those after it, as far as nobody has asked for them.
    fn from(&self, host: &Arc<Host>, now: Timestamp) -> Vec<Arc<Host>> {
        let snapshot = self.snapshot();
        let free = snapshot.free_hosts().on(&host.network.name).iter();
        let from = free.skip_while(|other| other.name != host.name).skip(1);
        let unknown = from.filter(|host| !self.enrolment.is_fresh(host, now));
        let after = unknown.take(ASKED_AHEAD - 1);
        std::iter::once(host).chain(after).cloned().collect()
    }

    /// What becomes of each.
    pub fn verdicts(&self, machines: &[Discovered], now: Timestamp) -> Verdicts {
        let (mut verdicts, mut taken) = (Verdicts::default(), Taken::default());
        for machine in machines {
            let mac = machine.mac;
            match self.verdict(machine, &taken, now) {
                Decision::Enrol(enrol) if self.waits_for_its_turn(&verdicts, &enrol, now) => {
                    verdicts.again.push(mac);
                }
                Decision::Enrol(enrol) => {
                    taken.insert(enrol.host.name.clone());
                    verdicts.named.push((mac, enrol));
                }
                // It is another's, with what follows from that.
                Decision::Wait(Because::Taken(_)) => verdicts.again.push(mac),
                Decision::Wait(Because::Unasked(host)) if self.can_ask(&host, now) => {
                    verdicts.again.push(mac);
                }
                Decision::Wait(because) => verdicts.waits.push((mac, because)),
            }
        }
        verdicts
    }

    /// The asking took long, or the host stands in another file than those that are named now.
    fn waits_for_its_turn(&self, verdicts: &Verdicts, enrol: &Enrol, now: Timestamp) -> bool {
        let file = &enrol.host.origin.file;
        let first = verdicts.named.first();
        let elsewhere = first.is_some_and(|(_, first)| first.host.origin.file != *file);
        elsewhere || !self.enrolment.is_fresh(&enrol.host, now)
    }

    /// Whether nobody has asked for a host lately.
    fn can_ask(&self, name: &str, now: Timestamp) -> bool {
        let snapshot = self.snapshot();
        let host = snapshot.inventory.hosts.get(name);
        host.is_some_and(|host| !self.enrolment.is_fresh(host, now))
    }
}

//! Boots that are under way when an edit comes keep what was served when they began: script, kernel, initrd,
//! configuration, files and secrets of one boot are of one inventory.
//!
//! DHCP goes by what is served now, whoever asks: addresses are one table. So a host that was removed, or that has
//! another address or MAC since, keeps nothing: the operator took it away, or somebody else may have its address.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;

use super::{Site, Snapshot};
use crate::inventory::model::{Host, MacAddr};
use crate::policy::event::{AttemptId, MachineId};
use crate::policy::progress::Machine;

/// Snapshots that are kept beside the one that is served. One of 10,000 hosts takes some 25 MB (measured), and boot
/// files that have changed their own size.
const MOST: usize = 4;

/// What one boot keeps.
#[derive(Debug, Clone)]
struct Pin {
    host: MachineId,
    /// How many edits there were before it was replaced.
    number: u64,
    snapshot: Arc<Snapshot>,
    /// Whether an edit since concerns the host.
    concerned: bool,
}

/// Boots under way that an edit came upon.
#[derive(Debug, Default)]
pub struct Pins {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pins: HashMap<AttemptId, Pin>,
    edits: u64,
}

impl Pins {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, attempt: &AttemptId) -> Option<Pin> {
        self.read().pins.get(attempt).cloned()
    }

    fn is_empty(&self) -> bool {
        self.read().pins.is_empty()
    }

    /// Whether an edit waits for the end of this boot.
    pub fn is_concerned(&self, attempt: &AttemptId) -> bool {
        self.read()
            .pins
            .get(attempt)
            .is_some_and(|pin| pin.concerned)
    }
}

impl Inner {
    /// Keeps `served` for all that are under way and keep nothing older; gives those that keep nothing any more.
    fn pin(&mut self, under_way: Vec<(MachineId, AttemptId)>, served: &Arc<Snapshot>) -> usize {
        self.edits += 1;
        let number = self.edits;
        let before = std::mem::take(&mut self.pins);
        for (host, attempt) in under_way {
            let pin = before.get(&attempt).cloned().unwrap_or_else(|| Pin {
                host,
                number,
                snapshot: served.clone(),
                concerned: false,
            });
            self.pins.insert(attempt, pin);
        }
        let numbers: BTreeSet<u64> = self.pins.values().map(|pin| pin.number).collect();
        let oldest = numbers.iter().rev().nth(MOST - 1).copied().unwrap_or(0);
        let all = self.pins.len();
        self.pins.retain(|_, pin| pin.number >= oldest);
        all - self.pins.len()
    }
}

impl Site {
    /// Serves another snapshot from now on; boots under way keep the one that they began with. `concerned` are the
    /// hosts that the edit means something to.
    pub fn replace(&self, snapshot: Arc<Snapshot>, concerned: &BTreeSet<String>) {
        let served = self.snapshot();
        let under_way = self.attempts_under_way(&served, Timestamp::now());
        let mut pins = self.pins.write();
        let dropped = pins.pin(under_way, &served);
        for pin in pins.pins.values_mut() {
            pin.concerned |= concerned.contains(&pin.host.0);
        }
        drop(pins);
        if dropped > 0 {
            tracing::warn!(
                "{dropped} boots began more than {MOST} edits ago: they get the rest of what is served now"
            );
        }
        self.serve(snapshot);
    }

    fn attempts_under_way(&self, served: &Snapshot, now: Timestamp) -> Vec<(MachineId, AttemptId)> {
        self.timeline.read(|machines| {
            let listed = machines.iter();
            let listed = listed.filter(|(id, _)| served.inventory.hosts.contains_key(&id.0));
            let attempts = listed.flat_map(|(id, machine)| {
                let attempts = machine.under_way(now);
                attempts.map(|attempt| (id.clone(), attempt.id.clone()))
            });
            attempts.collect()
        })
    }

    /// Lets go what boots kept that have ended.
    pub fn unpin(&self) {
        if self.pins.is_empty() {
            return;
        }
        let now = Timestamp::now();
        let ended: Vec<AttemptId> = {
            let pins = self.pins.read();
            self.timeline.read(|machines| {
                let ended = |(attempt, pin): &(&AttemptId, &Pin)| {
                    let machine = machines.get(&pin.host);
                    machine.is_none_or(|machine| !is_under_way(machine, attempt, now))
                };
                let ended = pins.pins.iter().filter(ended);
                ended.map(|(attempt, _)| attempt.clone()).collect()
            })
        };
        let mut pins = self.pins.write();
        for attempt in ended {
            pins.pins.remove(&attempt);
        }
    }

    /// What an attempt of a listed host boots by, and the host as it is there.
    pub fn boots_by(&self, host: &Arc<Host>, attempt: &AttemptId) -> (Arc<Snapshot>, Arc<Host>) {
        let kept = self
            .pins
            .of(attempt)
            .and_then(|pin| self.kept(host, attempt, pin));
        kept.unwrap_or_else(|| (self.snapshot(), host.clone()))
    }

    fn kept(
        &self,
        host: &Arc<Host>,
        attempt: &AttemptId,
        pin: Pin,
    ) -> Option<(Arc<Snapshot>, Arc<Host>)> {
        let before = pin.snapshot.inventory.hosts.get(&host.name)?;
        let goes_on = self.timeline.read(|machines| {
            let machine = machines.get(&pin.host)?;
            Some(is_under_way(machine, attempt, Timestamp::now()))
        })?;
        let same = pin.host.0 == host.name && identity(before) == identity(host);
        (goes_on && same).then(|| (pin.snapshot.clone(), before.clone()))
    }

    /// What the machine at an address fetches its boot files from.
    pub fn files_for(&self, peer: Ipv4Addr) -> Arc<Snapshot> {
        let of = || {
            let host = self.machine_at(peer)?.host?;
            let id = MachineId(host.name.clone());
            let attempts = self.timeline.read(|machines| {
                let attempts = machines.get(&id)?.under_way(Timestamp::now());
                Some(
                    attempts
                        .map(|attempt| attempt.id.clone())
                        .collect::<Vec<_>>(),
                )
            })?;
            let pinned = |attempt| Some((attempt, self.pins.of(attempt)?));
            let (attempt, pin) = attempts.iter().find_map(pinned)?;
            Some(self.kept(&host, attempt, pin)?.0)
        };
        let kept = if self.pins.is_empty() { None } else { of() };
        kept.unwrap_or_else(|| self.snapshot())
    }
}

fn is_under_way(machine: &Machine, attempt: &AttemptId, now: Timestamp) -> bool {
    machine.under_way(now).any(|known| known.id == *attempt)
}

/// What makes a machine on the wire this host.
fn identity(host: &Host) -> (Vec<MacAddr>, Vec<Ipv4Addr>) {
    let macs = host.macs.iter().map(|mac| **mac).collect();
    let others = host.addresses.values().map(|at| at.addr());
    let own = [*host.ip, host.home.address.addr()];
    (macs, own.into_iter().chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;
    use crate::policy::client::Asker;
    use crate::policy::event::{BootEvent, Evidence, Stage, StageState};

    fn event(stage: Stage, state: StageState) -> BootEvent {
        let machine = MachineId("kvm01".into());
        BootEvent::sent(Timestamp::now(), machine, stage, state, String::new())
    }

    /// The firmware's first question: the loader was there, so it is a power-on of its own.
    fn powers_on(site: &Site) -> AttemptId {
        site.timeline
            .record_asking(event(Stage::Dhcp, StageState::Ok), Asker::PxeRom);
        site.timeline.record(event(Stage::Loader, StageState::Ok));
        let id = MachineId("kvm01".into());
        site.timeline.attempt(&id, Timestamp::now())
    }

    fn edit(site: &Site, dir: &std::path::Path) -> Arc<Snapshot> {
        let new = Arc::new(testing::snapshot(dir));
        site.replace(new.clone(), &["kvm01".to_owned()].into());
        new
    }

    fn booted_by(site: &Site, attempt: &AttemptId) -> Arc<Snapshot> {
        let host = site.snapshot().inventory.hosts["kvm01"].clone();
        site.boots_by(&host, attempt).0
    }

    #[test]
    fn a_boot_keeps_its_snapshot_until_it_has_failed_and_a_forged_one_keeps_nothing_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let first = site.snapshot();
        let boot = powers_on(&site);
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &first));
        let second = edit(&site, dir.path());
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &first));
        assert!(site.pins.is_concerned(&boot));
        // Somebody forges a power-on; the boot that it hides goes on.
        let forged = powers_on(&site);
        assert_ne!(boot, forged);
        edit(&site, dir.path());
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &first));
        assert!(Arc::ptr_eq(&booted_by(&site, &forged), &second));
        let mut failed = event(Stage::Root, StageState::Fail);
        failed.evidence = Evidence::Reported;
        failed.attempt = Some(boot.clone());
        site.timeline.record(failed);
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &site.snapshot()));
        site.unpin();
        assert!(site.pins.is_empty());
    }

    #[test]
    fn few_snapshots_are_kept_however_many_edits_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let first = Arc::downgrade(&site.snapshot());
        let mut inner = Inner::default();
        let mut attempts = Vec::new();
        for number in 0..10 {
            let (host, attempt) = (
                MachineId(format!("h{number}")),
                AttemptId(number.to_string()),
            );
            attempts.push((host, attempt));
            let dropped = inner.pin(attempts.clone(), &site.snapshot());
            assert_eq!(dropped, usize::from(number >= MOST));
            attempts.drain(..dropped);
            site.serve(Arc::new(testing::snapshot(dir.path())));
        }
        assert_eq!(inner.pins.len(), MOST);
        assert!(first.upgrade().is_none(), "it is let go");
        inner.pin(Vec::new(), &site.snapshot());
        assert!(inner.pins.is_empty());
    }
}

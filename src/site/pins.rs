//! A boot that is under way when an edit comes keeps what its script was made of: script, kernel, initrd,
//! configuration, files and secrets of one boot are of one inventory.
//!
//! DHCP goes by what is served now, whoever asks: addresses are one table. So a host that was removed, or that has
//! another address or MAC since, keeps nothing: the operator took it away, or somebody else may have its address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;

use super::{Site, Snapshot};
use crate::assets::stage_of;
use crate::inventory::model::{Host, MacAddr};
use crate::inventory::outline::Changes;
use crate::policy::event::{AttemptId, MachineId, Stage};
use crate::policy::progress::Machine;

/// Snapshots that are kept beside the one that is served. One of 10,000 hosts takes some 25 MB (measured), and boot
/// files that have changed their own size.
const MOST: usize = 4;

/// The boot that a host was last given a script or configuration for.
#[derive(Debug, Clone)]
struct Boot {
    attempt: AttemptId,
    /// What they were made of; or a later one that means the same to the host.
    snapshot: Arc<Snapshot>,
    /// How many edits there had been when that came to be served.
    number: u64,
    /// Whether an edit since concerns the host.
    waits: bool,
}

/// What each host that is given anything boots by.
#[derive(Debug, Default)]
pub struct Pins {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    boots: HashMap<MachineId, Boot>,
    edits: u64,
}

impl Pins {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, host: &Host) -> Option<Boot> {
        let id = MachineId(host.name.clone());
        self.read().boots.get(&id).cloned()
    }

    /// Whether an edit waits for the end of this boot.
    pub fn edit_waits(&self, host: &MachineId, attempt: &AttemptId) -> bool {
        let inner = self.read();
        let boot = inner.boots.get(host);
        boot.is_some_and(|boot| boot.waits && boot.attempt == *attempt)
    }
}

impl Inner {
    /// Takes those to `new` that it means the same to. The rest keeps what it has, of the newest few edits; gives how
    /// many keep nothing any more.
    fn edit(&mut self, new: &Arc<Snapshot>, concerns: impl Fn(&MachineId) -> Concern) -> usize {
        let before = self.edits;
        self.edits += 1;
        for (host, boot) in &mut self.boots {
            let concern = concerns(host);
            boot.waits |= concern == Concern::Its;
            if concern == Concern::No && boot.number == before {
                boot.snapshot = new.clone();
                boot.number = self.edits;
            }
        }
        let old = self.boots.values().map(|boot| boot.number);
        let old: BTreeSet<u64> = old.filter(|number| *number < self.edits).collect();
        let oldest = old.iter().rev().nth(MOST - 1).copied().unwrap_or(0);
        let all = self.boots.len();
        self.boots.retain(|_, boot| boot.number >= oldest);
        all - self.boots.len()
    }
}

/// What an edit is to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concern {
    /// Nothing.
    No,
    /// It is of what all boot by: a network, a boot file, a template.
    Perhaps,
    /// It is of the host, or of its profile.
    Its,
}

impl Site {
    /// Serves another snapshot from now on. A boot under way that the edit concerns keeps the one that it has.
    pub fn replace(&self, snapshot: Arc<Snapshot>, changes: &Changes) {
        let now = Timestamp::now();
        let concerned = changes.hosts();
        // Nobody is given anything in between.
        let mut pins = self.pins.write();
        let served = self.snapshot();
        let wide = changes.are_wide() || !snapshot.boots_like(&served);
        self.timeline.read(|machines| {
            let goes_on = |id: &MachineId, boot: &mut Boot| {
                is_under_way(machines.get(id), &boot.attempt, now)
            };
            pins.boots.retain(goes_on);
        });
        let dropped = pins.edit(&snapshot, |id| match concerned.contains(&id.0) {
            true => Concern::Its,
            false if wide => Concern::Perhaps,
            false => Concern::No,
        });
        self.serve(snapshot);
        drop(pins);
        if dropped > 0 {
            tracing::warn!(
                "{dropped} boots began more than {MOST} edits ago: they get the rest of what is served now"
            );
        }
    }

    /// Who is booting by what it was given: to each an edit applies at its next boot.
    pub(super) fn under_way(&self, now: Timestamp) -> BTreeMap<String, String> {
        let pins = self.pins.read();
        self.timeline.read(|machines| {
            let going = |(id, boot): &(&MachineId, &Boot)| {
                is_under_way(machines.get(*id), &boot.attempt, now)
            };
            let going = pins.boots.iter().filter(going);
            going
                .map(|(id, boot)| (id.0.clone(), boot.attempt.0.clone()))
                .collect()
        })
    }

    /// Lets go what boots kept that have ended.
    pub fn unpin(&self) {
        let is_old = |pins: &Inner| pins.boots.values().any(|boot| boot.number < pins.edits);
        if !is_old(&self.pins.read()) {
            return;
        }
        let now = Timestamp::now();
        let mut pins = self.pins.write();
        let edits = pins.edits;
        self.timeline.read(|machines| {
            pins.boots.retain(|id, boot| {
                boot.number == edits || is_under_way(machines.get(id), &boot.attempt, now)
            });
        });
    }

    /// What an attempt of a listed host boots by, and the host as it is there: what it was given before, or from now on
    /// what is served now.
    pub fn boots_by(&self, host: &Arc<Host>, attempt: &AttemptId) -> (Arc<Snapshot>, Arc<Host>) {
        let same = |boot: &Boot| boot.attempt == *attempt;
        let boot = self.pins.of(host).filter(same);
        if let Some(kept) = boot.and_then(|boot| self.kept(host, boot)) {
            return kept;
        }
        let mut pins = self.pins.write();
        let snapshot = self.snapshot();
        let boot = Boot {
            attempt: attempt.clone(),
            snapshot: snapshot.clone(),
            number: pins.edits,
            waits: false,
        };
        pins.boots.insert(MachineId(host.name.clone()), boot);
        drop(pins);
        let now = snapshot.inventory.hosts.get(&host.name).cloned();
        (snapshot, now.unwrap_or_else(|| host.clone()))
    }

    fn kept(&self, host: &Arc<Host>, boot: Boot) -> Option<(Arc<Snapshot>, Arc<Host>)> {
        let before = boot.snapshot.inventory.hosts.get(&host.name)?.clone();
        let id = MachineId(host.name.clone());
        let now = Timestamp::now();
        let goes_on = self
            .timeline
            .read(|machines| is_under_way(machines.get(&id), &boot.attempt, now));
        (goes_on && identity(&before) == identity(host)).then_some((boot.snapshot, before))
    }

    /// What the machine at an address fetches this boot file from: what its newest script was made of. A loader is
    /// fetched before there is one, so it is that boot's only where no newer one has begun.
    pub fn files_for(&self, peer: Ipv4Addr, path: &str) -> Arc<Snapshot> {
        let of = || {
            let host = self.machine_at(peer)?.host?;
            let boot = self.pins.of(&host)?;
            let newest = || {
                let id = MachineId(host.name.clone());
                self.timeline.read(|machines| {
                    let newest = machines.get(&id).and_then(Machine::attempt);
                    newest.is_some_and(|newest| newest.id == boot.attempt)
                })
            };
            if stage_of(path) == Stage::Loader && !newest() {
                return None;
            }
            Some(self.kept(&host, boot)?.0)
        };
        of().unwrap_or_else(|| self.snapshot())
    }
}

fn is_under_way(machine: Option<&Machine>, attempt: &AttemptId, now: Timestamp) -> bool {
    machine.is_some_and(|machine| machine.under_way(now).any(|known| known.id == *attempt))
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
    use std::fs;

    use jiff::ToSpan;

    use super::*;
    use crate::explain::testing;
    use crate::policy::client::Asker;
    use crate::policy::event::{BootEvent, Evidence, Stage, StageState};

    const KVM01: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
    const INITRD: &str = "initrds/default.img";

    fn event(stage: Stage, state: StageState) -> BootEvent {
        let machine = MachineId("kvm01".into());
        BootEvent::sent(Timestamp::now(), machine, stage, state, String::new())
    }

    /// The firmware's first question: the loader was there, so it is a power-on of its own.
    fn powers_on(site: &Site) -> AttemptId {
        powers_on_at(site, Timestamp::now())
    }

    fn powers_on_at(site: &Site, at: Timestamp) -> AttemptId {
        let mut asks = event(Stage::Dhcp, StageState::Ok);
        asks.at = at;
        site.timeline.record_asking(asks, Asker::PxeRom);
        let mut loader = event(Stage::Loader, StageState::Ok);
        loader.at = at;
        site.timeline.record(loader);
        let id = MachineId("kvm01".into());
        site.timeline.attempt(&id, Timestamp::now())
    }

    fn changes(site: &Site, new: &Snapshot) -> Changes {
        site.outline(Timestamp::now())
            .changes(&new.inventory.outline())
    }

    /// Changes the inventory's text, and serves it.
    fn edit(site: &Site, dir: &std::path::Path, old: &str, new: &str) -> Arc<Snapshot> {
        let edited = Arc::new(testing::edited(dir, &site.snapshot(), old, new));
        site.replace(edited.clone(), &changes(site, &edited));
        edited
    }

    /// Builds the initrd anew, under its name.
    fn rebuild(site: &Site, dir: &std::path::Path, text: &str) -> Arc<Snapshot> {
        fs::write(dir.join("data").join(INITRD), text).unwrap();
        edit(site, dir, "", "")
    }

    fn booted_by(site: &Site, attempt: &AttemptId) -> Arc<Snapshot> {
        let host = site.snapshot().inventory.hosts["kvm01"].clone();
        site.boots_by(&host, attempt).0
    }

    fn fetched(site: &Site, path: &str) -> String {
        let kept = site.files_for(KVM01, path);
        String::from_utf8_lossy(&kept.assets.get(path).unwrap().bytes).into_owned()
    }

    fn kept(site: &Site) -> usize {
        let pins = site.pins.read();
        let old = pins.boots.values().filter(|boot| boot.number < pins.edits);
        old.count()
    }

    const CMDLINE: &str = "console=ttyS0";

    #[test]
    fn a_boot_keeps_its_snapshot_until_it_has_failed_also_where_a_forged_one_hides_it() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let first = site.snapshot();
        let boot = powers_on(&site);
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &first));
        edit(&site, dir.path(), CMDLINE, "console=ttyS1");
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &first));
        assert!(site.pins.edit_waits(&MachineId("kvm01".into()), &boot));
        // Somebody forges a power-on; the boot that it hides goes on.
        let forged = powers_on(&site);
        assert_ne!(boot, forged);
        edit(&site, dir.path(), "console=ttyS1", "console=ttyS2");
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &first));
        assert!(Arc::ptr_eq(&site.files_for(KVM01, INITRD), &first));
        let mut failed = event(Stage::Root, StageState::Fail);
        failed.evidence = Evidence::Reported;
        failed.attempt = Some(boot.clone());
        site.timeline.record(failed);
        site.unpin();
        assert_eq!(kept(&site), 0);
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &site.snapshot()));
    }

    #[test]
    fn files_are_of_the_newest_script_and_loaders_of_the_newest_power_on() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let stalled = powers_on(&site);
        booted_by(&site, &stalled);
        rebuild(&site, dir.path(), "mended");
        let loader = "loaders/undionly.kpxe";
        let loaders = dir.path().join("data").join(loader);
        fs::write(loaders, "newer").unwrap();
        edit(&site, dir.path(), "", "");
        assert_eq!(fetched(&site, INITRD), "initrd");
        assert_eq!(fetched(&site, loader), "undionly");
        // The operator switches it off and on.
        let anew = powers_on(&site);
        assert_eq!(fetched(&site, loader), "newer");
        booted_by(&site, &anew);
        assert_eq!(fetched(&site, INITRD), "mended");
    }

    #[test]
    fn an_edit_that_concerns_no_host_under_way_takes_none_of_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let boot = powers_on(&site);
        booted_by(&site, &boot);
        let hosts = |number: usize| {
            format!(
                "hosts:\n  new{number}: {{mac: \"52:54:00:00:02:{number:02}\", ip: 10.77.0.{}, profile: kvm}}\n",
                30 + number
            )
        };
        for number in 0..MOST + 2 {
            edit(&site, dir.path(), "hosts:\n", &hosts(number));
            assert_eq!(kept(&site), 0);
        }
        let before = booted_by(&site, &boot);
        edit(&site, dir.path(), CMDLINE, "console=ttyS1");
        for number in MOST + 2..2 * MOST + 4 {
            edit(&site, dir.path(), "hosts:\n", &hosts(number));
        }
        assert!(Arc::ptr_eq(&booted_by(&site, &boot), &before));
        assert!(site.pins.edit_waits(&MachineId("kvm01".into()), &boot));
        // What no line of a host tells may be the host's all the same.
        for (old, new) in [
            ("site: test", "site: other"),
            ("    router: 10.77.0.1\n", ""),
        ] {
            let boot = powers_on(&site);
            let before = booted_by(&site, &boot);
            edit(&site, dir.path(), old, new);
            assert!(Arc::ptr_eq(&booted_by(&site, &boot), &before), "{old}");
        }
    }

    #[test]
    fn few_snapshots_are_kept_however_many_edits_there_are_and_none_for_the_dead() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let first = Arc::downgrade(&site.snapshot());
        let boot = powers_on(&site);
        booted_by(&site, &boot);
        for number in 0..MOST {
            rebuild(&site, dir.path(), &number.to_string());
            // Others that began by what this edit served.
            let other = Boot {
                attempt: boot.clone(),
                snapshot: site.snapshot(),
                number: site.pins.read().edits,
                waits: false,
            };
            let mut pins = site.pins.write();
            let id = MachineId(format!("other{number}"));
            pins.boots.insert(id.clone(), other);
            drop(pins);
            let mut began = event(Stage::Dhcp, StageState::Ok);
            began.machine = id;
            began.begins = Some(boot.clone());
            site.timeline.record(began);
        }
        assert!(first.upgrade().is_some() && kept(&site) == MOST);
        rebuild(&site, dir.path(), "last");
        assert!(first.upgrade().is_none(), "it is let go");
        assert_eq!(kept(&site), MOST);
        // No edit makes it keep what it did not begin with.
        rebuild(&site, dir.path(), "more");
        assert!(
            site.under_way(Timestamp::now())
                .keys()
                .all(|host| host != "kvm01")
        );
    }

    #[test]
    fn a_boot_that_was_silent_for_an_hour_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let first = Arc::downgrade(&site.snapshot());
        let boot = powers_on_at(&site, Timestamp::now() - 59.minutes());
        booted_by(&site, &boot);
        rebuild(&site, dir.path(), "other");
        assert_eq!(fetched(&site, INITRD), "initrd");
        let dead = powers_on_at(&site, Timestamp::now() - 61.minutes());
        booted_by(&site, &dead);
        rebuild(&site, dir.path(), "another");
        assert_eq!(fetched(&site, INITRD), "another");
        assert!(kept(&site) == 0 && first.upgrade().is_none());
    }
}

//! The site as it is served: one snapshot of inventory, boot files and templates, and
//! beside it what changes: leases and the timeline.
//!
//! TFTP, HTTP and DHCP ask here; none of them knows of the others.

pub mod approval;
pub mod boot;
pub mod discovery;
pub mod enrol;
pub mod handout;
pub mod host_config;
pub mod host_files;
pub mod inventory_boot;
pub mod keep;
mod links;
mod loader_failed;
mod measure;
pub mod menu;
mod naming;
mod on_link;
pub mod others;
mod outline;
pub mod own;
mod pins;
pub mod posts;
pub mod rehearse;
mod reload;
pub mod report;
pub mod secrets;
pub mod snapshot;
mod tls;
pub mod trouble;
pub mod whom;
pub mod why;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::assets::stage_of;
use crate::inventory::model::{Host, MacAddr};
use crate::leases::Journal;
use crate::metrics::Metrics;
use crate::policy::dhcp::OwnAddresses;
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::policy::lease::LeaseTable;
use crate::policy::moving::Moving;
use crate::scribe::Scribe;
use crate::timeline::Timeline;

pub use measure::Tally;
pub use on_link::Neighbours;
pub use reload::{NOT_SERVED, ReloadState};
pub use snapshot::{Paths, RootImage, Snapshot};
pub use tls::Tls;

/// Everything that the servers share.
#[derive(Debug)]
pub struct Site {
    snapshot: RwLock<Arc<Snapshot>>,
    /// The leases, and where their changes become durable.
    pub journal: Journal,
    /// What happened.
    pub timeline: Timeline,
    /// Who was announced which files, and took them.
    pub handout: handout::Handout,
    /// Other DHCP servers that answer.
    pub others: others::OtherServers,
    /// Machines that boot and are not listed.
    pub discovery: discovery::Discovery,
    /// Machines that become hosts by themselves.
    pub enrolment: enrol::Enrolment,
    own: RwLock<Arc<OwnAddresses>>,
    /// Who has which address where another server gives them.
    pub neighbours: Neighbours,
    /// What boots under way keep over an edit.
    pub pins: pins::Pins,
    /// What is wrong with the daemon itself.
    pub troubles: trouble::Troubles,
    /// Who edits the inventory's file.
    pub scribe: Scribe,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A machine as an address or MAC leads to it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name in events.
    pub id: MachineId,
    /// The listed host, if it is one.
    pub host: Option<Arc<Host>>,
    /// The MAC that holds the address, where that is known.
    pub mac: Option<MacAddr>,
}

impl Site {
    /// Puts the parts together.
    pub fn new(
        snapshot: Snapshot,
        journal: Journal,
        timeline: Timeline,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            snapshot: RwLock::new(Arc::new(snapshot)),
            journal,
            timeline,
            handout: handout::Handout::default(),
            others: others::OtherServers::default(),
            discovery: discovery::Discovery::default(),
            enrolment: enrol::Enrolment::default(),
            own: RwLock::default(),
            neighbours: Neighbours::default(),
            pins: pins::Pins::default(),
            troubles: trouble::Troubles::default(),
            scribe: Scribe::new().0,
            metrics,
        }
    }

    /// The same with somebody who edits the inventory's file.
    #[must_use]
    pub fn written_by(self, scribe: Scribe) -> Self {
        Self { scribe, ..self }
    }

    /// The same with other neighbours than the kernel's.
    #[must_use]
    pub fn beside(self, neighbours: Neighbours) -> Self {
        Self { neighbours, ..self }
    }

    /// What is served now. It is replaced whole, never changed.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let guard = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    fn serve(&self, snapshot: Arc<Snapshot>) {
        let mut guard = self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *guard = snapshot;
    }

    /// The lease table, for the length of one decision.
    pub fn leases(&self) -> MutexGuard<'_, LeaseTable> {
        self.journal.leases()
    }

    /// Who holds a lease of the address now.
    pub fn lease_holder(&self, address: Ipv4Addr) -> Option<MacAddr> {
        let now = self.journal.clock().now();
        self.leases().holder(address, now)
    }

    /// Who has this address: a listed host, or the holder of a lease.
    pub fn machine_at(&self, address: Ipv4Addr) -> Option<Found> {
        let snapshot = self.snapshot();
        let holder = self.holder(address);
        let listed = match holder {
            Some(mac) if self.is_beside(address) => snapshot.inventory.by_mac.get(&mac).cloned(),
            // A lease outlives the edit that gives its address to a host, which gets it only then.
            Some(mac) => snapshot.host_at(address).filter(|host| host.has(mac)),
            None => snapshot.host_at(address),
        };
        if let Some(host) = listed {
            let id = MachineId(host.name.clone());
            return Some(Found {
                id,
                host: Some(host),
                mac: None,
            });
        }
        let mac = holder?;
        let host = snapshot.inventory.by_mac.get(&mac).cloned();
        let id = host.as_ref().map_or_else(
            || MachineId::unlisted(mac),
            |host| MachineId(host.name.clone()),
        );
        Some(Found {
            id,
            host,
            mac: Some(mac),
        })
    }

    /// Takes an event of the daemon's own doing in, for whoever has the address.
    pub fn note(&self, peer: Ipv4Addr, stage: Stage, state: StageState, message: String) {
        let now = Timestamp::now();
        let machine = self
            .machine_at(peer)
            .map_or_else(MachineId::wire, |found| found.id);
        self.timeline
            .record(BootEvent::sent(now, machine, stage, state, message));
    }

    /// Takes in that whoever has the address has so much of a file which it has fetched for so long.
    pub fn fetches(
        &self,
        peer: Ipv4Addr,
        file: &str,
        elapsed: Duration,
        (taken, total): (u64, u64),
    ) {
        let Some(found) = self.machine_at(peer) else {
            return;
        };
        let at = Timestamp::now();
        let began = SignedDuration::try_from(elapsed)
            .ok()
            .and_then(|span| at.checked_sub(span).ok());
        let moving = Moving {
            file: file.to_owned(),
            stage: stage_of(file),
            began: began.unwrap_or(at),
            at,
            taken,
            total,
        };
        self.timeline.fetches(&found.id, moving);
    }
}

/// Hosts by address, made once per snapshot.
type ByAddress = HashMap<Ipv4Addr, Arc<Host>>;

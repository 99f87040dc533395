//! Machines that become hosts by themselves: one after the other, so that each decision knows those before it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::inventory::model::{Host, MacAddr, Network};
use crate::metrics::EnrolResult;
use crate::policy::discovered::Discovered;
use crate::policy::enrol::{Decision, Enrol, Evidence, claim};
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::scribe::{Edit, Refusal};
use crate::site::Site;

/// How soon an edit is served: ten thousand hosts take some seconds.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// A host that runs takes or refuses a connection within.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);
/// SSH: most hosts take it, and others refuse it.
const PORT: u16 = 22;

/// Looks at each machine that waits when it asks or tells something.
pub(super) async fn run(site: Arc<Site>, shutdown: CancellationToken) {
    loop {
        let mac = tokio::select! {
            () = shutdown.cancelled() => return,
            mac = site.enrolment.next() => mac,
        };
        if let Some(machine) = site.discovery.machine(mac) {
            look_at(&site, &machine).await;
        }
    }
}

async fn look_at(site: &Site, machine: &Discovered) {
    let snapshot = site.snapshot();
    let inventory = &snapshot.inventory;
    let unknown = inventory.unknown_on(machine.network.as_deref());
    if inventory.by_mac.contains_key(&machine.mac) || !unknown.policy.enrols() {
        return site.enrolment.done(machine.mac);
    }
    if let Ok(claim) = claim(inventory, machine)
        && claim.replaces.is_some()
    {
        look_for_life(site, machine.mac, &claim).await;
    }
    match site.verdict(machine, Timestamp::now()) {
        Decision::Enrol(enrol) => enlist(site, machine.mac, &enrol).await,
        Decision::Wait(because) => {
            let words = format!("waits: {because}");
            if waits(site, machine.mac, &words, EnrolResult::Waits) && because.is_suspicious() {
                tracing::warn!("{} {words}", machine.mac);
            }
        }
    }
}

/// Whether somebody has the address of the host that a machine would replace.
async fn look_for_life(site: &Site, mac: MacAddr, claim: &Enrol) {
    let host = &claim.host;
    if matches!(claim.because, Evidence::Serial(_)) {
        site.enrolment.claims(mac, host, Timestamp::now());
    }
    if answers(site, host, mac).await {
        site.enrolment.answered(host, Timestamp::now());
    }
}

async fn answers(site: &Site, host: &Host, claimant: MacAddr) -> bool {
    let home = host.home.address.addr();
    let elsewhere = (home != *host.ip).then_some((home, &host.home.network));
    for (address, network) in [(*host.ip, &host.network)].into_iter().chain(elsewhere) {
        let lives = match on_link(site, network) {
            true => {
                let holder = site.enrolment.who_has(address).await;
                holder.is_some_and(|holder| holder != claimant)
            }
            false => connects(address).await,
        };
        if lives {
            return true;
        }
    }
    false
}

fn on_link(site: &Site, network: &Network) -> bool {
    let own = site.own();
    own.all
        .iter()
        .any(|address| network.subnet.contains(address))
}

/// Behind a router no ARP tells.
async fn connects(address: Ipv4Addr) -> bool {
    let connect = TcpStream::connect((address, PORT));
    match tokio::time::timeout(CONNECTS_WITHIN, connect).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

/// Writes the inventory's file, and waits until that is served.
async fn enlist(site: &Site, mac: MacAddr, enrol: &Enrol) {
    let name = &enrol.host.name;
    let edit = Edit::SetMac {
        host: name.clone(),
        mac,
        replacing: enrol.replaces,
    };
    if let Err(refusal) = site.scribe.edit(edit, false).await {
        return unwritten(site, mac, enrol, &refusal);
    }
    let result = match enrol.replaces {
        Some(_) => EnrolResult::Replaced,
        None => EnrolResult::Enrolled,
    };
    site.metrics.enrol.decisions.of(result).inc();
    site.enrolment.done(mac);
    let message = format!("{mac} {enrol}");
    record(site, MachineId(name.clone()), StageState::Info, message);
    site.enrolment.written.notify_one();
    let served = async {
        while !site.snapshot().inventory.by_mac.contains_key(&mac) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // A refused edit is told of by the reload.
    let _ = tokio::time::timeout(SERVED_WITHIN, served).await;
}

fn unwritten(site: &Site, mac: MacAddr, enrol: &Enrol, refusal: &Refusal) {
    let why = refusal.words.lines().next().unwrap_or_default();
    let words = format!("waits: it {enrol}, but the inventory's file was not written: {why}");
    if waits(site, mac, &words, EnrolResult::Unwritten) {
        tracing::error!("{mac} {words}\n{refusal}");
    }
}

/// Says why a machine waits, if that was not said before; whether it was new.
fn waits(site: &Site, mac: MacAddr, words: &str, result: EnrolResult) -> bool {
    let new = site.enrolment.says(mac, words);
    if new {
        site.metrics.enrol.decisions.of(result).inc();
        let id = MachineId::unlisted(mac);
        record(site, id, StageState::Info, words.to_owned());
    }
    new
}

fn record(site: &Site, machine: MachineId, state: StageState, message: String) {
    let event = BootEvent::sent(Timestamp::now(), machine, Stage::Script, state, message);
    site.timeline.record(event);
}

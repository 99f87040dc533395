//! Machines that become hosts by themselves: one after the other, so that each decision knows those before it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::inventory::model::{Host, MacAddr, Network};
use crate::metrics::EnrolResult;
use crate::policy::discovered::Discovered;
use crate::policy::enrol::{Asked, Decision, Enrol, Evidence, is_hearsay};
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::scribe::{Edit, Refusal};
use crate::site::Site;
use crate::site::enrol::Holders;
use crate::site::own::of_machine;

/// How soon an edit is served: ten thousand hosts take some seconds.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// Hosts that are asked for one machine at a time.
const MOST_ASKED: usize = 64;
/// Hosts that are asked at one time.
const ASKED_AHEAD: usize = 16;
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
        if let Some(machine) = site.stranger(mac) {
            look_at(&site, &machine).await;
        }
    }
}

async fn look_at(site: &Arc<Site>, machine: &Discovered) {
    let snapshot = site.snapshot();
    let inventory = &snapshot.inventory;
    let unknown = inventory.unknown_on(machine.network.as_deref());
    if inventory.by_mac.contains_key(&machine.mac) || !unknown.policy.enrols() {
        return site.enrolment.done(machine.mac);
    }
    look_for_life(site, machine).await;
    let now = Timestamp::now();
    match site.verdict(machine, now) {
        // It took long: its turn comes again.
        Decision::Enrol(enrol) if !site.enrolment.is_fresh(&enrol.host, now) => {
            site.enrolment.consider(machine.mac);
        }
        Decision::Enrol(enrol) => enlist(site, machine.mac, &enrol).await,
        Decision::Wait(because) => {
            let words = format!("waits: {because}");
            let new = waits(
                site,
                machine.mac,
                &words,
                because.disputed(),
                EnrolResult::Waits,
            );
            if new && because.is_suspicious() {
                tracing::warn!("{} {words}", machine.mac);
            }
        }
    }
}

/// Asks whether the host lives that a machine would be; where that is the next free one, and lives, also the one after.
async fn look_for_life(site: &Arc<Site>, machine: &Discovered) {
    for _ in 0..MOST_ASKED {
        let now = Timestamp::now();
        let Ok(claim) = site.claim(machine, now) else {
            return;
        };
        let host = &claim.host;
        if claim.replaces.is_some() && is_hearsay(machine, &claim.because) {
            site.enrolment.claims(machine.mac, host, now);
        }
        if site.enrolment.is_fresh(host, now) {
            return;
        }
        let mut asked = JoinSet::new();
        for host in asked_together(site, &claim, now) {
            let site = site.clone();
            asked.spawn(async move { (holders(&site, &host).await, host) });
        }
        while let Some(done) = asked.join_next().await {
            // A panic is one that could not be asked.
            if let Ok((found, host)) = done {
                let now = Timestamp::now();
                site.enrolment.looked(&host, machine.mac, &found, now);
            }
        }
    }
}

/// The host, and where it is the next free one also those after it: of a rack that is switched on each takes one.
fn asked_together(site: &Site, claim: &Enrol, now: Timestamp) -> Vec<Arc<Host>> {
    if claim.because != Evidence::NextFree {
        return vec![claim.host.clone()];
    }
    let snapshot = site.snapshot();
    let free = snapshot.free_hosts().on(&claim.host.network.name).iter();
    let from = free.skip_while(|host| host.name != claim.host.name);
    let unknown = from.filter(|host| !site.enrolment.is_fresh(host, now));
    let ahead: Vec<_> = unknown.take(ASKED_AHEAD).cloned().collect();
    match ahead.is_empty() {
        // It is another inventory by now.
        true => vec![claim.host.clone()],
        false => ahead,
    }
}

/// Who has the addresses of a host: that of its boot, and that which it lives at.
async fn holders(site: &Site, host: &Host) -> Holders {
    let home = host.home.address.addr();
    if site.enrolment.has_root(*host.ip) || site.enrolment.has_root(home) {
        return Holders::Mounted;
    }
    let here = holder(site, *host.ip, &host.network);
    if home == *host.ip {
        return here.await;
    }
    let (here, home) = tokio::join!(here, holder(site, home, &host.home.network));
    both(here, home)
}

/// What answers goes before what can't be told, and that before silence.
fn both(one: Holders, other: Holders) -> Holders {
    use Holders::{Mounted, Nobody, Somebody, Stations};
    match (one, other) {
        (Stations(one), Stations(other)) => Stations([one, other].concat()),
        (found @ (Stations(_) | Somebody | Mounted), _)
        | (_, found @ (Stations(_) | Somebody | Mounted)) => found,
        (Nobody(Asked::Silent), other) => other,
        (one @ Nobody(Asked::Unknown), _) | (one, Nobody(Asked::Silent)) => one,
        (Nobody(Asked::Mute), other) => other,
    }
}

async fn holder(site: &Site, address: Ipv4Addr, network: &Network) -> Holders {
    match site.enrolment.who_has(&links(network), address).await {
        Some(found) => found,
        None => connects(address).await,
    }
}

/// The interfaces that have an address of a network.
fn links(network: &Network) -> Vec<String> {
    // Where the system does not say, nobody is asked by ARP.
    let own = of_machine().unwrap_or_default().into_iter();
    let there = own.filter(|(_, address)| network.subnet.contains(address));
    // An address may have a label, as `eno2:1`.
    let plain = |(name, _): (String, _)| Some(name.split(':').next()?.to_owned());
    there.filter_map(plain).collect()
}

/// Behind a router no ARP tells.
async fn connects(address: Ipv4Addr) -> Holders {
    let connect = TcpStream::connect((address, PORT));
    match tokio::time::timeout(CONNECTS_WITHIN, connect).await {
        Ok(Ok(_)) => Holders::Somebody,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Holders::Somebody
        }
        // Many hosts drop what they don't take.
        Ok(Err(_)) | Err(_) => Holders::Nobody(Asked::Mute),
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
    if waits(site, mac, &words, None, EnrolResult::Unwritten) {
        tracing::error!("{mac} {words}\n{refusal}");
    }
}

/// Says why a machine waits, if that was not said before; whether it was new.
fn waits(
    site: &Site,
    mac: MacAddr,
    words: &str,
    disputes: Option<&str>,
    result: EnrolResult,
) -> bool {
    let new = site.enrolment.says(mac, words, disputes);
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

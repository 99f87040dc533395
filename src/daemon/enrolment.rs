//! Machines that become hosts by themselves: those that want to be looked at are decided on together, one after the
//! other, and written by one edit; while that is written and read, the next gather. Nobody waits for others to come.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::inventory::model::{Host, MacAddr, Network};
use crate::metrics::EnrolResult;
use crate::policy::discovered::Discovered;
use crate::policy::enrol::{Asked, Because, Enrol};
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::scribe::{Edit, Kind, MOST_NAMED, Naming, Refusal};
use crate::site::Site;
use crate::site::enrol::Holders;
use crate::site::own::of_machine;

/// How soon an edit is served: ten thousand hosts take some seconds.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// Addresses that are asked for on links at one time: half of those that a link is asked for, the others are for machines
/// that want an address.
const ASKED_AT_ONCE: usize = 32;
/// Connections that are tried at one time.
const TRIED_AT_ONCE: usize = 128;
const LOOK: Duration = Duration::from_millis(50);
/// A host that runs takes or refuses a connection within.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);
/// SSH: most hosts take it, and others refuse it.
const PORT: u16 = 22;

/// Looks at the machines that wait when they ask or tell something.
pub(super) async fn run(site: Arc<Site>, shutdown: CancellationToken) {
    let asking = Arc::new(Asking::default());
    loop {
        let macs = tokio::select! {
            () = shutdown.cancelled() => return,
            macs = site.enrolment.next(MOST_NAMED) => macs,
        };
        let machines = macs.into_iter().filter_map(|mac| site.stranger(mac));
        let machines: Vec<_> = machines
            .filter(|machine| waits_yet(&site, machine))
            .collect();
        look_for_life(&site, &asking, &machines).await;
        decide(&site, &machines).await;
    }
}

/// Whether a machine may become a host; one that is listed by now waits for nothing.
fn waits_yet(site: &Site, machine: &Discovered) -> bool {
    let snapshot = site.snapshot();
    let inventory = &snapshot.inventory;
    let unknown = inventory.unknown_on(machine.network.as_deref());
    let waits = !inventory.by_mac.contains_key(&machine.mac) && unknown.policy.enrols();
    if !waits {
        site.enrolment.done(machine.mac);
    }
    waits
}

async fn decide(site: &Site, machines: &[Discovered]) {
    let verdicts = site.verdicts(machines, Timestamp::now());
    for (mac, because) in &verdicts.waits {
        tell(site, *mac, because);
    }
    enlist(site, &verdicts.named).await;
    for mac in verdicts.again {
        site.enrolment.consider(mac);
    }
}

fn tell(site: &Site, mac: MacAddr, because: &Because) {
    let (words, disputed) = (format!("waits: {because}"), because.disputed());
    let new = waits(site, mac, &words, disputed, EnrolResult::Waits);
    if new && because.is_suspicious() {
        tracing::warn!("{mac} {words}");
    }
}

/// How much is asked at one time.
struct Asking {
    links: Semaphore,
    connections: Semaphore,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            links: Semaphore::new(ASKED_AT_ONCE),
            connections: Semaphore::new(TRIED_AT_ONCE),
        }
    }
}

/// Asks once whether the hosts live that the machines would be.
async fn look_for_life(site: &Arc<Site>, asking: &Arc<Asking>, machines: &[Discovered]) {
    let mut asked = JoinSet::new();
    for (host, claimant) in site.to_ask(machines, Timestamp::now()) {
        let (site, asking) = (site.clone(), asking.clone());
        asked.spawn(async move {
            let found = holders(&site, &asking, &host).await;
            let now = Timestamp::now();
            site.enrolment.looked(&host, claimant, &found, now);
        });
    }
    // A panic is one that could not be asked.
    while asked.join_next().await.is_some() {}
}

/// Who has the addresses of a host: that of its boot, and that which it lives at.
async fn holders(site: &Site, asking: &Asking, host: &Host) -> Holders {
    let home = host.home.address.addr();
    if site.enrolment.has_root(*host.ip) || site.enrolment.has_root(home) {
        return Holders::Mounted;
    }
    let here = holder(site, asking, *host.ip, &host.network);
    if home == *host.ip {
        return here.await;
    }
    let (here, home) = tokio::join!(here, holder(site, asking, home, &host.home.network));
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

async fn holder(site: &Site, asking: &Asking, address: Ipv4Addr, network: &Network) -> Holders {
    // They are never closed.
    let turn = asking.links.acquire().await;
    let found = site.enrolment.who_has(&links(network), address).await;
    drop(turn);
    match found {
        Some(found) => found,
        None => {
            let _turn = asking.connections.acquire().await;
            connects(address).await
        }
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

/// Writes the inventory's file once, and waits until that is served.
async fn enlist(site: &Site, named: &[(MacAddr, Enrol)]) {
    if named.is_empty() {
        return;
    }
    let left_out = match site.scribe.edit(edit(named), false).await {
        Ok(done) => done.left_out,
        Err(refusal) => return all_unwritten(site, named, &refusal),
    };
    let left_out: HashMap<_, _> = left_out.iter().map(|one| (one.mac, &one.refusal)).collect();
    let (mut written, mut untried) = (Vec::new(), Vec::new());
    for (mac, enrol) in named {
        match left_out.get(mac) {
            Some(refusal) if refusal.kind == Kind::Busy => untried.push(*mac),
            Some(refusal) => {
                unwritten(site, *mac, enrol, refusal);
            }
            None => {
                becomes(site, *mac, enrol);
                written.push(*mac);
            }
        }
    }
    // Where nothing came of it they come again when they ask: this one would be tried without end.
    if untried.len() < named.len() {
        untried.iter().for_each(|mac| site.enrolment.consider(*mac));
    }
    if written.is_empty() {
        return;
    }
    site.enrolment.written.notify_one();
    let served = async {
        let listed = |mac: &MacAddr| site.snapshot().inventory.by_mac.contains_key(mac);
        while !written.iter().all(listed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // A refused edit is told of by the reload.
    let _ = tokio::time::timeout(SERVED_WITHIN, served).await;
}

/// What is wrong with the edit of one alone is said at length.
fn edit(named: &[(MacAddr, Enrol)]) -> Edit {
    let naming = |(mac, enrol): &(MacAddr, Enrol)| Naming {
        host: enrol.host.name.clone(),
        mac: *mac,
        replacing: enrol.replaces,
    };
    match named {
        [one] => Edit::SetMac(naming(one)),
        several => Edit::SetMacs(several.iter().map(naming).collect()),
    }
}

fn becomes(site: &Site, mac: MacAddr, enrol: &Enrol) {
    let result = match enrol.replaces {
        Some(_) => EnrolResult::Replaced,
        None => EnrolResult::Enrolled,
    };
    site.metrics.enrol.decisions.of(result).inc();
    site.enrolment.done(mac);
    let id = MachineId(enrol.host.name.clone());
    record(site, id, StageState::Info, format!("{mac} {enrol}"));
}

fn all_unwritten(site: &Site, named: &[(MacAddr, Enrol)], refusal: &Refusal) {
    let mut new = 0;
    for (mac, enrol) in named {
        new += usize::from(unwritten(site, *mac, enrol, refusal));
    }
    if new > 0 {
        tracing::error!("the inventory's file was not written for {new} new machines:\n{refusal}");
    }
}

/// Whether it was new.
fn unwritten(site: &Site, mac: MacAddr, enrol: &Enrol, refusal: &Refusal) -> bool {
    let why = refusal.words.lines().next().unwrap_or_default();
    let words = format!("waits: it {enrol}, but the inventory's file was not written: {why}");
    let new = waits(site, mac, &words, None, EnrolResult::Unwritten);
    if new {
        tracing::error!("{mac} {words}");
    }
    new
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

#[cfg(test)]
mod tests;

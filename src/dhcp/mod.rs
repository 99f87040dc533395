//! The DHCP sockets: receive, ask [`policy`](crate::policy), make durable, send.
//!
//! What waits in the socket is taken together: one lock of the lease table, one commit, one
//! task per batch. OFFERs leave at once; ACKs when the disk has their leases, while the next
//! batch is decided.

mod advertisement;
mod decide;
mod frame;
mod limit;
mod others;
mod packet;
mod probe;
mod socket;

use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::inventory::model::MacAddr;
use crate::leases::JournalError;
use crate::metrics::{Direction, ProbeResult, RequestResult};
use crate::policy::Because;
use crate::policy::Transmit;
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::policy::lease::{DECLINE_REST, LeaseChange};
use crate::site::Site;
use crate::site::enrol::Question;

use decide::{Decided, Durable, record};
pub(crate) use decide::{decide, tell};
use limit::Limits;
pub(crate) use others::PROBE_MAC;
pub use others::{Looked, look, served};
use probe::{Found, Prober};
use socket::Inbox;
pub use socket::{Bound, Interface, Socket, SocketError};

/// Batches that wait for the disk at once, per interface; beyond, packets wait in the
/// kernel's buffer.
const IN_HAND: usize = 128;
/// Replies that wait for their delay at once, per interface.
const HELD: usize = 1024;
/// Addresses that are probed for one request, before the last is offered as it is.
const PROVEN_FOR_ONE: usize = 4;

/// What the packets of one interface have in common.
struct Desk {
    socket: Socket,
    site: Arc<Site>,
    limits: Mutex<Limits>,
    /// `None` where the interface has no packet socket for ARP.
    prober: Option<Prober>,
    /// Requests that went unanswered since the journal failed; 0 while it works.
    unwritten: AtomicU64,
    /// Replies that are held back; beyond, they leave at once.
    held: Arc<Semaphore>,
}

/// Serves one interface until `shutdown`; returns when the replies in hand are sent.
pub async fn serve(socket: Socket, site: Arc<Site>, shutdown: CancellationToken) {
    let permits = Arc::new(Semaphore::new(IN_HAND));
    let prober = socket
        .prober()
        .inspect_err(|error| {
            let name = &socket.interface.name;
            tracing::warn!("addresses given on {name} are not probed: {error}");
        })
        .ok();
    let desk = Arc::new(Desk {
        limits: Mutex::default(),
        prober,
        socket,
        site,
        unwritten: AtomicU64::new(0),
        held: Arc::new(Semaphore::new(HELD)),
    });
    let beside = tokio::spawn(desk.clone().look_around(shutdown.clone()));
    let mut inbox = Inbox::default();
    while let Some(permit) = tokio::select! {
        () = shutdown.cancelled() => None,
        permit = permits.clone().acquire_owned() => permit.ok(),
    } {
        let received = tokio::select! {
            () = shutdown.cancelled() => break,
            received = desk.socket.receive(&mut inbox) => received,
        };
        if let Err(error) = received {
            // A link that flaps gives ENETDOWN; the socket lives on.
            let name = &desk.socket.interface.name;
            tracing::warn!("cannot receive DHCP on {name}: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let batch = desk.decide_all(&inbox);
        for decided in batch.now {
            if decided.unproven.is_some() {
                // Bounded by the addresses that are probed at once and by each MAC's budget.
                tokio::spawn(desk.clone().prove(decided));
            } else {
                desk.finish(decided);
            }
        }
        if let Some(durable) = batch.durable {
            let desk = desk.clone();
            tokio::spawn(async move {
                desk.commit(durable).await;
                drop(permit);
            });
        }
    }
    beside.abort();
    // Every reply in hand holds a permit.
    let all = u32::try_from(IN_HAND).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(Duration::from_secs(2), permits.acquire_many(all)).await;
}

/// Whether an interface can be heard on its link.
fn has_carrier(interface: &str) -> bool {
    let Ok(mut all) = getifaddrs() else {
        return false;
    };
    all.any(|link| {
        let running = link.flags.contains(InterfaceFlags::IFF_RUNNING);
        link.interface_name == interface && running
    })
}

impl Desk {
    /// Hears ARP, and looks for other servers, as long as the interface is served.
    async fn look_around(self: Arc<Self>, shutdown: CancellationToken) {
        let hear = async {
            match &self.prober {
                Some(prober) => prober.listen().await,
                None => std::future::pending().await,
            }
        };
        let answer = async {
            let name = &self.socket.interface.name;
            let mut questions = self.site.enrolment.link(name);
            while let Some(question) = questions.recv().await {
                // As many at once as the prober asks for.
                tokio::spawn(self.clone().tell_stations(question));
            }
            std::future::pending::<()>().await;
        };
        let watch = others::watch(self.socket.interface.clone(), &self.site, shutdown);
        tokio::select! {
            () = hear => {}
            () = answer => {}
            () = watch => {}
        }
    }

    async fn tell_stations(self: Arc<Self>, question: Question) {
        let stations = match &self.prober {
            // What is sent on a link without carrier is lost without a word.
            Some(prober) if has_carrier(&self.socket.interface.name) => {
                prober.stations(question.address).await
            }
            _ => None,
        };
        // Who asked may have gone.
        let _ = question.answer.send(stations);
    }

    /// Asks on the link whether the offered address is free; one that is not rests, and
    /// the client is offered another.
    async fn prove(self: Arc<Self>, mut decided: Decided) {
        for _ in 0..PROVEN_FOR_ONE {
            let (Some(address), Some(prober)) = (decided.unproven, &self.prober) else {
                break;
            };
            let found = prober.probe(address, self.now()).await;
            let result = match found {
                Found::Free => ProbeResult::Free,
                Found::Taken(_) => ProbeResult::Taken,
                Found::Skipped => ProbeResult::Skipped,
            };
            self.site.metrics.dhcp.probes.of(result).inc();
            match found {
                Found::Taken(mac) if mac != decided.request.mac => {
                    if !self.rest(address, mac) {
                        break;
                    }
                    decided = self.decide_again(decided);
                }
                _ => break,
            }
        }
        self.finish(decided);
    }

    fn decide_again(&self, decided: Decided) -> Decided {
        let snapshot = self.site.snapshot();
        let asked = self.ask(decided.request, decided.envelope, &snapshot);
        let now = self.now();
        let mut leases = self.site.leases();
        leases.sweep(now);
        self.decide_one(asked, &snapshot, &mut leases, now)
    }

    fn now(&self) -> Timestamp {
        self.site.journal.clock().now()
    }

    /// Keeps an address from being given that somebody has without a lease; false where half
    /// of the pool rests already.
    fn rest(&self, address: Ipv4Addr, holder: MacAddr) -> bool {
        let rests = take_out(&self.site, address, holder);
        let minutes = DECLINE_REST.as_secs() / 60;
        let done = if rests {
            format!("the address rests {minutes} minutes")
        } else {
            "half of the pool rests already, so it is offered all the same".to_owned()
        };
        let message = format!(
            "{address} of the pool is in use by {holder}, without a lease (it answered ARP); {done}: find that machine, list it or take it out of the pool"
        );
        self.tell(MachineId::wire(), StageState::Degraded, message);
        rests
    }

    fn tell(&self, machine: MachineId, state: StageState, message: String) {
        self.site.timeline.record(event(machine, state, message));
    }

    /// Waits for the disk, then answers. What is on disk is in memory too, by the journal.
    async fn commit(self: Arc<Self>, durable: Durable) {
        let written = match durable.written {
            Ok(pending) => pending.wait().await,
            Err(error) => Err(error),
        };
        match written {
            Err(error) => self.withhold(&error, durable.decided.len()),
            Ok(()) => {
                self.works_again();
                for decided in durable.decided {
                    self.finish(decided);
                }
            }
        }
    }

    /// No ACK without its lease on disk. Said for the first request, counted for the rest: a
    /// full disk makes every machine ask again and again.
    fn withhold(&self, error: &JournalError, requests: usize) {
        let requests = u64::try_from(requests).unwrap_or(u64::MAX);
        let counted = &self.site.metrics.dhcp.requests;
        counted.of(RequestResult::Unwritten).inc_by(requests);
        if self.unwritten.fetch_add(requests, Ordering::Relaxed) == 0 {
            let message = format!("no answer to requests for a lease: {error}");
            self.tell(MachineId::wire(), StageState::Degraded, message);
        }
    }

    fn works_again(&self) {
        let unwritten = self.unwritten.swap(0, Ordering::Relaxed);
        if unwritten > 0 {
            let message =
                format!("leases are written again; {unwritten} requests went unanswered meanwhile");
            self.tell(MachineId::wire(), StageState::Info, message);
        }
    }

    /// Answers. Nothing here waits: the receive loop goes through it.
    fn finish(self: &Arc<Self>, decided: Decided) {
        let addresses = &self.socket.interface.addresses;
        let local = addresses.first().copied();
        record(&decided, local.unwrap_or(Ipv4Addr::UNSPECIFIED), &self.site);
        let Some(transmit) = decided.verdict.reply.clone() else {
            if matches!(decided.verdict.because, Because::OtherServer(_)) {
                self.site.others.suspect();
            }
            let ignored = &self.site.metrics.dhcp.ignored;
            ignored.of((&decided.verdict.because).into()).inc();
            return self.count(RequestResult::Silent);
        };
        let held = (!transmit.delay.is_zero())
            .then(|| self.held.clone().try_acquire_owned().ok())
            .flatten();
        let Some(held) = held else {
            return self.send(&decided, &transmit);
        };
        let desk = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(transmit.delay).await;
            desk.send(&decided, &transmit);
            drop(held);
        });
    }

    fn count(&self, result: RequestResult) {
        self.site.metrics.dhcp.requests.of(result).inc();
    }

    fn send(&self, decided: &Decided, transmit: &Transmit) {
        let encode = || transmit.reply.encode(&decided.request);
        let Ok(bytes) = catch_unwind(AssertUnwindSafe(encode)) else {
            return;
        };
        let port = decided.envelope.port;
        if let Err(error) = self.socket.send(&bytes, transmit, port) {
            self.count(RequestResult::Unsent);
            let message = format!(
                "cannot send {:?} by {}: {error}",
                transmit.reply.message_type, self.socket.interface.name
            );
            let events = decided.verdict.events.first();
            let machine = events.map_or_else(MachineId::wire, |event| event.machine.clone());
            return self.tell(machine, StageState::Retry, message);
        }
        let packets = &self.site.metrics.dhcp.packets;
        let kind = transmit.reply.message_type.into();
        packets.of(Direction::Sent, kind).inc();
        self.count(RequestResult::Answered);
        if transmit.ends_ipv6_wait {
            // Without it the boot takes its 16 s longer, and nothing else is lost.
            let _ = self.socket.send_no_router(decided.request.mac);
        }
    }
}

/// Has an address rest that a probe found in use, if it may.
fn take_out(site: &Site, address: Ipv4Addr, holder: MacAddr) -> bool {
    let snapshot = site.snapshot();
    let mut pools = (snapshot.inventory.networks.values()).filter_map(|network| network.pool);
    let now = site.journal.clock().now();
    let mut leases = site.leases();
    leases.sweep(now);
    let pool = pools.find(|pool| pool.contains(address));
    if !pool.is_none_or(|pool| leases.may_rest(address, pool)) {
        return false;
    }
    let until = now.saturating_add(DECLINE_REST);
    let change = LeaseChange::Decline {
        mac: holder,
        address,
        found: true,
        until: until.unwrap_or(Timestamp::MAX),
    };
    // At once: of many that are found together each must count. Where the disk does not take it,
    // it is probed again after a restart.
    leases.apply(&change);
    let _ = site.journal.submit(vec![change]);
    true
}

fn event(machine: MachineId, state: StageState, message: String) -> BootEvent {
    BootEvent::sent(Timestamp::now(), machine, Stage::Dhcp, state, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;

    /// Whoever answers ARP for every address, in the name of a machine of ours.
    #[tokio::test]
    async fn a_station_that_answers_every_probe_takes_half_of_the_pool() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let victim = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
        let taken = (100..200).filter(|last| {
            let address = Ipv4Addr::new(10, 77, 0, *last);
            take_out(&site, address, victim)
        });
        assert_eq!(taken.count(), 50, "of a pool of 100");
        assert!(site.leases().may_decline(victim), "it declined nothing");
        // One that rests already is no further one.
        assert!(take_out(&site, Ipv4Addr::new(10, 77, 0, 100), victim));
    }
}

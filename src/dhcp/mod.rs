//! The DHCP sockets: receive, ask [`policy`](crate::policy), make durable, send.
//!
//! What waits in the socket is taken together: one lock of the lease table, one commit, one
//! task per batch. OFFERs leave at once; ACKs when the disk has their leases, while the next
//! batch is decided.

mod advertisement;
mod frame;
mod limit;
mod others;
mod packet;
mod probe;
mod socket;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::inventory::model::MacAddr;
use crate::leases::JournalError;
use crate::metrics::{PacketResult, ProbeResult};
use crate::policy::client::Client;
use crate::policy::dhcp::{self, Received, World};
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::policy::lease::{DECLINE_REST, LeaseChange, LeaseTable, OFFER_HOLD};
use crate::policy::verdict::Because;
use crate::policy::{Transmit, Verdict};
use crate::site::{Site, Snapshot};
use crate::wire::dhcp::{MessageType, Request};

use limit::{Cut, Limits, Spent};
pub use others::{look, served};
use probe::{Found, Prober};
pub use socket::{Bound, Interface, Socket, SocketError};
use socket::{Envelope, Inbox};

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

/// A packet and what is done about it.
struct Decided {
    request: Request,
    envelope: Envelope,
    verdict: Verdict,
    /// An address that is offered and that nothing is known of.
    unproven: Option<Ipv4Addr>,
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
    loop {
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
        let (durable, now): (Vec<_>, Vec<_>) = desk
            .decide_all(&inbox)
            .into_iter()
            .partition(|decided| decided.verdict.lease_change.is_some());
        for decided in now {
            if decided.unproven.is_some() {
                // Bounded by the addresses that are probed at once.
                tokio::spawn(desk.clone().prove(decided));
            } else {
                desk.finish(decided).await;
            }
        }
        if durable.is_empty() {
            continue;
        }
        let Ok(permit) = permits.clone().acquire_owned().await else {
            break;
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            desk.commit(durable).await;
            drop(permit);
        });
    }
    beside.abort();
    // Every reply in hand holds a permit.
    let all = u32::try_from(IN_HAND).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(Duration::from_secs(2), permits.acquire_many(all)).await;
}

impl Desk {
    /// Decides on every packet under one lock of the lease table.
    fn decide_all(&self, inbox: &Inbox) -> Vec<Decided> {
        let now = self.site.journal.clock().now();
        let snapshot = self.site.snapshot();
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = Instant::now();
        let mut leases = self.site.leases();
        leases.sweep(now);
        let decide = |(bytes, envelope): (&[u8], Envelope)| {
            // Should a packet ever panic, it takes nobody with it.
            let decided = catch_unwind(AssertUnwindSafe(|| {
                let request = self.parse(bytes, envelope.source)?;
                if let Err(cut) = limits.admit(&request, arrived) {
                    self.cut(&request, cut);
                    return None;
                }
                Some(self.decide_one(request, envelope, &snapshot, &mut leases, now))
            }));
            decided.ok().flatten()
        };
        inbox.packets().filter_map(decide).collect()
    }

    fn decide_one(
        &self,
        request: Request,
        envelope: Envelope,
        snapshot: &Snapshot,
        leases: &mut LeaseTable,
        now: Timestamp,
    ) -> Decided {
        let received = Received {
            request: &request,
            locals: &self.socket.interface.addresses,
            to: envelope.to,
            source: envelope.source,
            port: envelope.port,
        };
        let verdict = decide(&received, snapshot, leases, now);
        let unproven = verdict.offered.filter(|address| {
            verdict.because == Because::Pool
                && request.giaddr.is_unspecified()
                && is_probed(snapshot, *address)
                && self
                    .prober
                    .as_ref()
                    .is_some_and(|prober| prober.is_unproven(leases, *address, now))
        });
        Decided {
            request,
            envelope,
            verdict,
            unproven,
        }
    }

    /// Hears ARP, and looks for other servers, as long as the interface is served.
    async fn look_around(self: Arc<Self>, shutdown: CancellationToken) {
        let hear = async {
            match &self.prober {
                Some(prober) => prober.listen().await,
                None => std::future::pending().await,
            }
        };
        let watch = others::watch(self.socket.interface.clone(), &self.site, shutdown);
        tokio::select! {
            () = hear => {}
            () = watch => {}
        }
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
                Found::Taken(mac) if mac != decided.request.chaddr => {
                    self.rest(address, mac).await;
                    decided = self.decide_again(decided);
                }
                _ => break,
            }
        }
        self.finish(decided).await;
    }

    fn decide_again(&self, decided: Decided) -> Decided {
        let snapshot = self.site.snapshot();
        let now = self.now();
        let mut leases = self.site.leases();
        leases.sweep(now);
        self.decide_one(
            decided.request,
            decided.envelope,
            &snapshot,
            &mut leases,
            now,
        )
    }

    fn now(&self) -> Timestamp {
        self.site.journal.clock().now()
    }

    /// Keeps an address from being given that somebody has without a lease.
    async fn rest(&self, address: Ipv4Addr, holder: MacAddr) {
        let until = self.now().saturating_add(DECLINE_REST);
        let change = LeaseChange::Decline {
            mac: holder,
            address,
            until: until.unwrap_or(Timestamp::MAX),
        };
        // Not on disk it rests in memory alone: after a restart it is probed again.
        let _ = self.site.journal.commit(vec![change]).await;
        self.apply(&[change]);
        let minutes = DECLINE_REST.as_secs() / 60;
        let message = format!(
            "{address} of the pool is in use by {holder}, without a lease (it answered ARP); the address rests {minutes} minutes: find that machine, list it or take it out of the pool"
        );
        self.tell(MachineId::wire(), StageState::Degraded, message);
    }

    /// Said for the first packet over the budget, counted for the rest.
    fn cut(&self, request: &Request, cut: Cut) {
        let packets = &self.site.metrics.dhcp.packets;
        packets.of(PacketResult::Limited).inc();
        if !cut.first {
            return;
        }
        let (mac, relay) = (request.chaddr, request.giaddr);
        let (machine, who) = match cut.spent {
            Spent::Machine => (MachineId::unlisted(mac), format!("{mac} sends")),
            Spent::Port => (
                MachineId::wire(),
                format!("a port of relay {relay} sends, the last by {mac},"),
            ),
        };
        let message = format!(
            "no answer for a while: {who} more packets than machines that boot; the rest is counted in bridgehead_dhcp_packets_total"
        );
        self.tell(machine, StageState::Ignored, message);
    }

    fn parse(&self, bytes: &[u8], source: SocketAddrV4) -> Option<Request> {
        let parsed = Request::parse(bytes);
        let parsed = parsed
            .inspect_err(|malformed| {
                let interface = &self.socket.interface.name;
                let message =
                    format!("no answer to a packet from {source} on {interface}: {malformed}");
                self.tell(MachineId::wire(), StageState::Ignored, message);
            })
            .ok();
        // A relay brought our own question back.
        parsed.filter(|request| !others::is_own_probe(request.chaddr, request.xid))
    }

    fn tell(&self, machine: MachineId, state: StageState, message: String) {
        let now = Timestamp::now();
        let event = BootEvent::sent(now, machine, Stage::Dhcp, state, message);
        self.site.timeline.record(event);
    }

    /// Makes the lease changes durable, then answers.
    async fn commit(self: Arc<Self>, batch: Vec<Decided>) {
        let changes: Vec<_> = batch
            .iter()
            .filter_map(|decided| decided.verdict.lease_change)
            .collect();
        match self.site.journal.commit(changes.clone()).await {
            Err(error) => self.withhold(&error, batch.len()),
            Ok(()) => {
                self.works_again();
                self.apply(&changes);
                for decided in batch {
                    self.finish(decided).await;
                }
            }
        }
    }

    fn apply(&self, changes: &[LeaseChange]) {
        let mut leases = self.site.leases();
        for change in changes {
            leases.apply(change);
        }
    }

    /// No ACK without its lease on disk. Said for the first request, counted for the rest: a
    /// full disk makes every machine ask again and again.
    fn withhold(&self, error: &JournalError, requests: usize) {
        let requests = u64::try_from(requests).unwrap_or(u64::MAX);
        let packets = &self.site.metrics.dhcp.packets;
        packets.of(PacketResult::Unwritten).inc_by(requests);
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

    async fn finish(self: &Arc<Self>, decided: Decided) {
        record(&decided, &self.site);
        let result = match decided.verdict.reply {
            Some(_) => PacketResult::Answered,
            None => PacketResult::Silent,
        };
        self.site.metrics.dhcp.packets.of(result).inc();
        let Some(transmit) = decided.verdict.reply.clone() else {
            return;
        };
        let held = (!transmit.delay.is_zero())
            .then(|| self.held.clone().try_acquire_owned().ok())
            .flatten();
        let Some(held) = held else {
            return self.send(&decided, &transmit).await;
        };
        let desk = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(transmit.delay).await;
            desk.send(&decided, &transmit).await;
            drop(held);
        });
    }

    async fn send(&self, decided: &Decided, transmit: &Transmit) {
        let encode = || transmit.reply.encode(&decided.request);
        let Ok(bytes) = catch_unwind(AssertUnwindSafe(encode)) else {
            return;
        };
        let port = decided.envelope.port;
        if let Err(error) = self.socket.send(&bytes, transmit, port).await {
            let message = format!(
                "cannot send {:?} by {}: {error}",
                transmit.reply.message_type, self.socket.interface.name
            );
            let events = decided.verdict.events.first();
            let machine = events.map_or_else(MachineId::wire, |event| event.machine.clone());
            self.tell(machine, StageState::Retry, message);
        } else if transmit.ends_ipv6_wait {
            // Without it the boot takes its 16 s longer, and nothing else is lost.
            let _ = self.socket.send_no_router(decided.request.chaddr).await;
        }
    }
}

/// Decides, and holds the address in memory before the lock goes: nobody else is given it
/// while the disk is written.
fn decide(
    received: &Received<'_>,
    snapshot: &Snapshot,
    leases: &mut LeaseTable,
    now: Timestamp,
) -> Verdict {
    let world = World {
        inventory: &snapshot.inventory,
        leases,
        http_port: snapshot.inventory.server.http_port,
        loaders: snapshot.assets.loaders(),
        kernels: snapshot.assets.kernels(),
    };
    let mut verdict = dhcp::answer(&world, received, now);
    let given = verdict.reply.as_ref().map(|transmit| transmit.reply.yiaddr);
    if let Some(address) = given.filter(|address| !address.is_unspecified()) {
        let until = now.saturating_add(OFFER_HOLD).unwrap_or(Timestamp::MAX);
        leases.offer(received.request.chaddr, address, until);
    }
    // Events are for people, and go by the wall clock.
    let wall = Timestamp::now();
    for event in &mut verdict.events {
        event.at = wall;
    }
    verdict
}

fn is_probed(snapshot: &Snapshot, address: Ipv4Addr) -> bool {
    let mut networks = snapshot.inventory.networks.values();
    networks.any(|network| network.probe && network.subnet.contains(&address))
}

fn record(decided: &Decided, site: &Site) {
    let (request, verdict) = (&decided.request, &decided.verdict);
    let asker = Client::of(request).asker;
    let fresh = request.message_type == MessageType::Discover
        && verdict.reply.is_some()
        && from_firmware(
            request,
            decided.envelope.source,
            site.snapshot()
                .host_at(*decided.envelope.source.ip())
                .is_some(),
        );
    for event in verdict.events.clone() {
        if fresh {
            site.timeline.record_asking(event, asker);
        } else {
            site.timeline.record(event);
        }
    }
}

/// Whether a DISCOVER can be a machine's that was just switched on: it has no address, or a
/// relay sent it (from whatever port: RFC 8357). A program without privileges on a host can
/// send to port 67 too, but only from its host's address and not from port 68; it must not
/// begin a boot attempt in its host's name.
fn from_firmware(request: &Request, source: SocketAddrV4, source_is_host: bool) -> bool {
    if request.giaddr.is_unspecified() {
        source.port() == 68 && source.ip().is_unspecified()
    } else {
        !source_is_host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_a_host_does_not_pass_for_firmware() {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[28] = 2;
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(&[53, 1, 1, 255]);
        let mut request = Request::parse(&bytes).unwrap();
        let from = |address: [u8; 4], port| SocketAddrV4::new(address.into(), port);
        assert!(from_firmware(&request, from([0; 4], 68), false));
        assert!(!from_firmware(&request, from([10, 77, 0, 11], 68), true));
        assert!(!from_firmware(&request, from([0; 4], 40000), false));
        request.giaddr = [10, 77, 0, 254].into();
        assert!(from_firmware(
            &request,
            from([10, 77, 0, 254], 40000),
            false
        ));
        assert!(!from_firmware(&request, from([10, 77, 0, 11], 67), true));
    }
}

//! What is done about the packets that were received together: one lock of the lease table.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Instant;

use jiff::Timestamp;

use super::limit::{Cut, Limits, Spent};
use super::socket::{Envelope, Inbox};
use super::{Desk, event, others};
use crate::leases::{JournalError, Pending};
use crate::metrics::{Direction, RequestResult};
use crate::policy::Verdict;
use crate::policy::client::Client;
use crate::policy::dhcp::{self, OwnAddresses, Received, World};
use crate::policy::event::{BootEvent, MachineId, StageState};
use crate::policy::lease::{LeaseTable, OFFER_HOLD};
use crate::policy::switch_port::SwitchPort;
use crate::policy::verdict::Because;
use crate::site::{Site, Snapshot};
use crate::wire::dhcp::{MessageType, Request};

/// A request and what the timeline says of it, which is asked before the lease table is locked:
/// whoever looks at the timeline may wait for all who write to it.
pub(super) struct Asked {
    request: Request,
    envelope: Envelope,
    /// The same boot goes on, from the local disk.
    leaves_for_disk: bool,
}

/// A packet and what is done about it.
pub(super) struct Decided {
    pub(super) request: Request,
    pub(super) envelope: Envelope,
    pub(super) verdict: Verdict,
    /// Whether it was sent to us alone.
    is_unicast: bool,
    /// The same boot goes on, from the local disk.
    leaves_for_disk: bool,
    /// An address that is offered and that nothing is known of.
    pub(super) unproven: Option<Ipv4Addr>,
}

/// Packets that were decided together.
pub(super) struct Batch {
    /// Those that change no lease.
    pub(super) now: Vec<Decided>,
    /// Those whose leases are on their way to the disk.
    pub(super) durable: Option<Durable>,
}

/// Packets that are answered when their leases are on disk.
pub(super) struct Durable {
    pub(super) decided: Vec<Decided>,
    pub(super) written: Result<Pending, JournalError>,
}

impl Desk {
    /// Decides on every packet under one lock of the lease table, and hands the changes to the
    /// journal before the lock goes: the order on disk is that in which was decided.
    pub(super) fn decide_all(&self, inbox: &Inbox) -> Batch {
        let snapshot = self.site.snapshot();
        let asked = self.admit_all(inbox, &snapshot);
        let mut leases = self.site.leases();
        let now = self.now();
        leases.sweep(now);
        let decided = asked.into_iter().filter_map(|asked| {
            guarded(|| Some(self.decide_one(asked, &snapshot, &mut leases, now)))
        });
        let (durable, now): (Vec<_>, Vec<_>) =
            decided.partition(|decided| decided.verdict.lease_change.is_some());
        let change = |decided: &Decided| decided.verdict.lease_change.clone();
        let changes = |all: &[Decided]| all.iter().filter_map(change).collect();
        let durable = (!durable.is_empty()).then(|| Durable {
            written: self.site.journal.submit(changes(&durable)),
            decided: durable,
        });
        Batch { now, durable }
    }

    /// The requests among the packets that are within their budgets; of the others is told.
    fn admit_all(&self, inbox: &Inbox, snapshot: &Snapshot) -> Vec<Asked> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = Instant::now();
        // Written to the event log when the lock is gone.
        let mut told = Vec::new();
        let admit = |(bytes, envelope): (&[u8], Envelope)| {
            let admitted = guarded(|| {
                let admitted = self.admit(bytes, envelope.source, &mut limits, arrived);
                admitted.unwrap_or_else(|event| {
                    told.push(*event);
                    None
                })
            });
            admitted.map(|request| (request, envelope))
        };
        let admitted: Vec<_> = inbox.packets().filter_map(admit).collect();
        drop(limits);
        for event in told {
            self.site.timeline.record(event);
        }
        let asked = admitted.into_iter().filter_map(|(request, envelope)| {
            guarded(|| Some(self.ask(request, envelope, snapshot)))
        });
        asked.collect()
    }

    /// Asks the timeline of a request. The lease table must not be locked.
    pub(super) fn ask(&self, request: Request, envelope: Envelope, snapshot: &Snapshot) -> Asked {
        let (client, now) = (Client::of(&request), Timestamp::now());
        Asked {
            leaves_for_disk: self.site.leaves_for_disk(snapshot, &client, now),
            request,
            envelope,
        }
    }

    pub(super) fn decide_one(
        &self,
        asked: Asked,
        snapshot: &Snapshot,
        leases: &mut LeaseTable,
        now: Timestamp,
    ) -> Decided {
        let Asked {
            request,
            envelope,
            leaves_for_disk,
        } = asked;
        let received = Received {
            request: &request,
            locals: &self.socket.interface.addresses,
            to: envelope.to,
            source: envelope.source,
            port: envelope.port,
        };
        let own = self.site.own();
        let is_unicast = received.is_unicast(&snapshot.inventory, &own);
        let verdict = decide(&received, snapshot, &own, leases, now, leaves_for_disk);
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
            is_unicast,
            leaves_for_disk,
            unproven,
        }
    }

    /// The request in a packet, if there is one to decide on.
    fn admit(
        &self,
        bytes: &[u8],
        source: SocketAddrV4,
        limits: &mut Limits,
        arrived: Instant,
    ) -> Result<Option<Request>, Box<BootEvent>> {
        let request = Request::parse(bytes).map_err(|malformed| {
            let interface = &self.socket.interface.name;
            let message =
                format!("no answer to a packet from {source} on {interface}: {malformed}");
            Box::new(event(MachineId::wire(), StageState::Ignored, message))
        })?;
        // A relay brought our own question back.
        if others::is_own_probe(request.mac, request.xid) {
            return Ok(None);
        }
        let packets = &self.site.metrics.dhcp.packets;
        let kind = request.message_type.into();
        packets.of(Direction::Received, kind).inc();
        match limits.admit(&request, arrived) {
            Ok(()) => Ok(Some(request)),
            Err(cut) => self
                .cut(&request, cut)
                .map_or(Ok(None), |event| Err(Box::new(event))),
        }
    }

    /// Said for the first packet over the budget, counted for the rest.
    fn cut(&self, request: &Request, cut: Cut) -> Option<BootEvent> {
        let counted = &self.site.metrics.dhcp.requests;
        counted.of(RequestResult::Limited).inc();
        if !cut.first {
            return None;
        }
        let (mac, relay) = (request.mac, request.giaddr);
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
        Some(event(machine, StageState::Ignored, message))
    }
}

/// Should a packet ever panic, it takes nobody with it.
fn guarded<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok().flatten()
}

/// Decides, and holds the address in memory before the lock goes: nobody else is given it
/// while the disk is written.
pub(crate) fn decide(
    received: &Received<'_>,
    snapshot: &Snapshot,
    own: &OwnAddresses,
    leases: &mut LeaseTable,
    now: Timestamp,
    leaves_for_disk: bool,
) -> Verdict {
    let world = World {
        inventory: &snapshot.inventory,
        leases,
        own,
        http_port: snapshot.inventory.server.http_port,
        loaders: snapshot.assets.loaders(),
        kernels: snapshot.assets.kernels(),
        leaves_for_disk,
    };
    let mut verdict = dhcp::answer(&world, received, now);
    let given = verdict.reply.as_ref().map(|transmit| transmit.reply.yiaddr);
    if let Some(address) = given.filter(|address| !address.is_unspecified()) {
        let until = now.saturating_add(OFFER_HOLD).unwrap_or(Timestamp::MAX);
        leases.offer(received.request.mac, address, until);
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

/// `local` is the daemon's address on the link.
pub(super) fn record(decided: &Decided, local: Ipv4Addr, site: &Site) {
    let source = decided.envelope.source;
    let leaves = decided.leaves_for_disk;
    let request = &decided.request;
    tell(request, source, &decided.verdict, leaves, site);
    if request.message_type == MessageType::Discover {
        let relay = (!request.giaddr.is_unspecified()).then_some(request.giaddr);
        let link = relay.and(request.link_selection());
        let place = decided.verdict.offered.or(link).or(relay);
        let port = SwitchPort::heard(request, decided.is_unicast);
        site.discover(request, &Client::of(request), place.unwrap_or(local), port);
    }
}

/// Tells the timeline what was decided; a DISCOVER of firmware begins a boot attempt.
pub(crate) fn tell(
    request: &Request,
    source: SocketAddrV4,
    verdict: &Verdict,
    leaves_for_disk: bool,
    site: &Site,
) {
    let asker = Client::of(request).asker;
    let fresh = request.message_type == MessageType::Discover
        && verdict.reply.is_some()
        && !leaves_for_disk
        && from_firmware(
            request,
            source,
            site.snapshot().host_at(*source.ip()).is_some(),
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

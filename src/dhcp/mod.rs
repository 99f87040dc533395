//! The DHCP sockets: receive, ask [`policy`](crate::policy), make durable, send.

mod frame;
mod socket;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::policy::client::Client;
use crate::policy::dhcp::{self, Received, World};
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::policy::lease::OFFER_HOLD;
use crate::policy::{Transmit, Verdict};
use crate::site::Site;
use crate::wire::dhcp::{MessageType, Request};

pub use socket::{Bound, Interface, Socket, SocketError};

/// Packets decided or waiting for the disk at once, per interface; beyond, they wait in
/// the kernel's buffer.
const IN_HAND: usize = 2048;
/// The largest DHCP packet on Ethernet.
const MAX_PACKET: usize = 1500;

/// Serves one interface until `shutdown`; returns when the replies in hand are sent.
pub async fn serve(socket: Socket, site: Arc<Site>, shutdown: CancellationToken) {
    let socket = Arc::new(socket);
    let permits = Arc::new(Semaphore::new(IN_HAND));
    let mut buffer = [0; MAX_PACKET];
    loop {
        let received = tokio::select! {
            () = shutdown.cancelled() => break,
            received = socket.receive(&mut buffer) => received,
        };
        let (length, source) = match received {
            Ok(received) => received,
            Err(error) => {
                // A link that flaps gives ENETDOWN; the socket lives on.
                tracing::warn!("cannot receive DHCP on {}: {error}", socket.interface.name);
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().acquire_owned().await else {
            break;
        };
        let (bytes, socket, site) = (buffer[..length].to_vec(), socket.clone(), site.clone());
        // A task of its own: should a packet ever panic, it takes nobody with it.
        tokio::spawn(async move {
            handle(&bytes, source, &socket, &site).await;
            drop(permit);
        });
    }
    // Every reply in hand holds a permit.
    let all = u32::try_from(IN_HAND).unwrap_or(u32::MAX);
    let _ =
        tokio::time::timeout(std::time::Duration::from_secs(2), permits.acquire_many(all)).await;
}

async fn handle(bytes: &[u8], source: SocketAddr, socket: &Socket, site: &Site) {
    let SocketAddr::V4(source) = source else {
        return;
    };
    let request = match Request::parse(bytes) {
        Ok(request) => request,
        Err(malformed) => {
            let message = format!(
                "no answer to a packet from {source} on {}: {malformed}",
                socket.interface.name
            );
            let now = Timestamp::now();
            site.timeline.record(BootEvent::sent(
                now,
                MachineId::wire(),
                Stage::Dhcp,
                StageState::Ignored,
                message,
            ));
            return;
        }
    };
    let verdict = decide(&request, source, socket.interface.address, site);
    let machine = verdict
        .events
        .first()
        .map_or_else(MachineId::wire, |event| event.machine.clone());
    let durable = match verdict.lease_change {
        None => Ok(()),
        Some(change) => {
            let committed = site.journal.commit(change).await;
            if committed.is_ok() {
                site.leases().apply(&change);
            }
            committed
        }
    };
    if let Err(error) = durable {
        let message = format!("no answer to {:?}: {error}", request.message_type);
        site.timeline.record(BootEvent::sent(
            Timestamp::now(),
            machine,
            Stage::Dhcp,
            StageState::Ignored,
            message,
        ));
        return;
    }
    record(&request, source, &verdict, site);
    if let Some(transmit) = &verdict.reply {
        send(&request, transmit, socket, site, machine).await;
    }
}

/// Decides under the lease lock, and holds the address in memory before the lock goes:
/// nobody else is given it while the disk is written.
fn decide(request: &Request, source: SocketAddrV4, local: Ipv4Addr, site: &Site) -> Verdict {
    let now = Timestamp::now();
    let snapshot = site.snapshot();
    let mut leases = site.leases();
    leases.sweep(now);
    let world = World {
        inventory: &snapshot.inventory,
        leases: &leases,
        http_port: snapshot.inventory.server.http_port,
        loaders: snapshot.assets.loaders(),
    };
    let verdict = dhcp::answer(
        &world,
        &Received {
            request,
            local,
            source,
        },
        now,
    );
    let given = verdict.reply.as_ref().map(|transmit| transmit.reply.yiaddr);
    if let Some(address) = given.filter(|address| !address.is_unspecified()) {
        let until = now.saturating_add(OFFER_HOLD).unwrap_or(Timestamp::MAX);
        leases.offer(request.chaddr, address, until);
    }
    verdict
}

fn record(request: &Request, source: SocketAddrV4, verdict: &Verdict, site: &Site) {
    let asker = Client::of(request).asker;
    let source_is_host = site.snapshot().host_at(*source.ip()).is_some();
    let fresh = request.message_type == MessageType::Discover
        && from_firmware(request, source, source_is_host);
    for event in verdict.events.clone() {
        if fresh && verdict.reply.is_some() {
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

async fn send(
    request: &Request,
    transmit: &Transmit,
    socket: &Socket,
    site: &Site,
    machine: MachineId,
) {
    let bytes = transmit.reply.encode(request);
    if let Err(error) = socket.send(&bytes, transmit.destination).await {
        let message = format!(
            "cannot send {:?} by {}: {error}",
            transmit.reply.message_type, socket.interface.name
        );
        site.timeline.record(BootEvent::sent(
            Timestamp::now(),
            machine,
            Stage::Dhcp,
            StageState::Retry,
            message,
        ));
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

//! Other DHCP servers on the networks that we serve.
//!
//! The usual reason why a machine does not boot from the network is that somebody else gave
//! it its address. So the daemon asks, as a PXE client would, at its start, every five
//! minutes and when a machine took another server's offer, and `bridgehead check --live` does. The DISCOVER comes from a fixed locally
//! administered MAC and is never followed by a REQUEST: a server that holds an address for it
//! holds the same one each time, for as long as an offer lives.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::frame;
use super::packet::{EtherType, PacketSocket, dhcp_answers};
use super::socket::Interface;
use crate::inventory::model::{DhcpMode, Inventory, MacAddr, Network};
use crate::metrics::OtherServer;
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::site::others::{Heard, MOST};
use crate::site::{Site, Snapshot, own};
use crate::wire::offer::{self, Offer};

/// Who asks: locally administered, and spells "bhdhp".
pub(crate) const PROBE_MAC: MacAddr = MacAddr([0x02, 0x62, 0x68, 0x64, 0x68, 0x70]);
/// By which our own daemon knows its question when a relay brings it back.
static PROBE_XID: LazyLock<u32> = LazyLock::new(rand::random);
/// How often the daemon looks.
const EVERY: Duration = Duration::from_secs(300);
/// How long after a look the next begins at the earliest, where a machine took another server's offer.
const PAUSE: Duration = Duration::from_secs(10);
/// How long it listens, from each of two questions: dnsmasq pings an address for 3 s before
/// it offers it.
const LISTEN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];

/// Whether a request is this process's own question.
pub(super) fn is_own_probe(mac: MacAddr, xid: u32) -> bool {
    mac == PROBE_MAC && xid == *PROBE_XID
}

/// Asks on one interface; takes six seconds. Answers of this machine's own addresses are not
/// another server's.
///
/// # Errors
/// The socket can't be opened (`CAP_NET_RAW`), or the question can't be sent.
pub async fn look(interface: &Interface) -> io::Result<Looked> {
    let index = nix::net::if_::if_nametoindex(interface.name.as_str())?;
    let socket = PacketSocket::open(index, EtherType::Ipv4, &dhcp_answers(*PROBE_XID))?;
    ask(&socket, &own_addresses()).await
}

/// Who answered.
#[derive(Debug, Default)]
pub struct Looked {
    /// At most [`MOST`] of them.
    pub heard: Vec<Heard>,
    /// Whether others answered beside them: nobody runs so many, somebody forges them.
    pub more: bool,
}

impl Looked {
    fn take(&mut self, one: Heard) {
        let known = |other: &Heard| (other.server, other.mac) == (one.server, one.mac);
        if self.heard.iter().any(known) {
            return;
        }
        if self.heard.len() < MOST {
            self.heard.push(one);
        } else {
            self.more = true;
        }
    }

    /// What is to be said where a network reckons with another server and none gives addresses.
    pub fn nobody_gives(&self, interface: &str, here: &[&Network]) -> Option<String> {
        let mut proxied = here
            .iter()
            .filter(|network| network.dhcp == DhcpMode::Proxy);
        let network = proxied.next()?;
        let nobody = !self.heard.iter().any(Heard::gives);
        nobody.then(|| {
            format!(
                "no DHCP server gives addresses on {interface}, and network {} is `dhcp: proxy`: start that server, or set `dhcp: server`",
                network.name
            )
        })
    }

    /// What is to be said where more answered than are listed.
    pub fn and_more(&self, interface: &str) -> Option<String> {
        self.more.then(|| {
            format!(
                "more than {MOST} other DHCP servers answer on {interface}, and the rest is not listed: somebody forges answers; find the MACs that they come from"
            )
        })
    }
}

async fn ask(socket: &PacketSocket, own: &[Ipv4Addr]) -> io::Result<Looked> {
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let question = frame::datagram(from, to, &offer::discover(*PROBE_XID, PROBE_MAC));
    let mut looked = Looked::default();
    let mut buffer = [0; 1500];
    for listen in LISTEN {
        socket.broadcast(&question)?;
        let end = Instant::now() + listen;
        while let Ok(received) = timeout_at(end, socket.receive(&mut buffer)).await {
            let (length, mac) = received?;
            let Some(one) = read(&buffer[..length.min(buffer.len())], mac) else {
                continue;
            };
            if !own.contains(&one.server) {
                looked.take(one);
            }
        }
    }
    looked.heard.sort();
    Ok(looked)
}

/// An OFFER out of an IPv4 packet.
fn read(packet: &[u8], mac: MacAddr) -> Option<Heard> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source = <[u8; 4]>::try_from(packet.get(12..16)?).ok()?;
    let offer = Offer::parse(packet.get(header + 8..)?)?;
    (offer.xid == *PROBE_XID).then_some(Heard {
        server: offer.server.unwrap_or(Ipv4Addr::from(source)),
        mac,
        address: offer.yiaddr,
        pxe: offer.pxe,
    })
}

fn own_addresses() -> Vec<Ipv4Addr> {
    let all = own::of_machine().into_iter().flatten();
    all.map(|(_, address)| address).collect()
}

/// The networks on the link of an interface in which we answer DHCP.
pub fn served<'a>(inventory: &'a Inventory, interface: &Interface) -> Vec<&'a Network> {
    let here = |network: &&Arc<Network>| {
        let mut addresses = interface.addresses.iter();
        network.dhcp != DhcpMode::Off && addresses.any(|one| network.subnet.contains(one))
    };
    let networks = inventory.networks.values();
    networks.filter(here).map(Arc::as_ref).collect()
}

/// What was said already, and is not said at every look.
#[derive(Default)]
struct Said {
    nobody: bool,
    more: bool,
}

/// Looks at the start and by timer, until `shutdown`.
pub(super) async fn watch(interface: Interface, site: &Site, shutdown: CancellationToken) {
    let mut said = Said::default();
    let mut suspected = site.others.suspected();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = look_once(&interface, site, &mut said) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
            // Anybody can give reason, so not at once again.
            () = async { tokio::time::sleep(PAUSE).await; let _ = suspected.changed().await; } => {}
        }
    }
}

async fn look_once(interface: &Interface, site: &Site, said: &mut Said) {
    let on = &interface.name;
    let is_served = |snapshot: &Snapshot| !served(&snapshot.inventory, interface).is_empty();
    if !is_served(&site.snapshot()) {
        // An edit switched DHCP off: nobody looks any more.
        site.others.forget(on);
        return count(site);
    }
    let looked = match look(interface).await {
        Ok(looked) => looked,
        Err(error) => {
            return tracing::debug!("cannot look for other DHCP servers on {on}: {error}");
        }
    };
    // Only now: a snapshot holds every boot file, and an edit may have come meanwhile.
    let snapshot = site.snapshot();
    let here = served(&snapshot.inventory, interface);
    tell(site, interface, &here, &looked.heard);
    let nobody = looked.nobody_gives(on, &here);
    tell_once(site, nobody, &mut said.nobody);
    tell_once(site, looked.and_more(on), &mut said.more);
}

fn tell_once(site: &Site, message: Option<String>, said: &mut bool) {
    let before = std::mem::replace(said, message.is_some());
    if let Some(message) = message.filter(|_| !before) {
        tracing::warn!("{message}");
        event(site, StageState::Degraded, message);
    }
}

fn tell(site: &Site, interface: &Interface, here: &[&Network], heard: &[Heard]) {
    let on = &interface.name;
    let (new, gone) = site.others.update(on, here, heard);
    for (one, network) in new {
        let expected = one.is_expected(network.dhcp);
        let (what, advice) = (one.describe(), one.advice(network));
        let message = format!("another DHCP server on {on}: {what}; {advice}");
        let state = if expected {
            tracing::info!("{message}");
            StageState::Info
        } else {
            tracing::warn!("{message}");
            StageState::Degraded
        };
        event(site, state, message);
    }
    for one in gone {
        let message = format!("the other DHCP server on {on} is gone: {}", one.server);
        tracing::info!("{message}");
        event(site, StageState::Info, message);
    }
    count(site);
}

fn count(site: &Site) {
    let all = site.others.list();
    for (kind, expected) in [
        (OtherServer::Expected, true),
        (OtherServer::Unexpected, false),
    ] {
        let count = all
            .iter()
            .filter(|(_, known)| known.expected == expected)
            .count();
        let gauge = site.metrics.dhcp.others.of(kind);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn event(site: &Site, state: StageState, message: String) {
    let (now, wire) = (Timestamp::now(), MachineId::wire());
    site.timeline
        .record(BootEvent::sent(now, wire, Stage::Dhcp, state, message));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxied_network_without_its_server_is_told() {
        let text =
            "networks: {boot: {subnet: 10.77.0.0/24}, beside: {subnet: 10.66.0.0/24, dhcp: proxy}}";
        let (inventory, _) = crate::inventory::parse("hosts.yaml", text).unwrap();
        let interface = Interface {
            name: "eth0".into(),
            addresses: vec![Ipv4Addr::new(10, 66, 0, 1), Ipv4Addr::new(10, 77, 0, 1)],
        };
        let here = served(&inventory, &interface);
        assert_eq!(here.len(), 2);
        let mut looked = Looked::default();
        let mut one = Heard {
            server: Ipv4Addr::new(10, 66, 0, 9),
            mac: PROBE_MAC,
            address: Ipv4Addr::UNSPECIFIED,
            pxe: true,
        };
        looked.take(one);
        let told = looked.nobody_gives("eth0", &here).unwrap();
        assert!(told.contains("eth0") && told.contains("beside"), "{told}");
        one.server = Ipv4Addr::new(10, 66, 0, 8);
        one.address = Ipv4Addr::new(10, 66, 0, 100);
        looked.take(one);
        assert_eq!(looked.nobody_gives("eth0", &here), None);
    }

    #[test]
    fn forged_answers_fill_no_list() {
        let mut looked = Looked::default();
        for number in 0..10_000_u32 {
            looked.take(Heard {
                server: Ipv4Addr::from(0x0a00_0000 + number),
                mac: PROBE_MAC,
                address: Ipv4Addr::UNSPECIFIED,
                pxe: false,
            });
            assert_eq!(looked.more, number as usize >= MOST);
        }
        assert_eq!(looked.heard.len(), MOST);
        assert!(looked.and_more("eth0").unwrap().contains("eth0"));
    }
}

//! Captured requests, and what the daemon would answer to each.
//!
//! They are put to a whole site of its own (leases, timeline, TFTP), which begins empty and is thrown away: the
//! code is that which serves. What a machine was given earlier in the capture it has later in it. Leases do not run
//! out meanwhile, and the budgets of who asks too often are not counted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tempfile::TempDir;

use super::capture::{self, CaptureError, Datagram, End, Seen};
use super::{DhcpStep, scene};
use crate::daemon::observe::Desk;
use crate::dhcp::{PROBE_MAC, decide, tell};
use crate::inventory::model::{DhcpMode, MacAddr, Network};
use crate::leases::{Journal, JournalError};
use crate::metrics::Metrics;
use crate::policy::client::Client;
use crate::policy::dhcp::{Port, Received};
use crate::policy::event::MachineId;
use crate::site::{Neighbours, Site, Snapshot};
use crate::tftp::{self, Source};
use crate::timeline::{Timeline, TimelineError};
use crate::wire::dhcp::Request;
use crate::wire::offer::{self, Offer};
use crate::wire::text::clean;
use crate::wire::tftp::Packet;

/// Names of files in requests are cut to this, characters.
const MAX_NAME: usize = 200;

/// Nothing could be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A directory for what is thrown away.
    #[error("cannot make a temporary directory")]
    Scratch(#[source] io::Error),
    /// In it.
    #[error(transparent)]
    Leases(#[from] JournalError),
    /// In it.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
}

/// A packet of the capture that is for the daemon, or was another's answer.
#[derive(Debug, Serialize)]
pub struct Replayed {
    /// Version of this shape.
    pub schema: u32,
    /// Which packet of the capture, from 1.
    pub packet: u64,
    /// When it was captured.
    pub at: Timestamp,
    /// Who sent it.
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// The host, or `mac-…`; `wire` where nobody can be named.
    pub machine: String,
    /// What it is, and what is done.
    #[serde(flatten)]
    pub what: What,
}

/// What a packet is, and what is done about it.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A DHCP request.
    Dhcp(Box<DhcpStep>),
    /// A TFTP request.
    Tftp {
        /// The file.
        asks: String,
        /// How much is sent, bytes; `None`: it is refused.
        sends: Option<usize>,
        /// Why, if it is refused.
        because: String,
    },
    /// An OFFER that somebody sent when it was captured.
    Offered {
        /// By which server.
        server: Option<Ipv4Addr>,
        /// Which address; zero for a proxy.
        address: Ipv4Addr,
        /// Whether it says what to boot.
        boots: bool,
    },
    /// No request that can be answered.
    Malformed {
        /// Why.
        because: String,
    },
}

impl What {
    /// Whether a request goes without an answer.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Dhcp(step) => step.answer.is_none(),
            Self::Malformed { .. } => true,
            Self::Tftp { .. } | Self::Offered { .. } => false,
        }
    }

    /// Whether it is a request.
    pub fn is_request(&self) -> bool {
        !matches!(self, Self::Offered { .. })
    }
}

/// Puts every request of a capture to the site, and hands what comes of it to `each`.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(
    snapshot: Snapshot,
    capture: &Path,
    server: Option<Ipv4Addr>,
    mut each: impl FnMut(Replayed),
) -> Result<End, ReplayError> {
    let stage = Stage::set(snapshot, server)?;
    let end = capture::read(capture, |seen| match seen {
        Seen::Neighbour(address, mac) => stage.site.neighbours.heard(address, mac),
        Seen::Datagram(datagram) => {
            if let Some(replayed) = stage.take(&datagram) {
                each(replayed);
            }
        }
    })?;
    Ok(end)
}

struct Stage {
    site: Arc<Site>,
    desk: Arc<Desk>,
    locals: Vec<Ipv4Addr>,
    _scratch: TempDir,
}

impl Stage {
    fn set(snapshot: Snapshot, server: Option<Ipv4Addr>) -> Result<Self, ReplayError> {
        let scratch = TempDir::new().map_err(ReplayError::Scratch)?;
        let networks = snapshot.inventory.networks.values();
        let served = networks.filter(|network| network.dhcp != DhcpMode::Off);
        let there = |network: &Network| server.filter(|server| network.subnet.contains(server));
        let locals = served.map(|network| scene::stand(network, there(network)).address);
        let mut locals: Vec<_> = locals.collect();
        // In none of them: what it gets comes by relays.
        let elsewhere = server.filter(|server| !locals.is_empty() && !locals.contains(server));
        locals.extend(elsewhere);
        let journal = Journal::open(scratch.path())?;
        let timeline = Timeline::open(scratch.path())?;
        let metrics = Arc::new(Metrics::default());
        let site = Site::new(snapshot, journal, timeline, metrics);
        // This machine's own neighbours may have had other addresses then, or be others.
        let site = Arc::new(site.beside(Neighbours::told()));
        Ok(Self {
            desk: Desk::new(&site),
            site,
            locals,
            _scratch: scratch,
        })
    }

    fn take(&self, datagram: &Datagram<'_>) -> Option<Replayed> {
        let from = *datagram.from.ip();
        if let Some(sender) = datagram.sender.filter(|_| !from.is_unspecified()) {
            self.site.neighbours.heard(from, sender);
        }
        let (machine, what) = match datagram.to.port() {
            // Answers go to relays and PXE clients by these, too.
            67 | 68 | 4011 if datagram.payload.first() == Some(&2) => self.offered(datagram)?,
            67 => self.dhcp(datagram, Port::Dhcp)?,
            4011 => self.dhcp(datagram, Port::Pxe)?,
            69 => self.tftp(datagram)?,
            _ => return None,
        };
        Some(Replayed {
            schema: super::SCHEMA,
            packet: datagram.number,
            at: datagram.at,
            from: datagram.from,
            to: datagram.to,
            machine: machine.0,
            what,
        })
    }

    fn dhcp(&self, datagram: &Datagram<'_>, port: Port) -> Option<(MachineId, What)> {
        let cut = match datagram.is_cut {
            true => " (the capture kept only its beginning: tcpdump -s 0)",
            false => "",
        };
        let request = match Request::parse(datagram.payload) {
            // The daemon's own look for other servers.
            Ok(request) if request.mac == PROBE_MAC => return None,
            Ok(request) if !self.locals.is_empty() => request,
            Ok(_) => return malformed("no network of the inventory is served by DHCP".to_owned()),
            Err(because) => return malformed(format!("{because}{cut}")),
        };
        let received = Received {
            request: &request,
            locals: &self.locals,
            to: *datagram.to.ip(),
            source: datagram.from,
            port,
        };
        let (site, snapshot) = (&self.site, self.site.snapshot());
        let own = scene::owning(&self.locals, &snapshot.inventory);
        let now = site.journal.clock().now();
        let leaves = site.leaves_for_disk(&snapshot, &Client::of(&request), Timestamp::now());
        let verdict = {
            let mut leases = site.leases();
            leases.sweep(now);
            let verdict = decide(&received, &snapshot, &own, &mut leases, now, leaves);
            if let Some(change) = &verdict.lease_change {
                leases.apply(change);
            }
            verdict
        };
        tell(&request, datagram.from, &verdict, leaves, site);
        let machine = self.machine(request.mac);
        let step = DhcpStep::new(&snapshot, &request, &verdict);
        Some((machine, What::Dhcp(Box::new(step))))
    }

    fn offered(&self, datagram: &Datagram<'_>) -> Option<(MachineId, What)> {
        if let Some((address, mac)) = offer::given(datagram.payload) {
            self.site.neighbours.heard(address, mac);
        }
        let offer = Offer::parse(datagram.payload)?;
        let octets = <[u8; 6]>::try_from(datagram.payload.get(28..34)?).ok()?;
        let what = What::Offered {
            server: offer.server,
            address: offer.yiaddr,
            boots: offer.pxe,
        };
        Some((self.machine(MacAddr(octets)), what))
    }

    fn machine(&self, mac: MacAddr) -> MachineId {
        let snapshot = self.site.snapshot();
        let host = snapshot.inventory.by_mac.get(&mac);
        host.map_or_else(
            || MachineId::unlisted(mac),
            |host| MachineId(host.name.clone()),
        )
    }

    /// Only requests: what follows goes by other ports.
    fn tftp(&self, datagram: &Datagram<'_>) -> Option<(MachineId, What)> {
        let peer = *datagram.from.ip();
        let machine = self.site.machine_at(peer);
        let machine = machine.map_or_else(MachineId::wire, |found| found.id);
        let request = match Packet::parse(datagram.payload) {
            Ok(Packet::Read(request)) => request,
            Ok(_) => return None,
            Err(because) => {
                return Some((
                    machine,
                    What::Malformed {
                        because: because.to_string(),
                    },
                ));
            }
        };
        let local = IpAddr::V4(*datagram.to.ip());
        let request = tftp::Request::new(SocketAddr::V4(datagram.from), local, &request);
        let mut told = self.site.timeline.follow();
        let (sends, because) = match self.desk.open(&request) {
            Ok(bytes) => (Some(bytes.len()), String::new()),
            Err(refusal) => {
                let event = told.try_recv().ok().map(|event| event.message);
                (None, event.unwrap_or(refusal.text))
            }
        };
        let asks = clean(&request.name, MAX_NAME);
        Some((
            machine,
            What::Tftp {
                asks,
                sends,
                because,
            },
        ))
    }
}

fn malformed(because: String) -> Option<(MachineId, What)> {
    Some((MachineId::wire(), What::Malformed { because }))
}

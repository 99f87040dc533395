//! Whether an address of the pool is really free: an ARP probe (RFC 2131 §3.1 step 2,
//! RFC 5227) before it is offered.
//!
//! A server of long standing knows who uses which address; a new one, or one whose table was
//! lost, does not, and somebody may have taken an address by hand. Only an address that was
//! never leased, or not for an hour, is probed, and only on the link: a relay can't ask. The
//! one client waits 0.3 s for it; nobody else does.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::packet::{EtherType, PacketSocket, arp_probe, arp_sender};
use crate::inventory::model::MacAddr;
use crate::policy::lease::LeaseTable;

/// Probes of one address.
const PROBES: usize = 2;
/// How long an answer to each is waited for. On a link it takes a millisecond.
const WAIT: Duration = Duration::from_millis(150);
/// Addresses probed at once; beyond, machines are served without: in a storm a wait for
/// each would be the larger harm.
const AT_ONCE: usize = 64;
/// How long an address counts as known: since its lease ended, or since it was probed.
const KNOWN: Duration = Duration::from_secs(3600);
/// Stations that are told of for one address.
const STATIONS: usize = 8;
/// Results that are remembered.
const REMEMBERED: usize = 1 << 16;

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nobody answered.
    Free,
    /// This station has it.
    Taken(MacAddr),
    /// There was no probe.
    Skipped,
}

/// Probes addresses of one interface.
#[derive(Debug)]
pub(super) struct Prober {
    socket: PacketSocket,
    mac: MacAddr,
    asked: Mutex<HashMap<Ipv4Addr, watch::Sender<Vec<MacAddr>>>>,
    proven: Mutex<HashMap<Ipv4Addr, Timestamp>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Prober {
    /// Opens the socket of an interface with this MAC.
    pub(super) fn open(index: u32, mac: MacAddr) -> io::Result<Self> {
        Ok(Self {
            socket: PacketSocket::open(index, EtherType::Arp, &[])?,
            mac,
            asked: Mutex::default(),
            proven: Mutex::default(),
        })
    }

    /// Hears who has which address; runs as long as its interface is served.
    pub(super) async fn listen(&self) {
        let mut buffer = [0; 64];
        loop {
            match self.socket.receive(&mut buffer).await {
                Ok((length, _)) => {
                    if let Some((address, mac)) = arp_sender(&buffer[..length.min(64)])
                        && let Some(asked) = lock(&self.asked).get(&address)
                    {
                        asked.send_if_modified(|heard| {
                            let new = heard.len() < STATIONS && !heard.contains(&mac);
                            if new {
                                heard.push(mac);
                            }
                            new
                        });
                    }
                }
                // The link flaps.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Whether nothing is known of the address.
    pub(super) fn is_unproven(
        &self,
        leases: &LeaseTable,
        address: Ipv4Addr,
        now: Timestamp,
    ) -> bool {
        let recent = |at: Timestamp| at.saturating_add(KNOWN).unwrap_or(Timestamp::MAX) > now;
        let leased = leases.last_lease(address).is_some_and(recent);
        let probed = || {
            lock(&self.proven)
                .get(&address)
                .copied()
                .is_some_and(recent)
        };
        !leased && !probed()
    }

    /// Asks who has the address.
    pub(super) async fn probe(&self, address: Ipv4Addr, now: Timestamp) -> Found {
        let Some((mut answer, first)) = self.ask(address) else {
            return Found::Skipped;
        };
        let mut found = None;
        let mut sent = true;
        for _ in 0..PROBES {
            // Of two clients that wait for the same answer, one asks.
            if first
                && self
                    .socket
                    .broadcast(&arp_probe(self.mac, address))
                    .is_err()
            {
                sent = false;
                break;
            }
            let heard =
                tokio::time::timeout(WAIT, answer.wait_for(|heard| !heard.is_empty())).await;
            found = heard.ok().and_then(|heard| heard.ok()?.first().copied());
            if found.is_some() {
                break;
            }
        }
        if first {
            lock(&self.asked).remove(&address);
        }
        match found {
            Some(mac) => Found::Taken(mac),
            None if !sent => Found::Skipped,
            None => {
                // Who waited for another's probe does not know whether it was sent.
                if first {
                    self.remember(address, now);
                }
                Found::Free
            }
        }
    }

    /// Everybody who says that it has the address: whoever answers first may be the one who wants it. `None`: it could
    /// not be asked.
    pub(super) async fn stations(&self, address: Ipv4Addr) -> Option<Vec<MacAddr>> {
        let (answer, first) = self.ask(address)?;
        if !first {
            return None;
        }
        let mut sent = true;
        for _ in 0..PROBES {
            sent &= self.socket.broadcast(&arp_probe(self.mac, address)).is_ok();
            tokio::time::sleep(WAIT).await;
        }
        lock(&self.asked).remove(&address);
        let heard = answer.borrow().clone();
        (sent || !heard.is_empty()).then_some(heard)
    }

    /// Where the answer will be, and whether nobody has asked yet. `None`: too many ask.
    fn ask(&self, address: Ipv4Addr) -> Option<(watch::Receiver<Vec<MacAddr>>, bool)> {
        let mut asked = lock(&self.asked);
        if let Some(sender) = asked.get(&address) {
            return Some((sender.subscribe(), false));
        }
        if asked.len() >= AT_ONCE {
            return None;
        }
        let (sender, answer) = watch::channel(Vec::new());
        asked.insert(address, sender);
        Some((answer, true))
    }

    fn remember(&self, address: Ipv4Addr, now: Timestamp) {
        let mut proven = lock(&self.proven);
        if proven.len() >= REMEMBERED {
            proven.clear();
        }
        proven.insert(address, now);
    }
}

//! What to answer to a DHCP packet.

mod events;
mod place;
mod proxy;
mod reply;
mod returned;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::inventory::model::{DhcpMode, Host, Inventory, Network};
use crate::policy::architecture::Architecture;
use crate::policy::client::Client;
use crate::policy::lease::{Lease, LeaseChange, LeaseTable};
use crate::policy::options;
use crate::policy::switch_port::{PluggedIn, SwitchPort};
use crate::policy::verdict::{Because, Verdict};
use crate::wire::dhcp::{MessageType, Request};

/// Longest lease of listed hosts, seconds. Their address is theirs anyway, and the initrd keeps
/// it without a lease; this is how long a replaced board keeps its successor waiting.
const RESERVED_LEASE_S: u32 = 600;

/// A packet, and where it came in.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The packet.
    pub request: &'a Request,
    /// The daemon's addresses on the interface it came in by, the preferred one first; never
    /// empty.
    pub locals: &'a [Ipv4Addr],
    /// Where it was sent to: one of `locals`, an address of another interface, or everybody.
    pub to: Ipv4Addr,
    /// Who sent it: 0.0.0.0, a relay or a client with an address.
    pub source: SocketAddrV4,
    /// The port it was sent to.
    pub port: Port,
}

/// A port that the daemon is asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// 67: DHCP (RFC 2131).
    Dhcp,
    /// 4011: PXE boot servers and proxies (PXE 2.1 §2.2.1).
    Pxe,
}

impl Port {
    /// Its number.
    pub const fn number(self) -> u16 {
        match self {
            Self::Dhcp => 67,
            Self::Pxe => 4011,
        }
    }
}

/// The daemon's addresses, on whatever interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// Every one that this machine has.
    pub all: Vec<Ipv4Addr>,
    /// Those at which boot files are served.
    pub served: Vec<Ipv4Addr>,
    /// Those at which syslog lines are taken, on the port that iPXE sends them to.
    pub syslog: Vec<Ipv4Addr>,
}

/// All that an answer depends on.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Networks, hosts, profiles.
    pub inventory: &'a Inventory,
    /// Who holds which address.
    pub leases: &'a LeaseTable,
    /// What this machine has itself.
    pub own: &'a OwnAddresses,
    /// Port of the boot files.
    pub http_port: u16,
    /// The names in `loaders/`.
    pub loaders: &'a BTreeSet<String>,
    /// What each kernel runs on, where its image says so.
    pub kernels: &'a BTreeMap<String, Architecture>,
    /// Whether the client is firmware on its way to the local disk (`Machine::leaves_for_disk`).
    pub leaves_for_disk: bool,
}

/// Decides how to answer one DHCP packet. No I/O, no clock, no randomness.
pub fn answer(world: &World<'_>, received: &Received<'_>, now: Timestamp) -> Verdict {
    let client = Client::of(received.request);
    let question = Question {
        world,
        received,
        now,
        host: world.inventory.by_mac.get(&client.mac),
        client,
    };
    let mut verdict = match question.network() {
        Ok(network) => question.answer_on(network),
        Err(because) => Verdict::silence(because),
    };
    verdict.events = question.events(&verdict);
    verdict
}

struct Question<'a> {
    world: &'a World<'a>,
    received: &'a Received<'a>,
    now: Timestamp,
    host: Option<&'a Arc<Host>>,
    client: Client,
}

/// Which address is right for the client, and why.
struct Assignment {
    address: Ipv4Addr,
    lease_s: u32,
    because: Because,
}

impl<'a> Question<'a> {
    fn request(&self) -> &'a Request {
        self.received.request
    }

    fn answer_on(&self, network: &Network) -> Verdict {
        let boot_file = self.boot_file(network);
        match self.request().message_type {
            MessageType::Discover | MessageType::Request | MessageType::Inform
                if let Err(because) = boot_file =>
            {
                Verdict::silence(self.not_asked(network).unwrap_or(because))
            }
            // Elsewhere it gets an address, and nothing to boot.
            _ if self.world.leaves_for_disk && self.is_beside(network) => {
                Verdict::silence(Because::LeavesForDisk)
            }
            _ if self.received.port == Port::Pxe => self.at_pxe_port(network),
            _ if network.dhcp == DhcpMode::Proxy => self.beside_another(network),
            MessageType::Discover => self.discover(network),
            MessageType::Request => self.request_address(network),
            MessageType::Inform => self.inform(network),
            MessageType::Release => self.release(network),
            MessageType::Decline => self.decline(network),
            other => Verdict::silence(Because::NotForServers(other)),
        }
    }

    /// Whether all that an answer could say is what to boot.
    fn is_beside(&self, network: &Network) -> bool {
        self.received.port == Port::Pxe || network.dhcp == DhcpMode::Proxy
    }

    /// The host, where its reservation lies in this network.
    fn reservation(&self, network: &Network) -> Option<&'a Arc<Host>> {
        self.host.filter(|host| host.network.name == network.name)
    }

    /// Why it gets nothing of us, whatever is in `loaders/`.
    fn not_asked(&self, network: &Network) -> Option<Because> {
        let chose =
            self.request().message_type == MessageType::Request && self.received.port == Port::Dhcp;
        let other = chose.then(|| self.other_server(network)).flatten();
        other
            .map(Because::OtherServer)
            .or_else(|| self.stranger(network))
    }

    /// Why a machine that is not listed gets nothing, if it does.
    fn stranger(&self, network: &Network) -> Option<Because> {
        let ignored = !network.unknown.policy.holds();
        (ignored && self.host.is_none()).then_some(Because::UnknownIgnored)
    }

    fn assign(&self, network: &Network) -> Result<Assignment, Because> {
        let lease_s = u32::try_from(network.lease_time.as_secs()).unwrap_or(u32::MAX);
        if let Some(host) = self.reservation(network) {
            let address = *host.ip;
            if self.is_ours(address) {
                return Err(Because::OwnAddress(address));
            }
            return match self.world.leases.holder(address, self.now) {
                Some(holder) if !host.has(holder) => {
                    let until = self.world.leases.last_lease(address);
                    Err(Because::ReservedInUse {
                        address,
                        holder,
                        left: until.unwrap_or(self.now).duration_since(self.now),
                    })
                }
                _ => Ok(Assignment {
                    address,
                    lease_s: RESERVED_LEASE_S.min(lease_s),
                    because: Because::Reserved {
                        host: host.name.clone(),
                    },
                }),
            };
        }
        if let Some(because) = self.stranger(network) {
            return Err(because);
        }
        let pool = network
            .pool
            .ok_or_else(|| Because::NoPool(network.name.clone()))?;
        let ours = [self.received.locals, &self.world.own.all].concat();
        let address = self
            .world
            .leases
            .choose(pool, &ours, self.client.mac, self.now);
        Ok(Assignment {
            address: address.ok_or_else(|| Because::PoolFull(network.name.clone()))?,
            lease_s,
            because: Because::Pool,
        })
    }

    fn discover(&self, network: &Network) -> Verdict {
        match self.assign(network) {
            Err(because) => Verdict::silence(because),
            Ok(assignment) => Verdict {
                reply: Some(self.lease_reply(MessageType::Offer, network, &assignment)),
                lease_change: None,
                offered: Some(assignment.address),
                events: Vec::new(),
                because: assignment.because,
            },
        }
    }

    /// What it wants to have, or has.
    fn wanted(&self) -> Option<Ipv4Addr> {
        let request = self.request();
        let ciaddr = (!request.ciaddr.is_unspecified()).then_some(request.ciaddr);
        request.requested_address().or(ciaddr)
    }

    /// REQUEST in its four states (RFC 2131 §4.3.2): SELECTING names a server; INIT-REBOOT has
    /// no address yet; RENEWING comes to us alone, REBINDING to everybody.
    fn request_address(&self, network: &Network) -> Verdict {
        if let Some(server) = self.other_server(network) {
            return Verdict::silence(Because::OtherServer(server));
        }
        let Some(wanted) = self.wanted() else {
            return Verdict::silence(Because::NoAddressWanted);
        };
        // A relay sends to us what the client sends to everybody.
        let relayed = !self.request().giaddr.is_unspecified();
        let asks_everybody =
            self.request().server_id().is_none() && (relayed || !self.is_unicast());
        if asks_everybody && !network.authoritative && !self.is_known(network, wanted) {
            return Verdict::silence(Because::NotKnown(wanted));
        }
        match self.assign(network) {
            Ok(mut assignment) => {
                self.prefer(network, wanted, &mut assignment);
                if assignment.address == wanted {
                    self.ack(network, &assignment)
                } else {
                    self.nak(network, wanted, assignment.address)
                }
            }
            // The machine is not ours to serve; another server's client may be renewing.
            Err(because @ (Because::UnknownIgnored | Because::NoPool(_))) => {
                Verdict::silence(because)
            }
            Err(because) => self.nak_because(network, because),
        }
    }

    /// A machine that asks for an address of the pool that is free may have it, though
    /// the table would have chosen another: it may be all that it remembers after our
    /// table was lost.
    fn prefer(&self, network: &Network, wanted: Ipv4Addr, assignment: &mut Assignment) {
        let free = network.pool.is_some_and(|pool| pool.contains(wanted))
            && !self.is_ours(wanted)
            && self
                .world
                .leases
                .available(wanted, self.client.mac, self.now);
        if assignment.because == Because::Pool && free {
            assignment.address = wanted;
        }
    }

    fn ack(&self, network: &Network, assignment: &Assignment) -> Verdict {
        let lease = Duration::from_secs(u64::from(assignment.lease_s));
        Verdict {
            reply: Some(self.lease_reply(MessageType::Ack, network, assignment)),
            lease_change: Some(LeaseChange::Bind {
                mac: self.client.mac,
                address: assignment.address,
                expires: self.now.saturating_add(lease).unwrap_or(Timestamp::MAX),
                port: self.plugged_in(assignment).map(Box::new),
            }),
            offered: None,
            events: Vec::new(),
            because: assignment.because.clone(),
        }
    }

    /// Where it is plugged in, if nobody listed it: a host is known by its MAC.
    fn plugged_in(&self, assignment: &Assignment) -> Option<PluggedIn> {
        if assignment.because != Because::Pool {
            return None;
        }
        let known = self.world.leases.plugged_in(self.client.mac, self.now);
        let heard = SwitchPort::heard(self.request(), self.is_unicast());
        PluggedIn::after(known, heard, self.request().xid, self.now)
    }

    fn nak(&self, network: &Network, wanted: Ipv4Addr, right: Ipv4Addr) -> Verdict {
        self.nak_because(network, Because::WrongAddress { wanted, right })
    }

    fn nak_because(&self, network: &Network, because: Because) -> Verdict {
        let mut reply = self.reply(MessageType::Nak, network);
        // RFC 2132 §9.9: the words that may help whoever reads the client's log.
        reply.options.insert(56, because.to_string().into_bytes());
        Verdict {
            reply: Some(self.transmit(network, reply, self.to_everybody())),
            ..Verdict::silence(because)
        }
    }

    /// INFORM: options alone, no address and no lease time (RFC 2131 §4.3.5).
    fn inform(&self, network: &Network) -> Verdict {
        let mut reply = self.reply(MessageType::Ack, network);
        self.add_options(&mut reply, network);
        self.add_boot_file(&mut reply, network);
        Verdict {
            reply: Some(self.transmit(network, reply, self.to_who_asked())),
            ..Verdict::silence(Because::Informed)
        }
    }

    /// Whether we have a record of the client: only then may we tell it what is wrong, where
    /// other servers are too. A lease that ran out is another server's business, unless the
    /// client still asks for its address.
    fn is_known(&self, network: &Network, wanted: Ipv4Addr) -> bool {
        let lease = self.world.leases.of(self.client.mac);
        let knows = |lease: Lease| lease.expires > self.now || lease.address == wanted;
        self.reservation(network).is_some() || lease.is_some_and(knows)
    }

    /// Whether this machine has the address, on whatever interface: no ARP probe would tell.
    fn is_ours(&self, address: Ipv4Addr) -> bool {
        self.received.locals.contains(&address) || self.world.own.all.contains(&address)
    }

    /// Whether the client holds this address now, by a lease of ours.
    fn holds(&self, address: Ipv4Addr) -> bool {
        self.world.leases.holder(address, self.now) == Some(self.client.mac)
    }
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;

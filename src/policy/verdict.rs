//! What the policy decided, and why.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use jiff::SignedDuration;

use crate::inventory::model::{Firmware, MacAddr};
use crate::policy::architecture::Architecture;
use crate::policy::boot_target::NoLoader;
use crate::policy::event::BootEvent;
use crate::policy::lease::LeaseChange;
use crate::wire::dhcp::{MessageType, Reply};

/// A decision on one DHCP packet.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What to send, if anything.
    pub reply: Option<Transmit>,
    /// What must be durable before the reply leaves.
    pub lease_change: Option<LeaseChange>,
    /// An address to hold in memory for the client's REQUEST.
    pub offered: Option<Ipv4Addr>,
    /// What to tell the timeline.
    pub events: Vec<BootEvent>,
    /// Why.
    pub because: Because,
}

impl Verdict {
    /// No answer.
    pub fn silence(because: Because) -> Self {
        Self {
            reply: None,
            lease_change: None,
            offered: None,
            events: Vec::new(),
            because,
        }
    }
}

/// A reply and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The message.
    pub reply: Reply,
    /// The way to the client.
    pub destination: Destination,
    /// The address of ours that it comes from.
    pub from: Ipv4Addr,
    /// How long it is held back; zero but for firmware that misses a quick reply.
    pub delay: Duration,
    /// Whether the client is then told that there is no IPv6 router for it to wait for.
    pub ends_ipv6_wait: bool,
}

/// The way to the client (RFC 2131 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To a relay, or to a client that has an address.
    Unicast(SocketAddrV4),
    /// To 255.255.255.255, port 68, on the interface the request came in by.
    Broadcast,
    /// To a client that has no address yet and so can't answer ARP: a frame to its MAC.
    Frame {
        /// The client.
        mac: MacAddr,
        /// The address it is being given.
        address: Ipv4Addr,
    },
}

/// Why a packet was answered as it was, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// A listed host got its reserved address.
    Reserved {
        /// Which host.
        host: String,
    },
    /// A machine that is not listed got an address of the pool.
    Pool,
    /// INFORM: it has its address and wants the rest.
    Informed,
    /// The client may not have the address it wants.
    WrongAddress {
        /// What it wants.
        wanted: Ipv4Addr,
        /// What is right.
        right: Ipv4Addr,
    },
    /// Released or declined; there is nothing to answer.
    Noted,
    /// The client declined so many addresses that this one does not rest, too.
    DeclinesMany(Ipv4Addr),
    /// Half of the pool rests, and this one does not as well.
    HalfRests(Ipv4Addr),
    /// Not an error: the client took another server's offer.
    OtherServer(Ipv4Addr),
    /// No network in the inventory covers where the packet came from.
    NoNetwork(Ipv4Addr),
    /// `dhcp: off` for the network.
    DhcpOff(String),
    /// `dhcp: proxy` for the network, and it does not boot.
    Proxied(String),
    /// A boot answer: another server gives the address.
    Beside {
        /// Which host, if it is listed.
        host: Option<String>,
    },
    /// What port 4011 is not for.
    NotForPxe(MessageType),
    /// INIT-REBOOT or REBINDING with an address that we know nothing of, where another server
    /// may.
    NotKnown(Ipv4Addr),
    /// `unknown: {policy: ignore}`, and it is not listed.
    UnknownIgnored,
    /// Every address of the pool is in use.
    PoolFull(String),
    /// The network has no pool and the machine is not listed.
    NoPool(String),
    /// The host's own address is still leased to another machine.
    ReservedInUse {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        holder: MacAddr,
        /// For how long. The lease's clock is not the wall's, so no time of day.
        left: SignedDuration,
    },
    /// The host's own address is the daemon's.
    OwnAddress(Ipv4Addr),
    /// It was just sent to its local disk, and its firmware tries another way to the network first.
    LeavesForDisk,
    /// Nothing in `loaders/` runs on it.
    NoLoader(NoLoader),
    /// Its profile's kernel does not run on it.
    OtherArchitecture {
        /// Which host.
        host: String,
        /// The kernel's name.
        kernel: String,
        /// What the kernel runs on.
        of: Architecture,
        /// What the machine is.
        firmware: Firmware,
    },
    /// Message types that only servers send, and the like.
    NotForServers(MessageType),
    /// A REQUEST that names no address at all.
    NoAddressWanted,
}

impl Because {
    /// Whether an operator should look at it.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::NoNetwork(_)
                | Self::PoolFull(_)
                | Self::NoPool(_)
                | Self::ReservedInUse { .. }
                | Self::OwnAddress(_)
                | Self::NoLoader(_)
                | Self::OtherArchitecture { .. }
                | Self::NotForServers(_)
                | Self::NotForPxe(_)
                | Self::NoAddressWanted
                | Self::DeclinesMany(_)
                | Self::HalfRests(_)
        )
    }
}

impl Because {
    /// What a listed host does not get, and why.
    fn fmt_reserved(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedInUse {
                address,
                holder,
                left,
            } => write!(
                f,
                "its address {address} is leased to {holder} for another {} min; then it is given",
                left.as_secs().max(1).saturating_add(59) / 60
            ),
            Self::OtherArchitecture {
                host,
                kernel,
                of,
                firmware,
            } => write!(
                f,
                "its kernel {kernel} is for {of} and it is {firmware}: give {host} a profile with a kernel and an initrd for its processor"
            ),
            Self::OwnAddress(address) => write!(
                f,
                "its address {address} is this server's own: give the host another `ip`, or the server another address"
            ),
            _ => Ok(()),
        }
    }
}

/// How [`Because::OtherServer`] begins, by which a stall knows it again.
pub(super) const TOOK_ANOTHER: &str = "it took the offer of another DHCP server,";

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved { host } => write!(f, "its MAC is listed as {host}"),
            Self::Pool => f.write_str("it is not listed; address from the pool"),
            Self::Informed => f.write_str("it has its address and asked for the options"),
            Self::WrongAddress { wanted, right } => {
                write!(f, "it wants {wanted}, its address here is {right}")
            }
            Self::Noted => f.write_str("noted"),
            Self::DeclinesMany(address) => write!(
                f,
                "it declined several addresses within minutes, and {address} does not rest as well: look at that machine, or for one that answers ARP for every address (arping {address})"
            ),
            Self::HalfRests(address) => write!(
                f,
                "half of the pool rests because somebody has its addresses without a lease, and {address} does not rest as well: look for who answers ARP for it (arping {address})"
            ),
            Self::OtherServer(server) => write!(f, "{TOOK_ANOTHER} {server}"),
            Self::NoNetwork(address) => {
                write!(f, "no network in the inventory covers {address}")
            }
            Self::DhcpOff(network) => write!(f, "dhcp is off for network {network}"),
            Self::Proxied(network) => write!(
                f,
                "another server gives the addresses of network {network} (dhcp: proxy), and it does not boot"
            ),
            Self::Beside { host: Some(host) } => write!(f, "its MAC is listed as {host}"),
            Self::Beside { host: None } => f.write_str("it is not listed"),
            Self::NotForPxe(kind) => write!(
                f,
                "port 4011 takes REQUEST and INFORM of booting clients, and no {kind:?}"
            ),
            Self::NotKnown(address) => write!(
                f,
                "{address} may be another server's lease, and this one is not authoritative here"
            ),
            Self::UnknownIgnored => {
                f.write_str("it is not listed, and the policy for unknown machines is ignore")
            }
            Self::PoolFull(network) => {
                write!(
                    f,
                    "every address of network {network}'s pool is in use: make the pool larger, or list the machine"
                )
            }
            Self::NoPool(network) => {
                write!(f, "it is not listed and network {network} has no pool")
            }
            Self::ReservedInUse { .. } | Self::OtherArchitecture { .. } | Self::OwnAddress(_) => {
                self.fmt_reserved(f)
            }
            Self::LeavesForDisk => f.write_str(
                "it was just sent to its local disk, and its firmware still has another network entry before that in its boot order",
            ),
            Self::NoLoader(none) => none.fmt(f),
            Self::NotForServers(kind) => write!(f, "{kind:?} is not for a server"),
            Self::NoAddressWanted => {
                f.write_str("its REQUEST names no address (option 50 and ciaddr are empty)")
            }
        }
    }
}

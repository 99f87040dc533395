//! What clients and relays send.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::DhcpOptionIterator;

use super::{FIXED, Hardware, MessageType};
use crate::inventory::model::MacAddr;
use crate::wire::pxe::{self, ClientArch};

pub(super) const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// RFC 1542 §4.1.1: relays discard above this.
const MAX_HOPS: u8 = 16;

/// A request as a client or relay sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it asks.
    pub message_type: MessageType,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began, as it says.
    pub secs: u16,
    /// The broadcast bit of `flags` (RFC 2131 §4.1).
    pub broadcast: bool,
    /// Client's address, zero unless it can answer ARP for it.
    pub ciaddr: Ipv4Addr,
    /// Relay agent's address, zero on the client's own link.
    pub giaddr: Ipv4Addr,
    /// What it has for a hardware address.
    pub hardware: Hardware,
    /// The MAC that it is known by.
    pub mac: MacAddr,
    /// Options by code, as bytes; what came in pieces is joined (RFC 3396).
    pub options: BTreeMap<u8, Vec<u8>>,
}

/// Why a datagram is no DHCP request that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than the fixed part.
    #[error("{0} bytes are too short for DHCP: the fixed part alone has 240")]
    Short(usize),
    /// A reply, or nonsense in `op`.
    #[error("op {0} is not BOOTREQUEST (1)")]
    NotRequest(u8),
    /// `hlen` is beyond `chaddr`.
    #[error("a hardware address of {0} bytes is longer than `chaddr` (16)")]
    LongAddress(u8),
    /// Neither a hardware address nor a client identifier.
    #[error(
        "hardware type {htype} with an address of {hlen} bytes, and no client identifier (option 61): nothing says who it is"
    )]
    Nobody {
        /// `htype`.
        htype: u8,
        /// `hlen`.
        hlen: u8,
    },
    /// `chaddr` is zero, multicast or broadcast.
    #[error("hardware address {0} is not one machine's")]
    BadHardwareAddress(MacAddr),
    /// `ciaddr` or `giaddr` is where no answer may go: a group, everybody, or this machine itself.
    #[error("{field} {address} is not one machine's")]
    BadAddress {
        /// Which.
        field: &'static str,
        /// What is in it.
        address: Ipv4Addr,
    },
    /// Relayed too often.
    #[error("{0} hops are too many (at most 16)")]
    Hops(u8),
    /// The options do not begin with 99.130.83.99.
    #[error("no DHCP magic cookie before the options")]
    Magic,
    /// BOOTP, or option 53 of a length other than 1.
    #[error("no message type (option 53): BOOTP is not served")]
    NoMessageType,
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

impl Request {
    /// Reads a datagram from port 67.
    ///
    /// # Errors
    /// [`Malformed`], which says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() < FIXED {
            return Err(Malformed::Short(bytes.len()));
        }
        let hardware = check_fixed(bytes)?;
        let options = walk_options(bytes);
        let message_type = match options.get(&53).map(Vec::as_slice) {
            Some([code]) => MessageType::from(*code),
            _ => return Err(Malformed::NoMessageType),
        };
        let client_id = options.get(&61).map_or(&[][..], Vec::as_slice);
        Ok(Self {
            mac: hardware.identity(client_id)?,
            message_type,
            xid: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            secs: u16::from_be_bytes([bytes[8], bytes[9]]),
            broadcast: bytes[10] & 0x80 != 0,
            ciaddr: address(bytes, 12),
            giaddr: address(bytes, 24),
            hardware,
            options,
        })
    }

    fn option_address(&self, code: u8) -> Option<Ipv4Addr> {
        match self.options.get(&code).map(Vec::as_slice) {
            Some(&[a, b, c, d]) => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        }
    }

    /// Requested address (option 50).
    pub fn requested_address(&self) -> Option<Ipv4Addr> {
        self.option_address(50)
    }

    /// Server identifier (option 54).
    pub fn server_id(&self) -> Option<Ipv4Addr> {
        self.option_address(54)
    }

    /// Vendor class (option 60), such as `PXEClient:Arch:00007:UNDI:003000`.
    pub fn vendor_class(&self) -> &[u8] {
        self.bytes(60)
    }

    /// User class (option 77).
    pub fn user_class(&self) -> &[u8] {
        self.bytes(77)
    }

    /// Client architectures (option 93), in the client's order.
    pub fn client_archs(&self) -> Vec<ClientArch> {
        ClientArch::list(self.bytes(93)).collect()
    }

    /// Machine identifier (option 97, RFC 4578 §2.3): a type byte 0 and 16 bytes.
    pub fn guid(&self) -> Option<[u8; 16]> {
        match self.bytes(97) {
            [0, rest @ ..] => rest.try_into().ok(),
            _ => None,
        }
    }

    /// The largest reply that the client takes (option 57), UDP payload bytes;
    /// the default is 548 (RFC 2131 §2: a 576-byte IP datagram).
    pub fn max_reply(&self) -> usize {
        match self.bytes(57) {
            &[high, low] => usize::from(u16::from_be_bytes([high, low]).max(576)) - 28,
            _ => 548,
        }
    }

    /// Subnet selection (option 118, RFC 3011).
    pub fn subnet_selection(&self) -> Option<Ipv4Addr> {
        self.option_address(118)
    }

    /// A sub-option of the relay's option 82 (RFC 3046).
    pub fn relay_info(&self, code: u8) -> Option<&[u8]> {
        let mut found = pxe::sub_options(self.bytes(82));
        found
            .find(|(found, _)| *found == code)
            .map(|(_, data)| data)
    }

    fn relay_address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.relay_info(code)?.try_into().ok()?;
        Some(octets.into())
    }

    /// Link selection (82.5, RFC 3527): the client's link, where `giaddr` is on another.
    pub fn link_selection(&self) -> Option<Ipv4Addr> {
        self.relay_address(5)
    }

    /// Server identifier override (82.11, RFC 5107).
    pub fn server_override(&self) -> Option<Ipv4Addr> {
        self.relay_address(11)
    }

    /// Whether the relay wants replies on the port that it sends from (82.19, RFC 8357).
    pub fn has_relay_port(&self) -> bool {
        self.relay_info(19).is_some()
    }

    /// An option's bytes; empty where the client sent none.
    pub fn bytes(&self, code: u8) -> &[u8] {
        self.options.get(&code).map_or(&[], Vec::as_slice)
    }
}

/// The checks that must come before any accessor of `dhcproto`, which slices by `hlen`.
fn check_fixed(bytes: &[u8]) -> Result<Hardware, Malformed> {
    if bytes[0] != 1 {
        return Err(Malformed::NotRequest(bytes[0]));
    }
    if bytes[3] > MAX_HOPS {
        return Err(Malformed::Hops(bytes[3]));
    }
    if bytes[236..FIXED] != MAGIC {
        return Err(Malformed::Magic);
    }
    let mut field = [0; 16];
    field.copy_from_slice(&bytes[28..44]);
    let hardware = Hardware::read(bytes[1], bytes[2], &field)?;
    check_address("ciaddr", address(bytes, 12))?;
    check_address("giaddr", address(bytes, 24))?;
    Ok(hardware)
}

/// Answers go there (RFC 2131 §4.1).
fn check_address(field: &'static str, address: Ipv4Addr) -> Result<(), Malformed> {
    if address.is_multicast() || address.is_broadcast() || address.is_loopback() {
        return Err(Malformed::BadAddress { field, address });
    }
    Ok(())
}

/// Options, then `file` and `sname` where option 52 says that they hold options too
/// (RFC 2132 §9.3, order of RFC 3396 §5).
fn walk_options(bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut options = BTreeMap::new();
    collect(&mut options, &bytes[FIXED..]);
    let overload = options
        .get(&52)
        .and_then(|v: &Vec<u8>| v.first().copied())
        .unwrap_or(0);
    if overload & 1 != 0 {
        collect(&mut options, &bytes[108..236]);
    }
    if overload & 2 != 0 {
        collect(&mut options, &bytes[44..108]);
    }
    options
}

fn collect(options: &mut BTreeMap<u8, Vec<u8>>, bytes: &[u8]) {
    for option in DhcpOptionIterator::new(bytes) {
        options
            .entry(option.code().into())
            .or_default()
            .extend_from_slice(option.data());
    }
}

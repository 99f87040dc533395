//! DHCPv4 messages (RFC 2131, options RFC 2132).
//!
//! `dhcproto` walks and encodes; what it gets wrong on hostile or PXE traffic is
//! done here: checks before its accessors may be called, options kept as bytes so
//! that one bad option does not lose those behind it, overload (option 52), option 82
//! echoed to the byte and last, replies of at least 300 bytes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::DhcpOptionIterator;
use dhcproto::v4::{self, DhcpOption, Encodable, Encoder, Flags, Opcode, OptionCode};

pub use dhcproto::v4::MessageType;

use crate::inventory::model::MacAddr;
use crate::wire::pxe::{self, ClientArch};

/// BOOTP relay agents drop shorter replies (RFC 1542 §2.1; dnsmasq `MIN_PACKETSZ`).
const MIN_REPLY: usize = 300;
const FIXED: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
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
    /// Client hardware address.
    pub chaddr: MacAddr,
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
    /// Not Ethernet, or an address length that Ethernet does not have.
    #[error("hardware type {htype} with an address of {hlen} bytes is not Ethernet (1 with 6)")]
    NotEthernet {
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
        let chaddr = check_fixed(bytes)?;
        let options = walk_options(bytes);
        let message_type = match options.get(&53).map(Vec::as_slice) {
            Some([code]) => MessageType::from(*code),
            _ => return Err(Malformed::NoMessageType),
        };
        Ok(Self {
            message_type,
            xid: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            secs: u16::from_be_bytes([bytes[8], bytes[9]]),
            broadcast: bytes[10] & 0x80 != 0,
            ciaddr: address(bytes, 12),
            giaddr: address(bytes, 24),
            chaddr,
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
    fn relay_info(&self, code: u8) -> Option<&[u8]> {
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
fn check_fixed(bytes: &[u8]) -> Result<MacAddr, Malformed> {
    if bytes[0] != 1 {
        return Err(Malformed::NotRequest(bytes[0]));
    }
    if (bytes[1], bytes[2]) != (1, 6) {
        return Err(Malformed::NotEthernet {
            htype: bytes[1],
            hlen: bytes[2],
        });
    }
    if bytes[3] > MAX_HOPS {
        return Err(Malformed::Hops(bytes[3]));
    }
    if bytes[236..FIXED] != MAGIC {
        return Err(Malformed::Magic);
    }
    let chaddr = MacAddr([
        bytes[28], bytes[29], bytes[30], bytes[31], bytes[32], bytes[33],
    ]);
    if chaddr.0 == [0; 6] || chaddr.0[0] & 1 == 1 {
        return Err(Malformed::BadHardwareAddress(chaddr));
    }
    check_address("ciaddr", address(bytes, 12))?;
    check_address("giaddr", address(bytes, 24))?;
    Ok(chaddr)
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

/// A reply before it is bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// OFFER, ACK or NAK.
    pub message_type: MessageType,
    /// The client's address-to-be; zero in a NAK, to INFORM, and in proxy answers.
    pub yiaddr: Ipv4Addr,
    /// Next server (`siaddr`): where the boot file lies.
    pub next_server: Ipv4Addr,
    /// `sname`, for ROMs that look there.
    pub server_name: String,
    /// `file`: boot file name or URL; what does not fit goes into option 67 alone.
    pub boot_file: String,
    /// Options but 53 and 82, by code.
    pub options: BTreeMap<u8, Vec<u8>>,
}

/// Options that a client can do without, the least needed first: words, NTP, domain, broadcast,
/// hostname, MTU, the lease's timers, routes, DNS, what `siaddr` and iPXE's patience make good, and
/// the client identifier's echo, which can be as long as the client likes.
/// Options that are neither here nor in [`KEPT`] are the operator's, and go before these.
pub const DISPENSABLE: [u8; 14] = [56, 42, 119, 15, 28, 12, 26, 59, 58, 121, 6, 66, 175, 61];
/// What a lease or a boot needs.
const KEPT: [u8; 9] = [1, 3, 43, 51, 54, 60, 67, 97, 118];

/// `file` without its final NUL.
const MAX_FILE: usize = 127;

impl Reply {
    /// The bytes that answer `request`: same xid, flags, giaddr and chaddr, option 82
    /// as it came and last (RFC 3046 §2.2), padded to 300 bytes.
    ///
    /// Where it would be more than the client takes, options go in the order of
    /// [`DISPENSABLE`]; what a lease or a boot needs is never left out.
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        self.fit(request).0
    }

    /// The options that [`encode`](Self::encode) leaves out for want of room.
    pub fn left_out(&self, request: &Request) -> Vec<u8> {
        let room = |data: &Vec<u8>| data.len() + 2 * (data.len() / 255 + 1);
        let size: usize = self.options.values().map(room).sum();
        // Most replies fit, and need not be encoded to see it: 53 and End come on top.
        match FIXED + size + 4 <= request.room() {
            true => Vec::new(),
            false => self.fit(request).1,
        }
    }

    /// The bytes, and what was left out.
    fn fit(&self, request: &Request) -> (Vec<u8>, Vec<u8>) {
        let budget = request.room();
        let mut left_out = Vec::new();
        let mut options = self.options.clone();
        let extra = |code: &u8| !KEPT.contains(code) && !DISPENSABLE.contains(code);
        let extra = self.options.keys().rev().copied().filter(extra);
        let mut dispensable = extra.chain(DISPENSABLE);
        loop {
            let mut bytes = self.encode_with(request, &options);
            let next = dispensable.next().filter(|_| bytes.len() > budget);
            let Some(code) = next else {
                finish(&mut bytes, request.bytes(82));
                return (bytes, left_out);
            };
            if options.remove(&code).is_some() {
                left_out.push(code);
            }
        }
    }

    fn encode_with(&self, request: &Request, options: &BTreeMap<u8, Vec<u8>>) -> Vec<u8> {
        // A relay must broadcast what names no address to send it to: a NAK (RFC 2131 §4.3.2), a
        // proxy's OFFER, an ACK to an INFORM without `ciaddr`.
        let by_relay = !request.giaddr.is_unspecified() && self.yiaddr.is_unspecified();
        let flags = if request.broadcast || by_relay {
            Flags::default().set_broadcast()
        } else {
            Flags::default()
        };
        let mut message = v4::Message::new_with_id(
            request.xid,
            request.ciaddr_for(self.message_type),
            self.yiaddr,
            self.next_server,
            request.giaddr,
            &request.chaddr.0,
        );
        message.set_opcode(Opcode::BootReply).set_flags(flags);
        if !self.server_name.is_empty() && self.server_name.len() < 64 {
            message.set_sname_str(&self.server_name);
        }
        if !self.boot_file.is_empty() && self.boot_file.len() <= MAX_FILE {
            message.set_fname_str(&self.boot_file);
        }
        let opts = message.opts_mut();
        opts.insert(DhcpOption::MessageType(self.message_type));
        for (&code, data) in options {
            opts.insert(DhcpOption::Unknown(v4::UnknownOption::new(
                OptionCode::from(code),
                data.clone(),
            )));
        }
        let mut bytes = Vec::with_capacity(576);
        // Encoding writes into a Vec and has no other way to fail.
        if message.encode(&mut Encoder::new(&mut bytes)).is_err() {
            bytes.truncate(FIXED);
        }
        bytes
    }
}

impl Request {
    /// What a reply may take beside option 82.
    fn room(&self) -> usize {
        let relay_info = self.bytes(82).len() + 3;
        self.max_reply().saturating_sub(relay_info).max(MIN_REPLY)
    }

    /// `ciaddr` is echoed in ACKs only (RFC 2131 table 3).
    fn ciaddr_for(&self, reply: MessageType) -> Ipv4Addr {
        if reply == MessageType::Ack {
            self.ciaddr
        } else {
            Ipv4Addr::UNSPECIFIED
        }
    }
}

/// Puts option 82 behind all others, then End and padding.
fn finish(bytes: &mut Vec<u8>, relay_info: &[u8]) {
    if bytes.last() == Some(&255) {
        bytes.pop();
    }
    for part in relay_info.chunks(255) {
        bytes.push(82);
        bytes.push(u8::try_from(part.len()).unwrap_or(255));
        bytes.extend_from_slice(part);
    }
    bytes.push(255);
    if bytes.len() < MIN_REPLY {
        bytes.resize(MIN_REPLY, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A DISCOVER as OVMF sends it, with the options given.
    pub(crate) fn discover(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
        bytes[236..].copy_from_slice(&MAGIC);
        bytes.extend_from_slice(&[53, 1, 1]);
        bytes.extend_from_slice(options);
        bytes.push(255);
        bytes
    }

    #[test]
    fn reads_what_pxe_needs() {
        let request = Request::parse(&discover(&[
            93, 2, 0, 7, 57, 2, 5, 192, 77, 4, b'i', b'P', b'X', b'E',
        ]))
        .unwrap();
        assert_eq!(request.client_archs(), [ClientArch::UEFI_X64]);
        assert_eq!(request.max_reply(), 1472 - 28);
        assert_eq!(request.user_class(), b"iPXE");
        assert_eq!(request.chaddr.to_string(), "52:54:00:00:00:01");
    }

    #[test]
    fn a_bad_option_does_not_lose_those_behind_it() {
        let request =
            Request::parse(&discover(&[12, 2, 0xff, 0xfe, 93, 3, 0, 7, 9, 97, 1, 0])).unwrap();
        assert_eq!(request.client_archs(), [ClientArch::UEFI_X64]);
        assert_eq!(request.guid(), None);
    }

    /// Found by a property test: an ACK to a group, an OFFER to a relay that is everybody.
    #[test]
    fn addresses_that_no_answer_may_go_to_are_refused() {
        for (field, at) in [("ciaddr", 12), ("giaddr", 24)] {
            for address in [[224, 0, 0, 1], [255; 4], [127, 0, 0, 1]] {
                let mut bytes = discover(&[]);
                bytes[at..at + 4].copy_from_slice(&address);
                let address = Ipv4Addr::from(address);
                let expected = Malformed::BadAddress { field, address };
                assert_eq!(Request::parse(&bytes), Err(expected));
            }
        }
    }

    #[test]
    fn long_hardware_addresses_are_refused_before_dhcproto_slices_them() {
        for hlen in [0, 7, 16, 17, 255] {
            let mut bytes = discover(&[]);
            bytes[2] = hlen;
            assert_eq!(
                Request::parse(&bytes),
                Err(Malformed::NotEthernet { htype: 1, hlen })
            );
        }
    }

    #[test]
    fn overload_brings_the_options_in_file_and_sname() {
        let mut bytes = discover(&[52, 1, 3]);
        bytes[108..113].copy_from_slice(&[93, 2, 0, 0, 255]);
        bytes[44..49].copy_from_slice(&[60, 2, b'P', b'X', 255]);
        let request = Request::parse(&bytes).unwrap();
        assert_eq!(request.client_archs(), [ClientArch::BIOS]);
        assert_eq!(request.vendor_class(), b"PX");
    }

    #[test]
    fn each_fault_has_its_name() {
        assert_eq!(Request::parse(&[0; 239]), Err(Malformed::Short(239)));
        let broken = |at: usize, value: u8| {
            let mut bytes = discover(&[]);
            bytes[at] = value;
            Request::parse(&bytes)
        };
        assert_eq!(broken(0, 2), Err(Malformed::NotRequest(2)));
        assert_eq!(broken(3, 17), Err(Malformed::Hops(17)));
        assert_eq!(broken(236, 0), Err(Malformed::Magic));
        assert_eq!(broken(240, 0), Err(Malformed::NoMessageType));
        assert!(matches!(
            broken(28, 1),
            Err(Malformed::BadHardwareAddress(_))
        ));
    }

    fn offer() -> Reply {
        Reply {
            message_type: MessageType::Offer,
            yiaddr: Ipv4Addr::new(10, 77, 0, 11),
            next_server: Ipv4Addr::new(10, 77, 0, 1),
            server_name: String::new(),
            boot_file: "snponly.efi".into(),
            options: BTreeMap::from([(1, vec![255, 255, 255, 0]), (54, vec![10, 77, 0, 1])]),
        }
    }

    #[test]
    fn replies_are_padded_and_echo_option_82_last() {
        let request = Request::parse(&discover(&[82, 6, 1, 4, 9, 9, 9, 9])).unwrap();
        let bytes = offer().encode(&request);
        assert_eq!(bytes.len(), 300);
        let end = bytes.iter().rposition(|&b| b == 255).unwrap();
        assert_eq!(bytes[end - 8..end], [82, 6, 1, 4, 9, 9, 9, 9]);
        assert_eq!(&bytes[108..119], b"snponly.efi");
        assert_eq!(bytes[4..8], [1, 2, 3, 4]);
    }

    #[test]
    fn replies_keep_within_what_the_client_takes() {
        let request = Request::parse(&discover(&[])).unwrap();
        let mut reply = offer();
        reply.options.insert(42, vec![7; 200]);
        reply.options.insert(15, vec![b'd'; 200]);
        reply.options.insert(67, b"snponly.efi".to_vec());
        reply.options.insert(150, vec![b'x'; 100]);
        let bytes = reply.encode(&request);
        assert!(bytes.len() <= 548);
        for kept in [[54, 4], [67, 11], [15, 200]] {
            assert!(bytes.windows(2).any(|w| w == kept), "{kept:?}");
        }
        assert!(!bytes.windows(2).any(|w| w == [150, 100]), "the operator's");
        assert_eq!(reply.left_out(&request), [150, 42]);
        assert!(offer().left_out(&request).is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn no_options_make_it_panic(options in proptest::collection::vec(any::<u8>(), 0..500)) {
            if let Ok(request) = Request::parse(&discover(&options)) {
                let bytes = offer().encode(&request);
                prop_assert!(bytes.len() >= MIN_REPLY);
                request.client_archs();
                request.guid();
            }
        }
    }
}

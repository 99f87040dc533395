//! What another DHCP server offers to a DISCOVER of ours.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::DhcpOptionIterator;

use crate::inventory::model::MacAddr;

/// Where the options begin.
const OPTIONS: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// A DISCOVER of a PXE client (RFC 4578), so that proxies answer too. It asks for the answer
/// by broadcast: it has no address, and its MAC is no interface's.
pub fn discover(xid: u32, mac: MacAddr) -> Vec<u8> {
    let mut bytes = vec![0; OPTIONS];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&mac.0);
    bytes[236..].copy_from_slice(&MAGIC);
    let mut option = |code: u8, data: &[u8]| {
        bytes.push(code);
        bytes.push(u8::try_from(data.len()).unwrap_or(0));
        bytes.extend_from_slice(data);
    };
    option(53, &[1]);
    option(55, &[1, 3, 6, 43, 54, 60, 66, 67]);
    option(60, b"PXEClient:Arch:00000:UNDI:002001");
    option(93, &[0, 0]);
    option(94, &[1, 2, 1]);
    let mut guid = [0; 17];
    guid[11..].copy_from_slice(&mac.0);
    option(97, &guid);
    bytes.push(255);
    // Some relays and servers drop what is shorter than BOOTP (RFC 951: 300 bytes).
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// An OFFER, as far as it says who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Transaction id.
    pub xid: u32,
    /// The server's identifier (option 54).
    pub server: Option<Ipv4Addr>,
    /// The address; zero in a proxy's answer.
    pub yiaddr: Ipv4Addr,
    /// Whether it tells PXE clients what to boot.
    pub pxe: bool,
}

impl Offer {
    /// Reads a datagram to port 68; `None` where it is no OFFER.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (fixed, options) = reply(bytes, 2)?;
        let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
        let class = options
            .get(&60)
            .is_some_and(|c| c.starts_with(b"PXEClient"));
        Some(Self {
            xid: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            server: options.get(&54).and_then(|bytes| address(bytes)),
            yiaddr: address(&fixed[16..20])?,
            pxe: class || fixed[108] != 0 || options.contains_key(&67),
        })
    }
}

/// The address that an ACK gives, and to whom (Ethernet); `None` where it is none, or gives no address.
pub fn given(bytes: &[u8]) -> Option<(Ipv4Addr, MacAddr)> {
    let (fixed, _) = reply(bytes, 5)?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(&fixed[16..20]).ok()?);
    let mac = MacAddr(<[u8; 6]>::try_from(&fixed[28..34]).ok()?);
    let fits = fixed[1..3] == [1, 6] && !address.is_unspecified();
    fits.then_some((address, mac))
}

type Parts<'a> = (&'a [u8], BTreeMap<u8, Vec<u8>>);

/// The fixed fields and the options of a reply of this type (option 53).
fn reply(bytes: &[u8], message_type: u8) -> Option<Parts<'_>> {
    let fixed = bytes.get(..OPTIONS)?;
    if fixed[0] != 2 || fixed[236..] != MAGIC {
        return None;
    }
    let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for option in DhcpOptionIterator::new(&bytes[OPTIONS..]) {
        let joined = options.entry(option.code().into()).or_default();
        joined.extend_from_slice(option.data());
    }
    let said = options.get(&53).map(Vec::as_slice);
    (said == Some(&[message_type])).then_some((fixed, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dhcp::{MessageType, Reply, Request};

    const MAC: MacAddr = MacAddr([2, 0x62, 0x68, 0, 0, 1]);

    #[test]
    fn our_own_server_reads_the_discover_and_we_read_its_offer() {
        let request = Request::parse(&discover(77, MAC)).unwrap();
        assert_eq!(request.message_type, MessageType::Discover);
        assert_eq!((request.xid, request.mac), (77, MAC));
        assert!(request.broadcast);
        let mut reply = Reply {
            message_type: MessageType::Offer,
            yiaddr: Ipv4Addr::new(10, 0, 0, 9),
            next_server: Ipv4Addr::UNSPECIFIED,
            server_name: String::new(),
            boot_file: String::new(),
            options: BTreeMap::from([(54, vec![10, 0, 0, 1])]),
        };
        let plain = Offer {
            xid: 77,
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
            yiaddr: Ipv4Addr::new(10, 0, 0, 9),
            pxe: false,
        };
        assert_eq!(Offer::parse(&reply.encode(&request)), Some(plain));
        reply.boot_file = "pxelinux.0".into();
        let pxe = Offer { pxe: true, ..plain };
        assert_eq!(Offer::parse(&reply.encode(&request)), Some(pxe));
        reply.message_type = MessageType::Ack;
        assert_eq!(Offer::parse(&reply.encode(&request)), None);
        let gives = (plain.yiaddr, MAC);
        assert_eq!(given(&reply.encode(&request)), Some(gives));
        reply.yiaddr = Ipv4Addr::UNSPECIFIED;
        assert_eq!(given(&reply.encode(&request)), None);
    }

    #[test]
    fn what_is_cut_short_is_no_offer() {
        let request = discover(1, MAC);
        for length in 0..request.len() {
            assert_eq!(Offer::parse(&request[..length]), None);
        }
    }
}

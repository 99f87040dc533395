//! "There is no IPv6 router here", told to one iPXE alone.
//!
//! iPXE is done with an interface when both its DHCP and its search for an IPv6 router are (iPXE `src/net/ndp.c`):
//! where no router answers, it waits some 16 s at each boot. An advertisement with lifetime 0 and without prefixes
//! says that its sender is no default router and configures nothing (RFC 4861 §4.2, §6.3.4), and ends that wait. It
//! goes to the MAC and the link-local address of the iPXE that was just given its lease: nobody else hears it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frame::checksum;
use crate::inventory::model::MacAddr;

const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;

/// The IPv6 packet (RFC 8200) from the daemon at `from`.
pub(super) fn no_router(from: Ipv4Addr, to: MacAddr) -> Vec<u8> {
    let (source, destination) = (own_address(from).octets(), link_local(to).octets());
    // Hop limit, flags, lifetime and both timers: zero, "not specified by this router".
    let mut message = [0; 16];
    message[0] = ROUTER_ADVERTISEMENT;
    let pseudo = [&source[..], &destination, &[0, 0, 0, 16, 0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // Only a hop limit of 255 proves that no router forwarded it; receivers drop all others.
    let header = [0x60, 0, 0, 0, 0, 16, ICMPV6, 255];
    [&header[..], &source, &destination, &message].concat()
}

/// A link-local address that is nobody else's: the IPv4 address in the form of RFC 5214 §6.1. Whatever the
/// interface has, if it has IPv6 at all, need not be known here: nobody answers an advertisement.
fn own_address(from: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = from.octets();
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, pair(a, b), pair(c, d))
}

/// iPXE's own address on the link: modified EUI-64 (RFC 4291, appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        pair(a ^ 2, b),
        pair(c, 0xff),
        pair(0xfe, d),
        pair(e, f),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_receivers_accept_and_configures_nothing() {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
        let packet = no_router(Ipv4Addr::new(10, 77, 0, 1), mac);
        assert_eq!(packet.len(), 56);
        let to: [u8; 16] = packet[24..40].try_into().unwrap();
        assert_eq!(Ipv6Addr::from(to).to_string(), "fe80::5054:ff:fe00:1");
        let from: [u8; 16] = packet[8..24].try_into().unwrap();
        assert_eq!(Ipv6Addr::from(from).to_string(), "fe80::5efe:a4d:1");
        assert_eq!(packet[7], 255);
        assert_eq!(&packet[40..42], &[134, 0]);
        assert_eq!(&packet[44..], &[0; 12]);
        let pseudo = [&packet[8..40], &[0, 0, 0, 16, 0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[40..]]), 0);
    }
}

//! Who is at the other end of the cable: LLDP (IEEE 802.1AB-2016, §8 for the LLDPDU and its TLVs).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::text::is_shown;

/// What an LLDPDU says of its sender. Texts are as they came, at most 511 octets, and may hold anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lldpdu {
    /// Who sends it; mostly a MAC.
    pub chassis: String,
    /// By which of its ports.
    pub port: String,
    /// How long that holds, seconds; 0 where the sender leaves, and what it said holds no more (§9.2.2).
    pub ttl_s: u16,
    /// What its operator, or its maker, calls the port.
    pub port_description: Option<String>,
    /// Its host name.
    pub system_name: Option<String>,
}

/// No LLDPDU, or none that says where one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLldpdu {
    /// A TLV is longer than what is there.
    #[error("it is cut off")]
    CutOff,
    /// Chassis ID, port ID and TTL come first, in this order (§8.2).
    #[error("it does not begin with chassis ID, port ID and time to live")]
    Order,
    /// A TLV that must be there is too short or too long for what it is (§8.5.2 to §8.5.4).
    #[error("its {0} has {1} octets")]
    Length(&'static str, usize),
}

/// TLV types (§8.4.1).
const END: u8 = 0;
const CHASSIS_ID: u8 = 1;
const PORT_ID: u8 = 2;
const TTL: u8 = 3;
const PORT_DESCRIPTION: u8 = 4;
const SYSTEM_NAME: u8 = 5;

/// Most TLVs that are looked at.
const MOST: usize = 64;

impl Lldpdu {
    /// Reads what stands in a frame behind its `EtherType`, 0x88cc; padding behind the end is passed over.
    ///
    /// # Errors
    /// [`BadLldpdu`]: such a frame is to be discarded whole (§9.2.7.7).
    pub fn parse(octets: &[u8]) -> Result<Self, BadLldpdu> {
        let mut tlvs = Tlvs(octets);
        let mut first = |wanted| match tlvs.next() {
            Some(Ok((kind, value))) if kind == wanted => Ok(value),
            Some(Err(bad)) => Err(bad),
            Some(Ok(_)) | None => Err(BadLldpdu::Order),
        };
        let chassis = id("chassis ID", first(CHASSIS_ID)?, CHASSIS_MAC)?;
        let port = id("port ID", first(PORT_ID)?, PORT_MAC)?;
        let ttl_s = match first(TTL)? {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            short => return Err(BadLldpdu::Length("time to live", short.len())),
        };
        let mut found = Self {
            chassis,
            port,
            ttl_s,
            port_description: None,
            system_name: None,
        };
        for tlv in tlvs.take(MOST) {
            let (kind, value) = tlv?;
            match kind {
                PORT_DESCRIPTION => found.port_description = words(value),
                SYSTEM_NAME => found.system_name = words(value),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether it comes from where the other comes from: chassis and port together are one sender (the MSAP identifier).
    pub fn is_of_sender(&self, other: &Self) -> bool {
        (&self.chassis, &self.port) == (&other.chassis, &other.port)
    }

    /// Whether it says nothing but what the other says; how long that holds is not looked at.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let words = |said: &Self| (said.port_description.clone(), said.system_name.clone());
        self.is_of_sender(other) && words(self) == words(other)
    }
}

/// Type in seven bits, length in nine (§8.4), up to the end TLV.
struct Tlvs<'a>(&'a [u8]);

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<(u8, &'a [u8]), BadLldpdu>;

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = match self.0 {
            [] => return None,
            [head, low, rest @ ..] => (u16::from_be_bytes([*head, *low]), rest),
            [_] => {
                self.0 = &[];
                return Some(Err(BadLldpdu::CutOff));
            }
        };
        let kind = head.to_be_bytes()[0] >> 1;
        if kind == END {
            self.0 = &[];
            return None;
        }
        let Some((value, rest)) = rest.split_at_checked(usize::from(head & 0x1ff)) else {
            self.0 = &[];
            return Some(Err(BadLldpdu::CutOff));
        };
        self.0 = rest;
        Some(Ok((kind, value)))
    }
}

/// The subtype of an ID that is a MAC; the next one is a network address, by its IANA family number.
const CHASSIS_MAC: u8 = 4;
const PORT_MAC: u8 = 3;

/// A chassis ID (§8.5.2) or port ID (§8.5.3).
fn id(what: &'static str, value: &[u8], mac: u8) -> Result<String, BadLldpdu> {
    let (subtype, octets) = match value {
        // One octet at least, and 255 at most, behind the subtype.
        [subtype, octets @ ..] if (1..=255).contains(&octets.len()) => (*subtype, octets),
        _ => return Err(BadLldpdu::Length(what, value.len())),
    };
    let (is_mac, is_address) = (subtype == mac, subtype == mac + 1);
    Ok(match octets {
        [_, _, _, _, _, _] if is_mac => hex(octets),
        [1, a, b, c, d] if is_address => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
        [2, rest @ ..] if is_address => match <[u8; 16]>::try_from(rest) {
            Ok(address) => Ipv6Addr::from(address).to_string(),
            Err(_) => hex(rest),
        },
        _ => words(octets).unwrap_or_else(|| hex(octets)),
    })
}

/// Text, without the NULs that some switches (Extreme Networks') end theirs with.
fn words(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?.trim_end_matches('\0');
    let printable = !text.is_empty() && text.chars().all(is_shown);
    printable.then(|| text.to_owned())
}

fn hex(octets: &[u8]) -> String {
    let pairs: Vec<_> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        let head = u16::from(kind) << 9 | length;
        [&head.to_be_bytes(), value].concat()
    }

    /// As IEEE 802.1AB-2016 §8.2 orders them; `more` stands before the end.
    fn pdu(chassis: &[u8], port: &[u8], ttl: u16, more: &[Vec<u8>]) -> Vec<u8> {
        let first = [tlv(1, chassis), tlv(2, port), tlv(3, &ttl.to_be_bytes())];
        [first.concat(), more.concat(), tlv(0, &[])].concat()
    }

    /// Frames as switches send them, without the Ethernet header.
    fn golden(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/lldp");
        std::fs::read(folder.join(name)).unwrap()
    }

    fn said(bytes: &[u8]) -> (String, String, Option<String>, Option<String>) {
        let found = Lldpdu::parse(bytes).unwrap();
        (
            found.chassis,
            found.port,
            found.port_description,
            found.system_name,
        )
    }

    #[test]
    fn switches_of_several_makers_are_understood() {
        for (name, chassis, port, description, system) in [
            (
                "ios.bin",
                "00:1e:f7:aa:bb:80",
                "Gi1/0/3",
                Some("GigabitEthernet1/0/3"),
                Some("sw-r1.example.org"),
            ),
            (
                "junos.bin",
                "2c:6b:f5:01:02:03",
                "513",
                Some("ge-0/0/3.0"),
                Some("sw-r2"),
            ),
            (
                "extreme.bin",
                "00:01:30:f9:ad:a0",
                "1/1",
                Some("Summit300-48-Port 1001"),
                Some("Summit300-48"),
            ),
            (
                "lldpd.bin",
                "52:54:00:11:22:33",
                "52:54:00:11:22:34",
                Some("swp3"),
                Some("leaf01"),
            ),
        ] {
            let wanted = (
                chassis.to_owned(),
                port.to_owned(),
                description.map(str::to_owned),
                system.map(str::to_owned),
            );
            assert_eq!(said(&golden(name)), wanted, "{name}");
        }
    }

    #[test]
    fn every_subtype_is_told_in_words() {
        let chassis = |value: &[u8]| said(&pdu(value, b"\x05p", 120, &[])).0;
        assert_eq!(chassis(b"\x01slot 1"), "slot 1");
        assert_eq!(
            chassis(b"\x04\x00\x11\x22\x33\x44\x55"),
            "00:11:22:33:44:55"
        );
        assert_eq!(chassis(b"\x05\x01\x0a\x4d\x00\xfe"), "10.77.0.254");
        assert_eq!(
            chassis(b"\x05\x02\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"),
            "fe80::1"
        );
        assert_eq!(chassis(b"\x05\x02\x01"), "01");
        assert_eq!(chassis(b"\x07sw-1"), "sw-1");
        assert_eq!(chassis(b"\x07\x1b[m"), "1b:5b:6d");
        let port = |value: &[u8]| said(&pdu(b"\x07c", value, 120, &[])).1;
        assert_eq!(port(b"\x03\x00\x11\x22\x33\x44\x55"), "00:11:22:33:44:55");
        assert_eq!(port(b"\x04\x01\x0a\x4d\x00\x01"), "10.77.0.1");
        assert_eq!(port(b"\x05Ethernet3"), "Ethernet3");
        assert_eq!(port(b"\x0742\0"), "42");
    }

    #[test]
    fn what_the_standard_has_discarded_is_refused() {
        let refused = |bytes: &[u8]| Lldpdu::parse(bytes).unwrap_err();
        assert_eq!(refused(b""), BadLldpdu::Order);
        assert_eq!(refused(&tlv(0, &[])), BadLldpdu::Order);
        assert_eq!(refused(&[2]), BadLldpdu::CutOff);
        assert_eq!(refused(&[2, 7, 4]), BadLldpdu::CutOff);
        let swapped = [tlv(2, b"\x05p"), tlv(1, b"\x07c")].concat();
        assert_eq!(refused(&swapped), BadLldpdu::Order);
        assert_eq!(
            refused(&pdu(b"\x07", b"\x05p", 120, &[])),
            BadLldpdu::Length("chassis ID", 1)
        );
        let long = [&[7][..], &[b'x'; 256]].concat();
        assert_eq!(
            refused(&pdu(b"\x07c", &long, 120, &[])),
            BadLldpdu::Length("port ID", 257)
        );
        let whole = pdu(b"\x07c", b"\x05p", 120, &[tlv(5, b"sw")]);
        assert_eq!(refused(&whole[..whole.len() - 3]), BadLldpdu::CutOff);
    }

    #[test]
    fn a_sender_is_known_by_chassis_and_port_and_leaves_with_no_time_to_live() {
        let of = |port: &[u8], ttl, more: &[Vec<u8>]| {
            Lldpdu::parse(&pdu(b"\x07c", port, ttl, more)).unwrap()
        };
        let (first, other) = (of(b"\x05p1", 120, &[]), of(b"\x05p2", 120, &[]));
        let named = of(b"\x05p1", 60, &[tlv(5, b"sw")]);
        let leaves = Lldpdu::parse(&golden("shutdown.bin")).unwrap();
        assert_eq!((first.ttl_s, leaves.ttl_s), (120, 0));
        assert!(first.is_of_sender(&named) && !first.is_of_sender(&other));
        assert!(!first.says_the_same(&named) && !first.says_the_same(&other));
        assert!(first.says_the_same(&of(b"\x05p1", 30, &[tlv(127, b"0120watts")])));
    }

    #[test]
    fn padding_and_a_missing_end_do_no_harm() {
        let mut bytes = pdu(
            b"\x07c",
            b"\x05p",
            120,
            &[tlv(5, b"sw"), tlv(127, &[0, 0x80, 0xc2])],
        );
        let whole = said(&bytes);
        bytes.extend([0xff; 30]);
        assert_eq!(said(&bytes), whole);
        bytes.truncate(bytes.len() - 32);
        assert_eq!(said(&bytes), whole);
    }
}

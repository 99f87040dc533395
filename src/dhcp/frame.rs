//! An IPv4 datagram by hand, for a client that has no address yet.

#[cfg(test)]
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// IPv4 and UDP headers (RFC 791, RFC 768) around `payload`.
pub(super) fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()];
    let (from, to) = (from.ip(), to.ip());
    let udp_length = UDP_HEADER + payload.len();
    let total = IP_HEADER + udp_length;
    // A DHCP reply keeps within option 57, far below 64 KiB.
    let length16 = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&[0x45, 0x10]);
    bytes.extend_from_slice(&length16(total));
    // No identification, may not be fragmented, 64 hops, UDP, checksum below.
    bytes.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    let header_sum = checksum(&[&bytes]);
    bytes[10..12].copy_from_slice(&header_sum.to_be_bytes());
    bytes.extend_from_slice(&ports.concat());
    bytes.extend_from_slice(&length16(udp_length));
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(payload);
    let pseudo = [
        &from.octets()[..],
        &to.octets()[..],
        &[0, 17],
        &length16(udp_length),
    ]
    .concat();
    // Zero would mean "none" (RFC 768).
    let udp_sum = match checksum(&[&pseudo, &bytes[IP_HEADER..]]) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[IP_HEADER + 6..IP_HEADER + 8].copy_from_slice(&udp_sum.to_be_bytes());
    bytes
}

/// The Internet checksum (RFC 1071) over parts, all but the last of even length.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receiver sums the same words with the checksum in place and gets zero.
    #[test]
    fn both_checksums_hold() {
        let (from, to) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 11));
        for payload in [&b"even"[..], b"odd"] {
            let at = |address, port| SocketAddrV4::new(address, port);
            let bytes = datagram(at(from, 67), at(to, 68), payload);
            assert_eq!(checksum(&[&bytes[..IP_HEADER]]), 0);
            let length = u16::try_from(UDP_HEADER + payload.len())
                .unwrap()
                .to_be_bytes();
            let pseudo = [&from.octets()[..], &to.octets()[..], &[0, 17], &length].concat();
            assert_eq!(checksum(&[&pseudo, &bytes[IP_HEADER..]]), 0);
            assert_eq!(
                usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
                bytes.len()
            );
        }
    }
}

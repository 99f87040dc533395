//! Packet sockets (packet(7)): ARP, and the answers to a DISCOVER of ours. No other part of
//! the daemon sees frames.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind,
    recvfrom, sendto, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::inventory::model::MacAddr;

/// `AF_PACKET` as `sockaddr_ll` wants it.
const AF_PACKET: u16 = 17;

/// Which frames a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EtherType {
    Ipv4,
    Ipv6,
    Arp,
}

impl EtherType {
    const fn number(self) -> u16 {
        match self {
            Self::Ipv4 => 0x0800,
            Self::Ipv6 => 0x86dd,
            Self::Arp => 0x0806,
        }
    }
}

/// A socket for frames of one type on one interface, without their Ethernet headers.
#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
    index: u32,
    kind: EtherType,
}

impl PacketSocket {
    /// Opens it on the runtime; needs `CAP_NET_RAW`.
    pub(super) fn open(
        index: u32,
        kind: EtherType,
        filter: &[socket2::SockFilter],
    ) -> io::Result<Self> {
        // Without a protocol it hears nothing until it is bound, and then only its interface.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let none: Option<SockProtocol> = None;
        let fd = socket(AddressFamily::Packet, SockType::Datagram, flags, none)?;
        if !filter.is_empty() {
            socket2::SockRef::from(&fd).attach_filter(filter)?;
        }
        bind(fd.as_raw_fd(), &link_address(index, kind, MacAddr([0; 6])))?;
        Ok(Self {
            // SAFETY: an OwnedFd is open until it is dropped, and the AsyncFd owns it from here on.
            fd: unsafe { AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)?,
            index,
            kind,
        })
    }

    /// The next frame, and the MAC that it came from.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, MacAddr)> {
        let read =
            |fd: &OwnedFd| recvfrom::<LinkAddr>(fd.as_raw_fd(), buffer).map_err(io::Error::from);
        let (length, from) = self.fd.async_io(Interest::READABLE, read).await?;
        let mac = from.and_then(|from| from.addr()).unwrap_or_default();
        Ok((length, MacAddr(mac)))
    }

    /// Sends a frame to every station.
    pub(super) fn broadcast(&self, payload: &[u8]) -> io::Result<()> {
        let to = link_address(self.index, self.kind, MacAddr([0xff; 6]));
        let fd = self.fd.get_ref().as_raw_fd();
        sendto(fd, payload, &to, MsgFlags::empty())?;
        Ok(())
    }
}

/// `sockaddr_ll` for frames to `mac` by the interface (packet(7)).
pub(super) fn link_address(index: u32, kind: EtherType, mac: MacAddr) -> LinkAddr {
    let mut octets = [0; 8];
    octets[..6].copy_from_slice(&mac.0);
    let raw = libc::sockaddr_ll {
        sll_family: AF_PACKET,
        sll_protocol: kind.number().to_be(),
        // Interface indices are positive ints.
        sll_ifindex: i32::try_from(index).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: octets,
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: `raw` is a whole sockaddr_ll of the length that is given with it, and its
    // family is AF_PACKET, which is all that `from_raw` asks for.
    let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) };
    match address {
        Some(address) => address,
        None => unreachable!("a sockaddr_ll of family AF_PACKET is a LinkAddr"),
    }
}

/// An ARP probe (RFC 5227 §2.1.1): who has `address`? The sender's address is zero, so that
/// nobody's ARP cache changes.
pub(super) fn arp_probe(from: MacAddr, address: Ipv4Addr) -> [u8; 28] {
    let mut bytes = [0; 28];
    // Ethernet, IPv4, their lengths, request.
    bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    bytes[8..14].copy_from_slice(&from.0);
    bytes[24..].copy_from_slice(&address.octets());
    bytes
}

/// Who says by ARP, asked or not, that it has which address.
pub(super) fn arp_sender(bytes: &[u8]) -> Option<(Ipv4Addr, MacAddr)> {
    let arp: &[u8; 28] = bytes.get(..28)?.try_into().ok()?;
    let [0, 1, 8, 0, 6, 4, 0, 1 | 2] = arp[..8] else {
        return None;
    };
    let mac = <[u8; 6]>::try_from(&arp[8..14]).ok()?;
    let address = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
    (!address.is_unspecified()).then_some((address, MacAddr(mac)))
}

/// Passes the UDP datagrams to port 68 alone that carry `xid`: in the kernel, so that a busy
/// interface's traffic costs nothing here.
pub(super) fn dhcp_answers(xid: u32) -> Vec<socket2::SockFilter> {
    let drop = |at: u8, from: u8| at - from - 1;
    // Instructions are numbered from 0; 10 drops.
    let lines = [
        // IPv4's protocol is UDP; not a later fragment.
        (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 9),
        (
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            drop(10, 1),
            17,
        ),
        (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 6),
        (
            libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
            drop(10, 3),
            0,
            0x1fff,
        ),
        // The destination's port, then the transaction id.
        (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        (libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 2),
        (
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            drop(10, 6),
            68,
        ),
        (libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 0, 0, 12),
        (
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            drop(10, 8),
            xid,
        ),
        (libc::BPF_RET | libc::BPF_K, 0, 0, 0xffff),
        (libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let code = |code: u32| u16::try_from(code).unwrap_or(0);
    lines
        .into_iter()
        .map(|(op, yes, no, k)| socket2::SockFilter::new(code(op), yes, no, k))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_claims_no_address_and_an_answer_to_it_does() {
        let (ours, theirs) = (MacAddr([2; 6]), MacAddr([4; 6]));
        let address = Ipv4Addr::new(10, 77, 0, 9);
        let probe = arp_probe(ours, address);
        assert_eq!(arp_sender(&probe), None);
        let mut answer = arp_probe(theirs, Ipv4Addr::UNSPECIFIED);
        answer[7] = 2;
        answer[14..18].copy_from_slice(&address.octets());
        assert_eq!(arp_sender(&answer), Some((address, theirs)));
        assert_eq!(arp_sender(&answer[..27]), None);
        answer[7] = 3;
        assert_eq!(arp_sender(&answer), None);
    }
}

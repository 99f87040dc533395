//! Sockets: one that hears requests and on which address, one per transfer.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc::{self, in_pktinfo};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, getsockopt, recvmsg, setsockopt, sockopt,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::negotiate::Terms;
use super::transfer::{Datagram, Transfer};
use crate::wire::tftp::{ErrorCode, MAX_REQUEST, Packet};

/// Room for the requests of a whole hall that powers on at once: some 10,000 of them.
/// The kernel's default of 208 KiB holds about 250, counted with its overhead.
const RECEIVE_BUFFER: usize = 8 << 20;

/// MTU assumed where the kernel doesn't tell.
const ETHERNET_MTU: u32 = 1500;

/// One datagram and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) peer: SocketAddrV4,
    /// Our address that the packet was delivered to.
    pub(super) local: Ipv4Addr,
    /// The packet was sent to a group and not to `local`.
    pub(super) broadcast: bool,
    /// At most [`MAX_REQUEST`] + 1 bytes: enough to see that it is too long.
    pub(super) bytes: Vec<u8>,
}

/// Makes `socket` fit to hear requests: large buffer, address of arrival, non-blocking.
///
/// # Errors
/// What the kernel says to a socket that isn't IPv4 UDP.
pub(super) fn prepare_listener(socket: &StdUdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    // The forced one passes net.core.rmem_max, but wants CAP_NET_ADMIN. Less than asked for still serves.
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        SockRef::from(socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    Ok(())
}

/// Waits for one datagram on a socket that [`prepare_listener`] saw.
pub(super) async fn receive(socket: &UdpSocket) -> io::Result<Received> {
    socket
        .async_io(Interest::READABLE, || try_receive(socket))
        .await
}

fn try_receive(socket: &UdpSocket) -> io::Result<Received> {
    let mut bytes = [0; MAX_REQUEST + 1];
    let mut control = cmsg_space!(in_pktinfo);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<SockaddrIn>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let from = message.address.ok_or(io::ErrorKind::InvalidData)?;
    let arrival = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
        _ => None,
    });
    let arrival = arrival.ok_or(io::ErrorKind::InvalidData)?;
    let length = message.bytes;
    Ok(Received {
        peer: SocketAddrV4::new(from.ip(), from.port()),
        local: address(arrival.ipi_spec_dst.s_addr),
        broadcast: arrival.ipi_addr.s_addr != arrival.ipi_spec_dst.s_addr,
        bytes: bytes[..length].to_vec(),
    })
}

/// An address as the kernel holds it: network order in memory.
fn address(raw: u32) -> Ipv4Addr {
    Ipv4Addr::from(raw.to_ne_bytes())
}

/// A socket between one of our addresses, on a port of its own, and `peer` alone. Connected, so that the kernel drops
/// what others send to it and reports that the peer's port is closed.
///
/// # Errors
/// What the kernel says; `EMFILE` where the process has no descriptor left.
pub(super) fn transfer_socket(local: Ipv4Addr, peer: SocketAddrV4) -> io::Result<StdUdpSocket> {
    let socket = StdUdpSocket::bind((local, 0))?;
    socket.connect(peer)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// MTU of the route that a connected socket sends on, bytes (ip(7), `IP_MTU`).
pub(super) fn route_mtu(socket: &StdUdpSocket) -> u32 {
    getsockopt(socket, sockopt::IpMtu)
        .ok()
        .and_then(|mtu| u32::try_from(mtu).ok())
        .unwrap_or(ETHERNET_MTU)
}

/// Sends an ERROR, from a port of its own as other servers do, or else from the port that was asked. It is sent once:
/// if it is lost, the client asks again.
pub(super) fn send_error(listener: &UdpSocket, received: &Received, code: ErrorCode, text: &str) {
    let message = text.into();
    let packet = Packet::Error { code, message }.to_bytes();
    let own = StdUdpSocket::bind((received.local, 0))
        .and_then(|socket| socket.send_to(&packet, received.peer));
    if own.is_err() {
        let _ = listener.try_send_to(&packet, SocketAddr::V4(received.peer));
    }
}

/// Blocks that one system call takes. Clients' windows are four to sixteen.
const BATCH: usize = 16;

/// Sends with UDP_SEGMENT hold one IP packet's worth of data at most (udp(7)).
const LARGEST_SEND: usize = 65_507;

/// Below it, an ERROR or OACK could be longer than a block, and the kernel would cut it.
const SMALLEST_SEGMENT: u16 = 512;

/// Puts blocks on the wire, a window with one system call where the kernel cuts it into datagrams itself (UDP GSO,
/// `UDP_SEGMENT`, Linux 4.18). The last of them may be shorter, just as a file's last block.
#[derive(Debug)]
pub(super) struct Sender {
    /// Length of a datagram with a whole block.
    segment: i32,
    /// Datagrams that go at once.
    most: u64,
    /// The socket was told to cut.
    cuts: bool,
}

impl Sender {
    /// For blocks and windows of `terms`.
    pub(super) fn new(terms: &Terms) -> Self {
        let segment = usize::from(terms.block_size) + 4;
        let fits = (LARGEST_SEND / segment).min(BATCH);
        let many = terms.window_size > 1 && terms.block_size >= SMALLEST_SEGMENT;
        Self {
            segment: segment as i32,
            most: if many { fits.max(1) as u64 } else { 1 },
            cuts: false,
        }
    }

    /// Sends the first of `units`, as many as go at once, without copying the file; gives their number.
    ///
    /// # Errors
    /// What the kernel says, errors of earlier datagrams (ICMP) included; `WouldBlock` where there is no room.
    pub(super) fn send(
        &mut self,
        socket: &StdUdpSocket,
        transfer: &Transfer,
        units: Range<u64>,
    ) -> io::Result<u64> {
        // The OACK goes alone.
        let count = match units.start {
            0 => 1,
            start => self.most.min(units.end - start),
        };
        let sent = match count {
            1 => send_one(socket, transfer.datagram(units.start)),
            _ => self.send_many(socket, transfer, units.start..units.start + count),
        };
        match sent {
            // A socket that was told to cut may refuse a single datagram, too.
            Err(error) if cannot_cut(&error) && (self.cuts || count > 1) => {
                let _ = self.cut(socket, 0);
                (self.most, self.cuts) = (1, false);
                self.send(socket, transfer, units)
            }
            sent => sent.map(|()| count),
        }
    }

    fn send_many(
        &mut self,
        socket: &StdUdpSocket,
        transfer: &Transfer,
        units: Range<u64>,
    ) -> io::Result<()> {
        if !self.cuts {
            self.cut(socket, self.segment)?;
            self.cuts = true;
        }
        let mut headers = [[0; 4]; BATCH];
        for (header, unit) in headers.iter_mut().zip(units.clone()) {
            *header = transfer.datagram(unit).header;
        }
        let mut parts = [IoSlice::new(&[]); 2 * BATCH];
        let pairs = parts.chunks_exact_mut(2).zip(&headers).zip(units.clone());
        for ((pair, header), unit) in pairs {
            pair[0] = IoSlice::new(header);
            pair[1] = IoSlice::new(transfer.datagram(unit).payload);
        }
        let used = 2 * (units.end - units.start) as usize;
        let sent = SockRef::from(socket).send_vectored(&parts[..used]);
        sent.map(drop)
    }

    fn cut(&self, socket: &StdUdpSocket, segment: i32) -> io::Result<()> {
        setsockopt(socket, sockopt::UdpGsoSegment, &segment)?;
        Ok(())
    }
}

fn send_one(socket: &StdUdpSocket, Datagram { header, payload }: Datagram<'_>) -> io::Result<()> {
    let parts = [IoSlice::new(&header), IoSlice::new(payload)];
    SockRef::from(socket).send_vectored(&parts).map(drop)
}

/// EIO: the interface can't checksum what it cuts. EMSGSIZE, before Linux 6.14 EINVAL: a block doesn't fit the path's
/// MTU any more. ENOPROTOOPT: the kernel is older than UDP GSO.
fn cannot_cut(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    let known = [libc::EIO, libc::EMSGSIZE, libc::EINVAL, libc::ENOPROTOOPT];
    code.is_some_and(|code| known.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::super::negotiate::Ceiling;
    use super::super::outcome::Patience;
    use super::*;
    use crate::wire::tftp::Options;

    /// Any cause will do for which the kernel refuses to cut: here, that checksums are off.
    fn forbid_cutting(socket: &StdUdpSocket) {
        let on: libc::c_int = 1;
        // SAFETY: the value is an int that lives through the call, and its length is given.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(done, 0);
    }

    #[test]
    fn single_block_goes_although_the_kernel_cuts_no_more() {
        let client = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(peer) = client.local_addr().unwrap() else {
            unreachable!()
        };
        let socket = transfer_socket(*peer.ip(), peer).unwrap();
        let asked = Options {
            block_size: Some(512),
            window_size: Some(4),
            ..Options::default()
        };
        let terms = Terms::agree(&asked, Ceiling::default(), 2500);
        let file = vec![7; 2500].into();
        let now = std::time::Instant::now();
        let transfer = Transfer::new(file, terms, Patience::default(), now);
        let mut sender = Sender::new(&terms);
        assert_eq!(sender.send(&socket, &transfer, 1..5).unwrap(), 4);
        assert!(sender.cuts);
        forbid_cutting(&socket);
        assert_eq!(sender.send(&socket, &transfer, 5..6).unwrap(), 1);
        let mut buffer = [0; 2000];
        let lengths = (0..5).map(|_| client.recv(&mut buffer).unwrap());
        assert_eq!(lengths.collect::<Vec<_>>(), [516, 516, 516, 516, 456]);
    }
}

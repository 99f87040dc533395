//! Sockets: one that hears requests and on which address, one per transfer.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::cmsg_space;
use nix::libc::in_pktinfo;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, getsockopt, recvmsg, setsockopt, sockopt,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::transfer::Datagram;
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
pub(super) fn transfer_socket(local: Ipv4Addr, peer: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = StdUdpSocket::bind((local, 0))?;
    socket.connect(peer)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// MTU of the route that a connected socket sends on, bytes (ip(7), `IP_MTU`).
pub(super) fn route_mtu(socket: &UdpSocket) -> u32 {
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

/// Sends one datagram on a connected socket, without copying the file; waits for room until `deadline` at most, after
/// which the datagram counts as lost.
///
/// # Errors
/// What the kernel says, errors of earlier datagrams (ICMP) included.
pub(super) async fn send(
    socket: &UdpSocket,
    datagram: Datagram<'_>,
    deadline: Instant,
) -> io::Result<()> {
    let parts = [
        IoSlice::new(&datagram.header),
        IoSlice::new(datagram.payload),
    ];
    let gather = || SockRef::from(socket).send_vectored(&parts).map(drop);
    match socket.try_io(Interest::WRITABLE, gather) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        sent => return sent,
    }
    let patient = socket.async_io(Interest::WRITABLE, gather);
    tokio::time::timeout_at(deadline.into(), patient)
        .await
        .unwrap_or(Ok(()))
}

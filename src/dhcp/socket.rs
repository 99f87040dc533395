//! Sockets of one interface: UDP port 67, and raw frames for clients without an address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto,
};
use socket2::{Domain, Protocol, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

use super::{advertisement, frame};
use crate::inventory::model::MacAddr;
use crate::policy::Destination;

/// Room for a thousand DISCOVERs that arrive while the disk syncs, bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// The largest DHCP packet on Ethernet.
const MAX_PACKET: usize = 1500;
/// Packets that are decided together.
const BATCH: usize = 64;

/// What was received together.
#[derive(Debug)]
pub(super) struct Inbox {
    buffers: Vec<u8>,
    /// Which buffer, how many bytes, from whom.
    packets: Vec<(usize, usize, SocketAddrV4)>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            buffers: vec![0; BATCH * MAX_PACKET],
            packets: Vec::with_capacity(BATCH),
        }
    }
}

impl Inbox {
    pub(super) fn packets(&self) -> impl Iterator<Item = (&[u8], SocketAddrV4)> {
        self.packets.iter().map(|&(index, length, source)| {
            let start = index * MAX_PACKET;
            (&self.buffers[start..start + length], source)
        })
    }
}

/// An interface that the daemon serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its address in one of the inventory's networks.
    pub address: Ipv4Addr,
}

/// A socket can't be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} on {interface}")]
pub struct SocketError {
    /// What was tried.
    pub operation: &'static str,
    /// The interface.
    pub interface: String,
    /// The cause.
    pub source: io::Error,
}

/// Both sockets of an interface, bound before the daemon drops its privileges.
#[derive(Debug)]
pub struct Bound {
    interface: Interface,
    udp: std::net::UdpSocket,
    raw: OwnedFd,
    index: u32,
}

/// Both sockets of an interface, on the runtime.
#[derive(Debug)]
pub struct Socket {
    /// The interface.
    pub interface: Interface,
    udp: UdpSocket,
    raw: AsyncFd<OwnedFd>,
    index: u32,
}

impl AsFd for Bound {
    /// The socket that receives.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }
}

impl Bound {
    /// Binds port 67 of the interface and opens its raw socket.
    ///
    /// # Errors
    /// [`SocketError`]: the port is taken, the interface is missing, or the privileges are
    /// (`CAP_NET_BIND_SERVICE`, `CAP_NET_RAW`).
    pub fn bind(interface: Interface) -> Result<Self, SocketError> {
        let failed = |operation| {
            let interface = interface.name.clone();
            move |source| SocketError {
                operation,
                interface,
                source,
            }
        };
        let udp = bind_udp(&interface.name).map_err(failed("bind UDP port 67 (DHCP)"))?;
        let raw = nix::sys::socket::socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            // No protocol: it sends, and receives nothing.
            None,
        )
        .map_err(|errno| {
            failed("open a raw socket (for clients without an address)")(errno.into())
        })?;
        let index = nix::net::if_::if_nametoindex(interface.name.as_str())
            .map_err(|errno| failed("find the index")(errno.into()))?;
        Ok(Self {
            interface,
            udp,
            raw,
            index,
        })
    }

    /// Hands the sockets to the runtime.
    ///
    /// # Errors
    /// [`SocketError`] if the runtime can't take them.
    pub fn start(self) -> Result<Socket, SocketError> {
        let name = self.interface.name.clone();
        let failed = |source| SocketError {
            operation: "start DHCP",
            interface: name.clone(),
            source,
        };
        // SAFETY: an OwnedFd is open until it is dropped, and the AsyncFd owns it from here on.
        let raw = unsafe { AsyncFd::register(self.raw) };
        Ok(Socket {
            udp: UdpSocket::from_std(self.udp).map_err(&failed)?,
            raw: raw.map_err(|error| failed(error.into_parts().1))?,
            interface: self.interface,
            index: self.index,
        })
    }
}

fn bind_udp(interface: &str) -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    // Best effort: without CAP_NET_ADMIN the kernel caps it at net.core.rmem_max.
    let _ = nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::RcvBufForce,
        &RECEIVE_BUFFER,
    )
    .or_else(|_| {
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &RECEIVE_BUFFER)
    });
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 67)).into())?;
    Ok(socket.into())
}

impl Socket {
    /// Waits for a packet, and takes what came with it, as far as the inbox has room.
    pub(super) async fn receive(&self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.packets.clear();
        loop {
            self.udp.readable().await?;
            match self.take(inbox) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    fn take(&self, inbox: &mut Inbox) -> io::Result<()> {
        for index in 0..BATCH {
            let buffer = &mut inbox.buffers[index * MAX_PACKET..(index + 1) * MAX_PACKET];
            match self.udp.try_recv_from(buffer) {
                Ok((length, SocketAddr::V4(source))) => inbox.packets.push((index, length, source)),
                Ok(_) => {}
                // What has come is dealt with first.
                Err(_) if !inbox.packets.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a reply the way that the policy chose.
    pub(super) async fn send(&self, bytes: &[u8], to: Destination) -> io::Result<()> {
        match to {
            Destination::Unicast(address) => self.send_udp(bytes, address).await,
            Destination::Broadcast => {
                self.send_udp(bytes, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68))
                    .await
            }
            Destination::Frame { mac, address } => {
                let datagram = frame::datagram(self.interface.address, address, bytes);
                self.send_frame(&datagram, mac, ETH_P_IP).await
            }
        }
    }

    /// Tells one machine that there is no IPv6 router.
    pub(super) async fn send_no_router(&self, mac: MacAddr) -> io::Result<()> {
        let packet = advertisement::no_router(self.interface.address, mac);
        self.send_frame(&packet, mac, ETH_P_IPV6).await
    }

    async fn send_udp(&self, bytes: &[u8], to: SocketAddrV4) -> io::Result<()> {
        self.udp.send_to(bytes, to).await.map(drop)
    }

    async fn send_frame(&self, datagram: &[u8], mac: MacAddr, protocol: u16) -> io::Result<()> {
        let to = link_address(self.index, mac, protocol);
        let send = |raw: &OwnedFd| {
            sendto(raw.as_raw_fd(), datagram, &to, MsgFlags::empty()).map_err(io::Error::from)
        };
        self.raw
            .async_io(tokio::io::Interest::WRITABLE, send)
            .await
            .map(drop)
    }
}

/// `sockaddr_ll` for a frame to `mac` by the interface (packet(7)).
fn link_address(index: u32, mac: MacAddr, protocol: u16) -> LinkAddr {
    let mut octets = [0; 8];
    octets[..6].copy_from_slice(&mac.0);
    let raw = libc::sockaddr_ll {
        sll_family: AF_PACKET,
        sll_protocol: protocol.to_be(),
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

/// `AF_PACKET` as `sockaddr_ll` wants it.
const AF_PACKET: u16 = 17;
/// EtherType of IPv4.
const ETH_P_IP: u16 = 0x0800;
/// EtherType of IPv6.
const ETH_P_IPV6: u16 = 0x86dd;

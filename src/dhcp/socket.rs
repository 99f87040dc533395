//! Sockets of one interface: UDP ports 67 and 4011, and raw frames for clients without an address.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn,
    recvmsg, sendmsg, sendto, sockopt,
};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::packet::{EtherType, link_address};
use super::probe::Prober;
use super::{advertisement, frame};
use crate::inventory::model::MacAddr;
use crate::policy::dhcp::Port;
use crate::policy::{Destination, Transmit};

/// Room for a thousand DISCOVERs that arrive while the disk syncs, bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Room for replies that wait for ARP, bytes: those to addresses that nobody has stay for some
/// three seconds, and beside them must be room for others.
const SEND_BUFFER: usize = 8 << 20;

/// The largest DHCP packet on Ethernet.
const MAX_PACKET: usize = 1500;
/// Packets that are decided together.
const BATCH: usize = 64;

/// What was received together.
#[derive(Debug)]
pub(super) struct Inbox {
    buffers: Vec<u8>,
    control: Vec<u8>,
    packets: Vec<Envelope>,
}

/// Where a packet lies, where it came from, and to which of our addresses and ports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope {
    index: usize,
    length: usize,
    pub(super) source: SocketAddrV4,
    pub(super) to: Ipv4Addr,
    pub(super) port: Port,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            buffers: vec![0; BATCH * MAX_PACKET],
            control: nix::cmsg_space!(libc::in_pktinfo),
            packets: Vec::with_capacity(BATCH),
        }
    }
}

impl Inbox {
    pub(super) fn packets(&self) -> impl Iterator<Item = (&[u8], Envelope)> {
        self.packets.iter().map(|envelope| {
            let start = envelope.index * MAX_PACKET;
            (&self.buffers[start..start + envelope.length], *envelope)
        })
    }
}

/// An interface that the daemon serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses in the inventory's networks, the preferred one first; never empty.
    pub addresses: Vec<Ipv4Addr>,
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

/// The sockets of an interface, bound before the daemon drops its privileges.
#[derive(Debug)]
pub struct Bound {
    interface: Interface,
    udp: std::net::UdpSocket,
    pxe: std::net::UdpSocket,
    raw: OwnedFd,
    index: u32,
}

/// The sockets of an interface, on the runtime.
#[derive(Debug)]
pub struct Socket {
    /// The interface.
    pub interface: Interface,
    udp: UdpSocket,
    pxe: UdpSocket,
    raw: OwnedFd,
    index: u32,
}

impl Bound {
    /// Binds ports 67 and 4011 of the interface and opens its raw socket.
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
        let udp = bind_udp(&interface.name, Port::Dhcp);
        let udp = udp.map_err(failed("bind UDP port 67 (DHCP)"))?;
        let pxe = bind_udp(&interface.name, Port::Pxe);
        let pxe = pxe.map_err(failed("bind UDP port 4011 (PXE)"))?;
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
            pxe,
            raw,
            index,
        })
    }

    /// The interface.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The sockets that receive: of ports 67 and 4011.
    pub fn receivers(&self) -> [BorrowedFd<'_>; 2] {
        [self.udp.as_fd(), self.pxe.as_fd()]
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
        Ok(Socket {
            udp: UdpSocket::from_std(self.udp).map_err(&failed)?,
            pxe: UdpSocket::from_std(self.pxe).map_err(&failed)?,
            raw: self.raw,
            interface: self.interface,
            index: self.index,
        })
    }
}

fn bind_udp(interface: &str, port: Port) -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    nix::sys::socket::setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    // Best effort: without CAP_NET_ADMIN the kernel caps it at net.core.rmem_max.
    let _ = nix::sys::socket::setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .or_else(|_| nix::sys::socket::setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER));
    let _ = nix::sys::socket::setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER);
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number()));
    socket.bind(&address.into())?;
    Ok(socket.into())
}

impl Socket {
    /// Waits for a packet, and takes what came with it, as far as the inbox has room.
    pub(super) async fn receive(&self, inbox: &mut Inbox) -> io::Result<()> {
        inbox.packets.clear();
        loop {
            let port = tokio::select! {
                ready = self.udp.readable() => ready.map(|()| Port::Dhcp)?,
                ready = self.pxe.readable() => ready.map(|()| Port::Pxe)?,
            };
            match self.take(inbox, port) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    fn take(&self, inbox: &mut Inbox, port: Port) -> io::Result<()> {
        let socket = self.of(port);
        for index in 0..BATCH {
            let buffer = &mut inbox.buffers[index * MAX_PACKET..(index + 1) * MAX_PACKET];
            let control = &mut inbox.control;
            let receive = || receive_one(socket, buffer, control);
            match socket.try_io(Interest::READABLE, receive) {
                Ok(Some((length, source, to))) => inbox.packets.push(Envelope {
                    index,
                    length,
                    source,
                    to,
                    port,
                }),
                Ok(None) => {}
                // What has come is dealt with first.
                Err(_) if !inbox.packets.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn of(&self, port: Port) -> &UdpSocket {
        match port {
            Port::Dhcp => &self.udp,
            Port::Pxe => &self.pxe,
        }
    }

    /// What probes addresses on this interface's link.
    pub(super) fn prober(&self) -> io::Result<Prober> {
        Prober::open(self.index, mac_of(&self.interface.name)?)
    }

    /// Sends a reply the way that the policy chose, from the port that was asked, or fails: it
    /// never waits. Replies to addresses that nobody has lie in the send buffer until ARP gives
    /// up, and nobody else may wait for them; the client asks again.
    pub(super) fn send(&self, bytes: &[u8], transmit: &Transmit, port: Port) -> io::Result<()> {
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 68);
        match transmit.destination {
            Destination::Unicast(to) => self.send_udp(bytes, transmit.from, to, port),
            Destination::Broadcast => self.send_udp(bytes, transmit.from, everybody, port),
            Destination::Frame { mac, address } => {
                let datagram = frame::datagram(
                    SocketAddrV4::new(transmit.from, 67),
                    SocketAddrV4::new(address, 68),
                    bytes,
                );
                self.send_frame(&datagram, mac, EtherType::Ipv4)
            }
        }
    }

    /// Tells one machine that there is no IPv6 router.
    pub(super) fn send_no_router(&self, mac: MacAddr) -> io::Result<()> {
        let packet = advertisement::no_router(self.interface.addresses[0], mac);
        self.send_frame(&packet, mac, EtherType::Ipv6)
    }

    /// From an address of our choice: the kernel's may be one that the client did not ask.
    fn send_udp(
        &self,
        bytes: &[u8],
        from: Ipv4Addr,
        to: SocketAddrV4,
        port: Port,
    ) -> io::Result<()> {
        let socket = self.of(port);
        let info = libc::in_pktinfo {
            // The socket is bound to its interface.
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from(from).to_be(),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let (data, to) = ([IoSlice::new(bytes)], SockaddrIn::from(to));
        let flags = MsgFlags::MSG_DONTWAIT;
        sendmsg(socket.as_raw_fd(), &data, &control, flags, Some(&to))?;
        Ok(())
    }

    fn send_frame(&self, datagram: &[u8], mac: MacAddr, kind: EtherType) -> io::Result<()> {
        let to = link_address(self.index, kind, mac);
        sendto(self.raw.as_raw_fd(), datagram, &to, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

/// A packet with its sender, and the address that it was sent to (`IP_PKTINFO`, ip(7)).
fn receive_one(
    socket: &UdpSocket,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<Option<(usize, SocketAddrV4, Ipv4Addr)>> {
    let mut data = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut data, Some(control), flags)?;
    let to = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)))
        }
        _ => None,
    });
    let source = received.address.map(SocketAddrV4::from);
    let to = to.unwrap_or(Ipv4Addr::BROADCAST);
    Ok(source.map(|source| (received.bytes, source, to)))
}

fn mac_of(interface: &str) -> io::Result<MacAddr> {
    let mac = nix::ifaddrs::getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr()?.addr());
    mac.map(MacAddr)
        .ok_or_else(|| io::Error::other(format!("{interface} has no hardware address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(arguments: &str) {
        let mut command = std::process::Command::new("ip");
        let status = command.args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// Replies to addresses that nobody has fill the send buffer until ARP gives up.
    #[tokio::test]
    async fn a_reply_that_cannot_leave_is_an_error_and_no_wait() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: a network namespace needs root");
            return;
        }
        // The runtime is this thread alone.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add eth0 type veth peer name eth1");
        ip("addr add 10.77.0.1/24 dev eth0");
        ip("link set eth1 up");
        ip("link set eth0 up");
        let here = Ipv4Addr::new(10, 77, 0, 1);
        let bound = Bound::bind(Interface {
            name: "eth0".into(),
            addresses: vec![here],
        });
        let socket = bound.unwrap().start().unwrap();
        let replies = (0..40_000_u32).map(|number| {
            let nobody = Ipv4Addr::new(10, 77, 0, 2 + (number % 250) as u8);
            socket.send_udp(&[0; 590], here, SocketAddrV4::new(nobody, 68), Port::Dhcp)
        });
        let error = replies.filter_map(Result::err).next().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

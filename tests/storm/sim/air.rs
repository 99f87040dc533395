//! Frames of machines that have no address: a packet socket that sends with their MACs and hears what is sent to them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv,
    send, setsockopt, socket, sockopt,
};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, mpsc};

const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
/// Where `chaddr` begins in a DHCP message.
const CHADDR: usize = 28;
/// Replies that wait for one host.
const WAITING: usize = 16;
/// All replies of a storm at once, and more.
const RECEIVE_BUFFER: usize = 64 << 20;

/// The packet socket, and who waits for what it hears.
pub(super) struct Air {
    socket: AsyncFd<OwnedFd>,
    /// Of the interface, for machines that have an address.
    mac: [u8; 6],
    to: Vec<mpsc::Sender<Vec<u8>>>,
    ears: Vec<Mutex<mpsc::Receiver<Vec<u8>>>>,
}

impl Air {
    pub(super) fn open(interface: &str, mac: [u8; 6], hosts: u16) -> io::Result<Self> {
        // Of the protocol that only a bind names: until then it hears nothing, and nothing goes unfiltered.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let none: Option<SockProtocol> = None;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, none)?;
        SockRef::from(&socket).attach_filter(&to_port_68())?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        let index = nix::net::if_::if_nametoindex(interface)?;
        bind(socket.as_raw_fd(), &every_ip_frame(index)?)?;
        let (to, ears) = (0..hosts)
            .map(|_| mpsc::channel(WAITING))
            .unzip::<_, _, Vec<_>, Vec<_>>();
        // SAFETY: an OwnedFd is open until it is dropped, and the AsyncFd owns it from here on.
        let socket = unsafe { AsyncFd::register(socket) };
        Ok(Self {
            socket: socket.map_err(|error| error.into_parts().1)?,
            mac,
            to,
            ears: ears.into_iter().map(Mutex::new).collect(),
        })
    }

    /// Broadcasts a DHCP message from 0.0.0.0 port 68 to port 67.
    pub(super) async fn broadcast(&self, mac: [u8; 6], message: &[u8]) -> io::Result<()> {
        self.send(&frame(mac, message)).await
    }

    /// Asks for the server's MAC, as firmware does once it has an address: the server learns where the address is.
    pub(super) async fn resolve(&self, from: Ipv4Addr, server: Ipv4Addr) -> io::Result<()> {
        self.send(&arp_request(self.mac, from, server)).await
    }

    async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let sent =
            |fd: &OwnedFd| send(fd.as_raw_fd(), frame, MsgFlags::empty()).map_err(io::Error::from);
        self.socket
            .async_io(Interest::WRITABLE, sent)
            .await
            .map(drop)
    }

    /// The next DHCP message for host `number`.
    pub(super) async fn receive(&self, number: u16) -> Option<Vec<u8>> {
        self.ears[usize::from(number)].lock().await.recv().await
    }

    /// Hands out what is heard until it is aborted.
    pub(super) async fn hear(self: Arc<Self>) {
        let mut buffer = [0; 2048];
        loop {
            let mut heard = |fd: &OwnedFd| {
                recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)
            };
            let Ok(length) = self.socket.async_io(Interest::READABLE, &mut heard).await else {
                continue;
            };
            if let Some((number, message)) = dhcp_reply(&buffer[..length])
                && let Some(ear) = self.to.get(usize::from(number))
            {
                // A host that does not listen loses it, as on a real wire.
                let _ = ear.try_send(message.to_vec());
            }
        }
    }
}

/// `sockaddr_ll` of all IPv4 frames of an interface (packet(7)).
fn every_ip_frame(index: u32) -> io::Result<LinkAddr> {
    let raw = libc::sockaddr_ll {
        sll_family: 17,
        sll_protocol: 0x0800_u16.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).ok();
    // SAFETY: `raw` is a whole sockaddr_ll, its family is AF_PACKET, and its length is given with it.
    let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), length) };
    address.ok_or_else(|| io::Error::other("a sockaddr_ll of family AF_PACKET is a LinkAddr"))
}

/// Lets IPv4 UDP to port 68 pass, and nothing of the gigabytes beside it (kernel Documentation/networking/filter.rst).
fn to_port_68() -> [SockFilter; 8] {
    let jump = |value, no| SockFilter::new(0x15, 0, no, value);
    [
        SockFilter::new(0x28, 0, 0, 12), // ldh [12]: EtherType
        jump(0x0800, 5),
        SockFilter::new(0x30, 0, 0, 23), // ldb [23]: protocol
        jump(17, 3),
        SockFilter::new(0x28, 0, 0, 36), // ldh [36]: port, behind a header without options
        jump(68, 1),
        SockFilter::new(0x06, 0, 0, 0xffff),
        SockFilter::new(0x06, 0, 0, 0),
    ]
}

/// Ethernet, IPv4 and UDP around a DHCP message. UDP goes without a checksum (RFC 768), as ROMs may.
fn frame(mac: [u8; 6], message: &[u8]) -> Vec<u8> {
    let length16 = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut frame = Vec::with_capacity(ETHERNET + IP + UDP + message.len());
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[0x08, 0x00, 0x45, 0x00]);
    frame.extend_from_slice(&length16(IP + UDP + message.len()));
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&Ipv4Addr::UNSPECIFIED.octets());
    frame.extend_from_slice(&Ipv4Addr::BROADCAST.octets());
    let sum = checksum(&frame[ETHERNET..]);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&[0, 68, 0, 67]);
    frame.extend_from_slice(&length16(UDP + message.len()));
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(message);
    frame
}

/// An ARP request (RFC 826) to all.
fn arp_request(mac: [u8; 6], from: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let types = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1];
    [
        &[0xff; 6][..],
        &mac,
        &types,
        &mac,
        &from.octets(),
        &[0; 6],
        &wanted.octets(),
    ]
    .concat()
}

/// The Internet checksum (RFC 1071) of a header.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

/// The message in a frame to port 68, and whose it is by its `chaddr`.
fn dhcp_reply(frame: &[u8]) -> Option<(u16, &[u8])> {
    let message = frame.get(ETHERNET + IP + UDP..)?;
    let chaddr = message.get(CHADDR..CHADDR + 6)?;
    let number = u16::from_be_bytes([chaddr[4], chaddr[5]]);
    (message[0] == 2 && chaddr == super::mac(number)).then_some((number, message))
}

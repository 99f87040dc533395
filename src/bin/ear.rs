//! `bridgehead-ear FILE NIC...`: hears who is at the other end of each cable, by LLDP, which BusyBox can't.
//!
//! It goes into the initrd, static and alone, and listens until it is killed. FILE, which is only ever replaced whole,
//! has a line for each NIC of which there is something to say:
//! - `NIC CHANGES HEX`: the frame that holds, behind its `EtherType`, and how often the NIC's carrier had changed when
//!   it came. While that number stands the cable is the same.
//! - `NIC ! CAUSE`: nothing can be heard there.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, setsockopt,
    socket,
};

use crate::lldp::Lldpdu;

/// The crate's own, and none of the rest of it, which would double what the initrd has to carry.
#[path = "../wire/lldp.rs"]
#[allow(dead_code, unreachable_pub)]
mod lldp;
#[path = "../wire/text.rs"]
#[allow(dead_code, unreachable_pub)]
mod text;

/// IEEE 802.1AB-2016 §7.1, table 7-1: nearest bridge, nearest non-TPMR bridge, nearest customer bridge.
const GROUPS: [[u8; 6]; 3] = [
    [0x01, 0x80, 0xc2, 0, 0, 0x0e],
    [0x01, 0x80, 0xc2, 0, 0, 0x03],
    [0x01, 0x80, 0xc2, 0, 0, 0x00],
];
/// IEEE 802.1AB-2016 §7.4.
const ETHER_TYPE: u16 = 0x88cc;
/// The largest LLDPDU: one Ethernet frame's payload.
const LARGEST: usize = 1500;
/// The NICs are looked at, and FILE is written, once in so long, whatever is sent to them. A frame that comes between a
/// new cable and that look is lost.
const TICK: Duration = Duration::from_millis(200);

nix::setsockopt_impl!(
    AddMembership,
    libc::SOL_PACKET,
    libc::PACKET_ADD_MEMBERSHIP,
    libc::packet_mreq,
    nix::sys::socket::sockopt::SetStruct<'_, libc::packet_mreq>
);
#[derive(Clone, Copy)]
struct AddMembership;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_default();
    let nics: Vec<Nic> = arguments.map(Nic::new).collect();
    if nics.is_empty() {
        let _ = writeln!(io::stderr(), "usage: bridgehead-ear FILE NIC...");
        return ExitCode::from(2);
    }
    let Err(error) = listen(&file, nics);
    let _ = writeln!(io::stderr(), "bridgehead-ear: cannot go on: {error}");
    ExitCode::FAILURE
}

/// A NIC that is listened to.
struct Nic {
    name: String,
    /// Which one of that name it is, by its index, and how often its carrier had changed when the socket was opened.
    known: Option<(u32, String)>,
    ear: Result<OwnedFd, Errno>,
    heard: Option<Heard>,
}

/// Who holds to be at the other end.
struct Heard {
    said: Lldpdu,
    frame: Vec<u8>,
    until: Instant,
}

fn listen(file: &str, mut nics: Vec<Nic>) -> io::Result<Infallible> {
    let mut written = None;
    loop {
        let now = Instant::now();
        for nic in &mut nics {
            nic.look(now);
        }
        let lines: String = nics.iter().filter_map(Nic::line).collect();
        if written.as_ref() != Some(&lines) {
            replace(file, &lines)?;
            written = Some(lines);
        }
        while let Some(left) = TICK.checked_sub(now.elapsed()) {
            take(&mut nics, left)?;
        }
    }
}

fn replace(file: &str, lines: &str) -> io::Result<()> {
    let new = format!("{file}.new");
    fs::write(&new, lines)?;
    fs::rename(new, file)
}

/// Waits so long for frames at most, and takes one of each NIC that has some.
fn take(nics: &mut [Nic], wait: Duration) -> io::Result<()> {
    let mut open: Vec<_> = nics.iter_mut().filter(|nic| nic.ear.is_ok()).collect();
    let ears = open.iter().filter_map(|nic| nic.ear.as_ref().ok());
    let mut ready: Vec<_> = ears
        .map(|ear| PollFd::new(ear.as_fd(), PollFlags::POLLIN))
        .collect();
    // Less than a millisecond would be none, again and again.
    let wait = wait.max(Duration::from_millis(1));
    let wait = PollTimeout::try_from(wait).map_err(io::Error::other)?;
    match poll(&mut ready, wait) {
        Ok(0) | Err(Errno::EINTR) => return Ok(()),
        done => done?,
    };
    let ready: Vec<bool> = ready
        .iter()
        .map(|fd| fd.any().unwrap_or_default())
        .collect();
    for (nic, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
        nic.take();
    }
    Ok(())
}

impl Nic {
    fn new(name: String) -> Self {
        Self {
            name,
            known: None,
            ear: Err(Errno::ENODEV),
            heard: None,
        }
    }

    /// Opens its socket where there is none, or the cable may be another: what came before is of no worth then, on the
    /// way to us or here. Forgets what was heard too long ago (§9.2.8).
    fn look(&mut self, now: Instant) {
        let path = format!("/sys/class/net/{}/carrier_changes", self.name);
        let changes = fs::read_to_string(path).unwrap_or_default();
        let index = if_nametoindex(self.name.as_str());
        let known = index.map(|index| (index, changes.trim().to_owned()));
        if self.ear.is_err() || self.known != known.clone().ok() {
            self.heard = None;
            let up = known.clone().and_then(|known| self.is_up().map(|()| known));
            self.ear = up.and_then(|(index, _)| open(index));
            self.known = known.ok();
        }
        self.heard.take_if(|heard| heard.until <= now);
    }

    /// On a NIC that is down a socket is opened all the same, and has an error only for who reads it.
    fn is_up(&self) -> Result<(), Errno> {
        let path = format!("/sys/class/net/{}/flags", self.name);
        let flags = fs::read_to_string(path).map_err(|_| Errno::ENODEV)?;
        let flags = flags.trim().trim_start_matches("0x");
        match i32::from_str_radix(flags, 16) {
            Ok(flags) if flags & libc::IFF_UP == 0 => Err(Errno::ENETDOWN),
            _ => Ok(()),
        }
    }

    fn take(&mut self) {
        let Ok(ear) = &self.ear else { return };
        let mut frame = [0; LARGEST];
        match recv(ear.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => self.hear(frame.get(..length).unwrap_or_default()),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // It went down, or is gone: perhaps it comes again.
            Err(errno) => self.ear = Err(errno),
        }
    }

    /// A frame is discarded whole where anything in it is wrong (§9.2.7.7). Of several that send, as where a switch
    /// passes on what another says, the first is heard for as long as it holds: a machine is at one port.
    fn hear(&mut self, frame: &[u8]) {
        let Ok(said) = Lldpdu::parse(frame) else {
            return;
        };
        let known = self.heard.as_mut();
        if known.is_some_and(|heard| !heard.said.is_of_sender(&said)) {
            return;
        }
        if said.ttl_s == 0 {
            self.heard = None;
            return;
        }
        let until = Instant::now() + Duration::from_secs(said.ttl_s.into());
        match &mut self.heard {
            // Some change with each frame, by counters and measurements that say nothing of where it is.
            Some(heard) if heard.said.says_the_same(&said) => heard.until = until,
            heard => {
                let frame = frame.to_vec();
                *heard = Some(Heard { said, frame, until });
            }
        }
    }

    fn line(&self) -> Option<String> {
        let name = &self.name;
        if let Err(errno) = &self.ear {
            return Some(format!("{name} ! {errno}\n"));
        }
        let ((_, changes), heard) = self.known.as_ref().zip(self.heard.as_ref())?;
        let octets = heard.frame.iter();
        let hex: String = octets.map(|octet| format!("{octet:02x}")).collect();
        Some(format!("{name} {changes} {hex}\n"))
    }
}

/// A socket of its own: a NIC that is gone keeps none of the others from being heard. The NIC lets the groups' frames
/// through for as long as it is open (packet(7)).
fn open(index: u32) -> Result<OwnedFd, Errno> {
    // Of no protocol, so that nothing comes in before it is bound to one.
    let ear = socket(
        AddressFamily::Packet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let index = i32::try_from(index).map_err(|_| Errno::ENODEV)?;
    for group in GROUPS {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group);
        let membership = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        setsockopt(&ear, AddMembership, &membership)?;
    }
    bind(ear.as_raw_fd(), &of_nic(index)?)?;
    Ok(ear)
}

fn of_nic(index: i32) -> Result<LinkAddr, Errno> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ETHER_TYPE.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `address` is a whole sockaddr_ll of the length that is given with it, and it is only read here.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    address.ok_or(Errno::EINVAL)
}

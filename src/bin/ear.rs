//! `bridgehead-ear SECONDS NIC...`: hears who is at the other end of each cable, by LLDP, which BusyBox can't.
//!
//! It goes into the initrd, static and alone, so it is no more than the standard library and system calls. For each
//! NIC that heard somebody it prints a line `NIC HEX`: the first frame, behind its `EtherType`. The daemon reads it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
};

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
/// A link that was just brought up needs as long to have a carrier; before, nobody knows who will be heard.
const SETTLE: Duration = Duration::from_secs(6);

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
    let seconds = arguments.next().and_then(|text| text.parse().ok());
    let nics: Vec<String> = arguments.collect();
    let Some(seconds) = seconds.filter(|_| !nics.is_empty()) else {
        let _ = writeln!(io::stderr(), "usage: bridgehead-ear SECONDS NIC...");
        return ExitCode::from(2);
    };
    match hear(&nics, Duration::from_secs(seconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "bridgehead-ear: cannot listen for LLDP: {error}"
            );
            ExitCode::FAILURE
        }
    }
}

/// A NIC that is listened to.
struct Nic<'a> {
    name: &'a str,
    heard: bool,
}

/// Until every NIC with a carrier has heard somebody, or the time is over.
fn hear(names: &[String], patience: Duration) -> io::Result<()> {
    // Of all protocols: nix has no name for this one. What else comes is passed over.
    let kind = (SockType::Datagram, SockProtocol::EthAll);
    let ear = socket(
        AddressFamily::Packet,
        kind.0,
        SockFlag::SOCK_CLOEXEC,
        kind.1,
    )?;
    let mut nics = BTreeMap::new();
    for name in names {
        // One that is gone, or lets no such frames through, is no reason to be deaf on the others.
        match if_nametoindex(name.as_str()) {
            Ok(index) if join(&ear, index).is_ok() => {
                nics.insert(index as usize, Nic { name, heard: false });
            }
            _ => writeln!(io::stderr(), "bridgehead-ear: cannot listen on {name}")?,
        }
    }
    if nics.is_empty() {
        return Err(io::Error::other("no NIC is left"));
    }
    let began = Instant::now();
    while began.elapsed() < patience {
        let settled = began.elapsed() >= SETTLE;
        let mut up = nics.values().filter(|nic| has_carrier(nic.name)).peekable();
        if settled && up.peek().is_some() && up.all(|nic| nic.heard) {
            break;
        }
        let left = patience.saturating_sub(began.elapsed());
        take(&ear, &mut nics, left.min(Duration::from_secs(1)))?;
    }
    Ok(())
}

/// The NIC lets the groups' frames through as long as the socket is open (packet(7)).
fn join(ear: &OwnedFd, index: u32) -> io::Result<()> {
    for group in GROUPS {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group);
        let membership = libc::packet_mreq {
            mr_ifindex: i32::try_from(index).map_err(io::Error::other)?,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        setsockopt(ear, AddMembership, &membership)?;
    }
    Ok(())
}

/// Waits so long for a frame, and prints it if it is its NIC's first.
fn take(ear: &OwnedFd, nics: &mut BTreeMap<usize, Nic<'_>>, wait: Duration) -> io::Result<()> {
    let mut ready = [PollFd::new(ear.as_fd(), PollFlags::POLLIN)];
    let wait = PollTimeout::try_from(wait).map_err(io::Error::other)?;
    match poll(&mut ready, wait) {
        Ok(0) | Err(Errno::EINTR) => return Ok(()),
        done => done?,
    };
    let mut frame = [0; LARGEST];
    // A NIC that goes down is an error of the socket, and no reason to stop.
    let Ok((length, Some(from))) = recvfrom::<LinkAddr>(ear.as_raw_fd(), &mut frame) else {
        return Ok(());
    };
    if from.protocol() != ETHER_TYPE.to_be() {
        return Ok(());
    }
    let Some(nic) = nics.get_mut(&from.ifindex()).filter(|nic| !nic.heard) else {
        return Ok(());
    };
    nic.heard = true;
    let octets = frame.iter().take(length);
    let hex: String = octets.map(|octet| format!("{octet:02x}")).collect();
    writeln!(io::stdout(), "{} {hex}", nic.name)
}

fn has_carrier(nic: &str) -> bool {
    let carrier = std::fs::read_to_string(format!("/sys/class/net/{nic}/carrier"));
    carrier.is_ok_and(|carrier| carrier.trim() == "1")
}

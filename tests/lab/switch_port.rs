//! A switch that says by LLDP (IEEE 802.1AB) which of its ports a server is plugged into.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
};

use super::Lab;
use super::error::{LabError, Result};
use super::namespace::Namespace;

/// Nearest bridge (table 7-1), from the switch's own MAC, LLDP.
const HEADER: [u8; 14] = [
    0x01, 0x80, 0xc2, 0, 0, 0x0e, 0x02, 0, 0, 0, 0x5a, 0x02, 0x88, 0xcc,
];
/// Real ones say it every thirty seconds.
const INTERVAL: Duration = Duration::from_secs(2);

/// The thread that says it. Dropping it ends it.
#[derive(Debug)]
pub struct SwitchPort {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SwitchPort {
    /// Says `lldpdu` on the tap device `port` of the lab's switch.
    pub fn new(lab: &Lab, port: &str, lldpdu: &[u8]) -> Result<Self> {
        let (socket, address) = lab.switch().enter(|| open(port))??;
        let frame = [&HEADER, lldpdu].concat();
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // While nobody is at the other end it goes nowhere.
                let _ = sendto(socket.as_raw_fd(), &frame, &address, MsgFlags::empty());
                thread::sleep(INTERVAL);
            }
        });
        Ok(Self {
            over,
            thread: Some(thread),
        })
    }
}

/// What a switch says that has no more to say than who it is.
pub fn lldpdu(switch: &str, port: &str, ttl_s: u16) -> Vec<u8> {
    let tlv = |kind: u8, value: &[u8]| {
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        [&[kind << 1, length], value].concat()
    };
    let named = |kind, subtype: u8, name: &str| tlv(kind, &[&[subtype], name.as_bytes()].concat());
    // Chassis ID, locally assigned; port ID, the interface's name; time to live; the end.
    let ttl = tlv(3, &ttl_s.to_be_bytes());
    [named(1, 7, switch), named(2, 5, port), ttl, tlv(0, &[])].concat()
}

/// Says `lldpdu` once, on the device `port`.
pub fn say_lldp(switch: &Namespace, port: &str, lldpdu: &[u8]) -> Result<()> {
    let (socket, address) = switch.enter(|| open(port))??;
    let frame = [&HEADER, lldpdu].concat();
    let said = sendto(socket.as_raw_fd(), &frame, &address, MsgFlags::empty());
    said.map(|_| ()).map_err(|errno| LabError::Io {
        doing: format!("say an LLDPDU on {port}"),
        source: errno.into(),
    })
}

impl Drop for SwitchPort {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(port: &str) -> Result<(OwnedFd, LinkAddr)> {
    let failed = |errno: nix::errno::Errno| LabError::Io {
        doing: format!("open a packet socket on {port}"),
        source: errno.into(),
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let kind = (SockType::Raw, SockProtocol::EthAll);
    let socket = socket(AddressFamily::Packet, kind.0, flags, kind.1).map_err(failed)?;
    let mut interfaces = getifaddrs().map_err(failed)?;
    let address = interfaces.find_map(|found| {
        let named = found.interface_name == port;
        named.then(|| found.address?.as_link_addr().copied())?
    });
    let address = address.ok_or_else(|| failed(nix::errno::Errno::ENODEV))?;
    Ok((socket, address))
}

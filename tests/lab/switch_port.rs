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

//! A switch port that carries one VLAN tagged (IEEE 802.1Q) and takes part in a link aggregation when asked to. The
//! machine's kernel may know neither, so this is done by a thread: QEMU's frames come by a datagram socket, the
//! switch's by its tap device.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Lab;
use super::error::{LabError, Result, io_error};
use super::lacp;

/// Largest frame: 9,216 bytes of payload, header and tag.
const FRAME: usize = 9216 + 18;
const TAG: [u8; 2] = [0x81, 0x00];

nix::ioctl_write_int!(tunsetiff, b'T', 202);

/// The thread between a virtual server and the switch. Dropping it ends it.
#[derive(Debug)]
pub struct Trunk {
    theirs: PathBuf,
    ours: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trunk {
    /// Connects the tap device `port` of the switch with a datagram socket in `dir`. In LACP it is port `number`.
    pub fn new(lab: &Lab, port: &str, vlan: u16, number: u16, dir: &Path) -> Result<Self> {
        let (ours, theirs) = (
            dir.join(format!("{port}.sw")),
            dir.join(format!("{port}.vm")),
        );
        let socket = UnixDatagram::bind(&ours).map_err(io_error("bind", &ours))?;
        let tap = lab.switch().enter(|| open_tap(port))??;
        let over = Arc::new(AtomicBool::new(false));
        let relay = Relay {
            socket,
            tap,
            vlan,
            number,
            server: theirs.clone(),
            over: over.clone(),
        };
        let thread = Some(thread::spawn(move || relay.run()));
        Ok(Self {
            theirs,
            ours,
            over,
            thread,
        })
    }

    /// QEMU's `-netdev` for the other end.
    pub fn netdev(&self, id: &str) -> String {
        let (theirs, ours) = (self.theirs.display(), self.ours.display());
        format!(
            "dgram,id={id},local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}"
        )
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Attaches to a tap device that is there (`TUNSETIFF`, kernel Documentation/networking/tuntap.rst).
fn open_tap(port: &str) -> Result<File> {
    const IFF_TAP: u16 = 0x0002;
    const IFF_NO_PI: u16 = 0x1000;
    let path = Path::new("/dev/net/tun");
    let open = OpenOptions::new().read(true).write(true).open(path);
    let tap = open.map_err(io_error("open", path))?;
    let mut request = [0_u8; 40];
    request[..port.len()].copy_from_slice(port.as_bytes());
    request[16..18].copy_from_slice(&(IFF_TAP | IFF_NO_PI).to_ne_bytes());
    // SAFETY: `request` has the size and layout of a struct ifreq and outlives the call.
    let done = unsafe {
        tunsetiff(
            tap.as_raw_fd(),
            request.as_ptr() as nix::sys::ioctl::ioctl_param_type,
        )
    };
    done.map_err(|errno| LabError::Io {
        doing: format!("attach to {port}: {errno}"),
        source: errno.into(),
    })?;
    Ok(tap)
}

struct Relay {
    socket: UnixDatagram,
    tap: File,
    vlan: u16,
    number: u16,
    server: PathBuf,
    over: Arc<AtomicBool>,
}

impl Relay {
    fn run(self) {
        let mut frame = [0; FRAME];
        while !self.over.load(Ordering::Relaxed) {
            let (from_server, from_switch) = self.wait();
            if from_server && let Ok(length) = self.socket.recv(&mut frame) {
                self.to_switch(&frame[..length]);
            }
            if from_switch && let Ok(length) = (&self.tap).read(&mut frame) {
                // A server that is off takes no frames.
                let _ = self
                    .socket
                    .send_to(&tag(&frame[..length], self.vlan), &self.server);
            }
        }
    }

    fn to_switch(&self, frame: &[u8]) {
        if let Some(bare) = untag(frame, self.vlan) {
            let _ = (&self.tap).write(&bare);
        } else if let Some(answer) = lacp::answer(frame, self.number) {
            let _ = self.socket.send_to(&answer, &self.server);
        }
    }

    /// Which side has a frame; neither after a fifth of a second.
    fn wait(&self) -> (bool, bool) {
        let mut ends = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.tap.as_fd(), PollFlags::POLLIN),
        ];
        if poll(
            &mut ends,
            PollTimeout::try_from(Duration::from_millis(200)).unwrap_or(PollTimeout::ZERO),
        )
        .is_err()
        {
            return (false, false);
        }
        (
            ends[0].any().unwrap_or(false),
            ends[1].any().unwrap_or(false),
        )
    }
}

/// The frame without its tag; `None` if it has none or another VLAN's.
fn untag(frame: &[u8], vlan: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(12)?;
    let (tag, rest) = rest.split_at_checked(4)?;
    let id = u16::from_be_bytes([tag[2], tag[3]]) & 0x0fff;
    (tag[..2] == TAG && id == vlan).then(|| [addresses, rest].concat())
}

fn tag(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(frame.len().min(12));
    [addresses, &TAG, &vlan.to_be_bytes(), rest].concat()
}

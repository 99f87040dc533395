//! The lab: a switch, an appliance and bare servers with real firmware, all on one machine.
//!
//! Everything stands in network namespaces that the lab makes and removes itself; the machine's
//! own interfaces are never touched. Each test binary uses its part of it.
//!
//! ```text
//!  bh-LAB-PID-srv            bh-LAB-PID-net                 QEMU (in -net)
//!  boot0 10.77.0.1/24 ------ sw0 (bridge) ----- tap kvm01 -- virtio NIC of kvm01
//!                             |    |
//!  bh-LAB-PID-pool: 10.77.0.5-+    +--- bh-LAB-PID-NAME: eth0 of a client
//! ```
#![allow(dead_code, unreachable_pub, unused_imports, clippy::print_stderr)]

mod capture;
mod daemon;
mod direct;
mod disk;
mod error;
mod faulty;
mod firmware;
mod ganesha;
mod lacp;
mod lustre;
mod namespace;
mod nic;
mod pool;
mod process;
mod proof;
mod qga;
mod qmp;
mod server;
mod site;
mod switch_port;
mod trunk;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

pub use capture::{Capture, Captured};
pub use daemon::{Daemon, HostStatus, Stage, Status, bridgehead};
pub use direct::BootOrder;
pub use disk::Disk;
pub use error::{LabError, Result, io_error};
pub use faulty::{Answer, FaultyDaemon};
pub use firmware::Firmware;
pub use ganesha::Ganesha;
pub use lustre::Lustre;
pub use namespace::{Namespace, remove_stale};
pub use nic::{Cable, Nic};
pub use pool::{Moosefs, PoolServer};
pub use process::{Log, Process, describe, output, run};
pub use proof::{HostView, cross_read};
pub use qga::{GuestAgent, GuestOutput};
pub use server::{ServerSpec, VirtualServer};
pub use site::{Site, kernel, kernel_dir, require, require_boot_files, with_kernel};
pub use switch_port::{SwitchPort, lldpdu, say_lldp};
pub use wait::{check_interrupt, until, watch_signals};

/// The appliance's address.
pub const APPLIANCE: &str = "10.77.0.1";
/// The pool server's address.
pub const POOL: &str = "10.77.0.5";
/// The appliance's interface on the boot network.
pub const BOOT_INTERFACE: &str = "boot0";

/// A switch with an appliance on it. Dropping it removes all of it.
///
/// Fields drop in order: the namespaces end what still runs in them before the directory goes.
#[derive(Debug)]
pub struct Lab {
    trunks: Mutex<Vec<trunk::Trunk>>,
    appliance: Namespace,
    switch: Namespace,
    dir: TempDir,
    name: String,
}

impl Lab {
    /// Makes the switch and the appliance's namespace with 10.77.0.1/24 on `boot0`.
    pub fn new(name: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NeedsRoot);
        }
        wait::watch_signals();
        namespace::remove_stale()?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("bh-{name}-{}-", std::process::id()))
            .tempdir_in(namespace::DIRECTORIES)
            .map_err(io_error(
                "make a directory in",
                namespace::DIRECTORIES.as_ref(),
            ))?;
        let switch = Namespace::new(name, "net")?;
        // Ports forward at once, as on a switch port set to edge (portfast).
        let bridge = "link add sw0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0";
        switch.ip(&bridge.split(' ').collect::<Vec<_>>())?;
        switch.ip(&["link", "set", "sw0", "up"])?;
        let lab = Self {
            trunks: Mutex::default(),
            appliance: Namespace::new(name, "srv")?,
            switch,
            dir,
            name: name.to_owned(),
        };
        lab.cable(&lab.appliance, BOOT_INTERFACE, "srv0", None)?;
        lab.appliance
            .ip(&["addr", "add", "10.77.0.1/24", "dev", BOOT_INTERFACE])?;
        Ok(lab)
    }

    /// As [`Lab::new`], or `None` without root: said on stderr, and a failure where `CI` is set.
    ///
    /// # Panics
    /// If the lab can't be made, or root is missing in CI.
    pub fn for_test(name: &str) -> Option<Self> {
        match Self::new(name) {
            Ok(lab) => Some(lab),
            Err(error @ LabError::NeedsRoot) if std::env::var_os("CI").is_none() => {
                eprintln!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The appliance's namespace.
    pub fn appliance(&self) -> &Namespace {
        &self.appliance
    }

    /// The switch's namespace; QEMU runs here, too.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// A directory of the lab's own, removed with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a tap device on the switch for a virtual server.
    pub fn tap(&self, name: &str) -> Result<()> {
        self.switch
            .ip(&["tuntap", "add", "dev", name, "mode", "tap"])?;
        self.switch
            .ip(&["link", "set", name, "master", "sw0", "up"])?;
        Ok(())
    }

    /// Keeps a trunk's thread for as long as the lab stands.
    fn keep(&self, trunk: trunk::Trunk) {
        let mut trunks = self.trunks.lock().unwrap_or_else(PoisonError::into_inner);
        trunks.push(trunk);
    }

    /// The number of the next trunk, from 1.
    fn next_trunk(&self) -> u16 {
        let trunks = self.trunks.lock().unwrap_or_else(PoisonError::into_inner);
        u16::try_from(trunks.len() + 1).unwrap_or(u16::MAX)
    }

    /// Lets the switch's `port` pass frames or, as a port does whose spanning tree is not settled, drop them.
    pub fn set_forwarding(&self, port: &str, forwards: bool) -> Result<()> {
        // BR_STATE_LISTENING is 1, BR_STATE_FORWARDING 3 (include/uapi/linux/if_bridge.h).
        let state = if forwards { "3" } else { "1" };
        let done = self
            .switch
            .run(&["bridge", "link", "set", "dev", port, "state", state]);
        done.map(|_| ())
    }

    /// Makes a namespace `ROLE` with interface `eth0` on the switch, up, without an address.
    pub fn client(&self, role: &str, mac: &str) -> Result<Namespace> {
        let client = Namespace::new(&self.name, role)?;
        self.cable(&client, "eth0", &format!("c-{role}"), Some(mac))?;
        Ok(client)
    }

    /// Plugs `interface` of `namespace` into switch port `port`.
    fn cable(
        &self,
        namespace: &Namespace,
        interface: &str,
        port: &str,
        mac: Option<&str>,
    ) -> Result<()> {
        let netns = namespace.name();
        let mut link = vec![
            "link", "add", port, "type", "veth", "peer", "name", interface,
        ];
        if let Some(mac) = mac {
            link.extend(["address", mac]);
        }
        link.extend(["netns", netns]);
        self.switch.ip(&link)?;
        self.switch
            .ip(&["link", "set", port, "master", "sw0", "up"])?;
        namespace.ip(&["link", "set", interface, "up"])?;
        Ok(())
    }
}

/// The data directory: `BRIDGEHEAD_DATA`, else `build/` of the repository.
pub fn data_dir() -> PathBuf {
    std::env::var_os("BRIDGEHEAD_DATA").map_or_else(|| repository().join("build"), PathBuf::from)
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The last words and the exit code of a program that works in a lab, which is down by now; what it left in `results`
/// is given to who ran sudo.
pub fn end_program(name: &str, results: &Path, end: Result<()>) -> ExitCode {
    let handed = match results.exists() {
        true => hand_over(results),
        false => Ok(()),
    };
    match end.and(handed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(LabError::Interrupted) => {
            eprintln!("\ninterrupted; the lab is taken down");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\n{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Gives what root wrote to the user who ran sudo, so that `make clean` needs no root.
pub fn hand_over(dir: &Path) -> Result<()> {
    let id = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|id| id.parse::<u32>().ok())
    };
    let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) else {
        return Ok(());
    };
    run(&[
        "chown",
        "-R",
        &format!("{uid}:{gid}"),
        &dir.display().to_string(),
    ])
    .map(|_| ())
}

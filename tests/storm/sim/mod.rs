//! A boot storm: hosts that power on together, simulated from the firmware's first DISCOVER to the last report of the
//! root. All of them live in one thread of one process, in the network namespace at the clients' end of a wire.
//!
//! - `air`: frames of machines that have no address yet, with their own MACs, by a packet socket;
//! - `weather`: what is lost and delayed, which the machine's kernel has no queueing discipline for;
//! - `dhcp`: firmware's and iPXE's packets as they were captured (tests/golden), and their retries;
//! - `tftp`: EDK2's size probe and windows, a ROM's lock-step, and their retries;
//! - `http`: iPXE's connection that stays open, BusyBox's that don't;
//! - `host`: the whole conversation;
//! - `tally`: what came of it.
//!
//! A host takes no time of its own: firmware's pauses, a kernel's start and the mount of the root are left out, so
//! that more comes at once than real hosts can send. TCP loses nothing here.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod air;
mod dhcp;
mod host;
mod http;
mod place;
mod tally;
mod tftp;
mod weather;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use tokio::task::JoinSet;

use crate::lab::{LabError, Result, io_error};
use crate::rig::{SERVER, Wire};

pub use host::{Failure, Stage};
pub use place::{Files, Ours, Site, answers_http};
pub use tally::Tally;

/// No host may take longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// Who powers on, into what.
#[derive(Debug, Clone)]
pub struct Storm {
    /// How many, all in the same moment. At most 30,000.
    pub hosts: u16,
    /// Of a hundred UDP datagrams, so many are lost, in either direction.
    pub loss_percent: f64,
    /// How long a UDP datagram takes in one direction.
    pub delay: Duration,
    /// The same seed loses the same datagrams of the same host.
    pub seed: u64,
    /// What initrd and root ask of our API and tell it, too.
    pub report: bool,
    /// Nobody listed them: each waits in its inventory boot until it has a name, and goes no further.
    pub unlisted: bool,
    /// What is served, to hold against what arrives.
    pub files: Files,
}

impl Storm {
    /// Blows, and returns when the last host is done or has given up.
    ///
    /// # Errors
    /// Where the simulator itself can't go on; a host that fails is in the [`Tally`].
    pub fn blow(&self, wire: &Wire) -> Result<Tally> {
        raise_open_files();
        // A machine without an address of its own answers ARP for all of theirs, and may bind them.
        wire.client()
            .ip(&["route", "replace", "local", RANGE, "dev", "lo"])?;
        let mac = mac_of(wire)?;
        wire.client().enter(|| self.run(mac))?
    }

    fn run(&self, mac: [u8; 6]) -> Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let failed = |doing| io_error(doing, "the simulator".as_ref());
        let runtime = runtime.map_err(failed("start"))?;
        let before = cpu_seconds();
        let began = Instant::now();
        let mut tally = runtime.block_on(async {
            let air = air::Air::open("eth0", mac, self.hosts)
                .map_err(failed("open a packet socket for"))?;
            Ok::<_, LabError>(self.all(Arc::new(air)).await)
        })?;
        tally.wall = began.elapsed();
        tally.own_cpu = cpu_seconds() - before;
        Ok(tally)
    }

    async fn all(&self, air: Arc<air::Air>) -> Tally {
        let hearing = tokio::spawn(air.clone().hear());
        let files = Arc::new(self.files.clone());
        let mut hosts = JoinSet::new();
        for number in 0..self.hosts {
            let host = host::Host::new(number, self, air.clone(), files.clone());
            hosts.spawn(async move {
                let boot = tokio::time::timeout(PATIENCE, host.boot());
                boot.await.unwrap_or_else(|_| host::Boot::overdue(number))
            });
        }
        let mut tally = Tally::default();
        while let Some(ended) = hosts.join_next().await {
            // A panic here is the simulator's own.
            match ended {
                Ok(boot) => tally.add(boot),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        hearing.abort();
        tally
    }
}

/// The hosts' addresses: the upper half of the wire's network.
pub const RANGE: &str = "10.77.128.0/17";

/// The address of a host, from 0.
pub fn address(number: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 128, 1)) + u32::from(number))
}

/// Its MAC.
pub fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x52, 0x54, 0x00, 0x80, high, low]
}

/// Its name in the inventory.
pub fn name(number: u16) -> String {
    format!("storm{:04}", number + 1)
}

/// An inventory of so many of them. Every host has its reservation and files of its own.
pub fn inventory(hosts: u16) -> String {
    let last = format!("{hosts:04}");
    format!(
        r#"
site: storm
networks:
  boot:
    subnet: 10.77.0.0/16
    router: {SERVER}
    dns: [{SERVER}]
    dhcp: server
    pool: 10.77.2.1-10.77.9.250
profiles:
  kvm-host:
    kernel: debian
    initrd: default
    bridge: {{name: br0, mtu: 1500}}
    root: {{nfs: "/roots/kvm-host", overlay: 512M}}
    files: [base]
hosts:
  "storm[0001-{last}]": {{mac: "52:54:00:80:00:00", ip: 10.77.128.1, profile: kvm-host}}
unknown: {{policy: hold}}
"#
    )
}

/// The same hosts, without MACs: the next machines become them, whichever those are.
pub fn free(hosts: u16) -> String {
    // The simulator answers ARP for all addresses that its machines may have, and for none of the hosts'.
    inventory(hosts)
        .replace(
            "10.77.2.1-10.77.9.250",
            "10.77.128.1-10.77.159.254\n    probe: off",
        )
        .replace(
            "mac: \"52:54:00:80:00:00\", ip: 10.77.128.1",
            "ip: 10.77.64.1",
        )
        .replace(
            "policy: hold",
            "policy: next-free, inventory: kvm-host, virtual: true",
        )
}

/// Connections that the server's listeners had no room for since the wire was made (`ListenDrops`, per namespace).
///
/// # Errors
/// Where the namespace can't be asked.
pub fn refused_connections(wire: &Wire) -> Result<u64> {
    let text = wire.server().run(&["cat", "/proc/net/netstat"])?;
    let mut tcp = text
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (tcp.next().unwrap_or(""), tcp.next().unwrap_or(""));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|(name, _)| *name == "ListenDrops");
    let count = found.and_then(|(_, value)| value.parse().ok());
    count.ok_or_else(|| LabError::Answer {
        peer: "/proc/net/netstat".to_owned(),
        answer: text,
    })
}

/// The MAC of the clients' end.
fn mac_of(wire: &Wire) -> Result<[u8; 6]> {
    let text = wire.client().ip(&["-o", "link", "show", "eth0"])?;
    let after = text.split("link/ether ").nth(1).unwrap_or_default();
    let octets = after.split([':', ' ']).take(6);
    let octets: Vec<u8> = octets
        .filter_map(|hex| u8::from_str_radix(hex, 16).ok())
        .collect();
    octets.try_into().map_err(|_| LabError::Answer {
        peer: "ip link show eth0".to_owned(),
        answer: text,
    })
}

/// Each host has two or three descriptors at once.
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn cpu_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else {
        return f64::NAN;
    };
    let times = [usage.user_time(), usage.system_time()];
    let seconds = times.map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    seconds.iter().sum()
}

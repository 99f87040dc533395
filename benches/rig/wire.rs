//! A network for one server and its clients: two namespaces and a veth pair between them.
//!
//! ```text
//!  bh-BENCH-PID-srv  boot0 10.77.0.1/16 ------ eth0 10.77.1.1/16  bh-BENCH-PID-cli
//! ```
//! Nothing of the machine's own network is touched, and nothing of it is in the way.

use std::collections::BTreeMap;

use crate::lab::{LabError, Namespace, Result, check_interrupt, remove_stale, watch_signals};

/// The servers' address.
pub const SERVER: &str = "10.77.0.1";
/// The clients' first address; [`Wire::add_clients`] adds others.
pub const CLIENT: &str = "10.77.1.1";
/// The servers' interface.
pub const INTERFACE: &str = "boot0";

/// Both ends. Dropping it ends what still runs there and removes it.
#[derive(Debug)]
pub struct Wire {
    server: Namespace,
    client: Namespace,
}

impl Wire {
    /// Makes both ends, with their addresses, up.
    ///
    /// # Errors
    /// Where this isn't root, or `ip` says no.
    pub fn new(bench: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NeedsRoot);
        }
        watch_signals();
        check_interrupt()?;
        remove_stale()?;
        let wire = Self {
            server: Namespace::new(bench, "srv")?,
            client: Namespace::new(bench, "cli")?,
        };
        let pair = format!(
            "link add {INTERFACE} type veth peer name eth0 netns {}",
            wire.client.name()
        );
        wire.server.ip(&pair.split(' ').collect::<Vec<_>>())?;
        for (end, name, address) in [
            (&wire.server, INTERFACE, SERVER),
            (&wire.client, "eth0", CLIENT),
        ] {
            end.ip(&["addr", "add", &format!("{address}/16"), "dev", name])?;
            end.ip(&["link", "set", name, "up"])?;
        }
        Ok(wire)
    }

    /// Where servers run.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// Where clients run: `wire.client().enter(|| …)`. Threads started in there belong to it, too.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Gives the clients' end the addresses 10.77.(1 + n / 250).(1 + n % 250) for n below `count`, the first of which
    /// it has already.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn add_clients(&self, count: usize) -> Result<()> {
        (1..count).try_for_each(|n| {
            let address = format!("10.77.{}.{}/16", 1 + n / 250, 1 + n % 250);
            self.client
                .ip(&["addr", "add", &address, "dev", "eth0"])
                .map(|_| ())
        })
    }
}

/// UDP datagrams that the namespace's sockets had no room for since it was made (`RcvbufErrors`, per namespace).
/// Servers in turn share a namespace: take the difference.
///
/// # Errors
/// Where the namespace can't be asked.
pub fn drops(namespace: &Namespace) -> Result<u64> {
    let text = namespace.run(&["cat", "/proc/net/snmp"])?;
    let mut udp = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (udp.next().unwrap_or(""), udp.next().unwrap_or(""));
    let pairs: BTreeMap<_, _> = names.split(' ').zip(values.split(' ')).collect();
    let count = pairs.get("RcvbufErrors").and_then(|n| n.parse().ok());
    count.ok_or_else(|| LabError::Answer {
        peer: "/proc/net/snmp".to_owned(),
        answer: text,
    })
}

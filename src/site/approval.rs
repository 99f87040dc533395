//! A machine that waits is made a host: over the daemon's own socket, or over the network by who may write.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Site;
use super::discovery::DiscoveredStatus;
use crate::inventory::model::{MacAddr, UnknownPolicy};
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::scribe::{Done, Edit, NewHost, Refusal};

/// Version of the JSON; a change that could break a reader makes it 2.
const SCHEMA: u32 = 1;
/// The daemon looks at its files every second; ten thousand hosts take another.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// What a machine is to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Its name from now on.
    pub name: String,
    /// What it boots.
    pub profile: String,
    /// Its address; none: the next free one of the network that it asks on, outside the pool.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// Its rack.
    #[serde(default)]
    pub rack: Option<String>,
    /// Its unit in the rack.
    #[serde(default)]
    pub unit: Option<u16>,
    /// It is to be a host although it looks like a virtual machine.
    #[serde(default)]
    pub r#virtual: bool,
    /// Say what would be written, and write nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A machine that was made a host, or would be.
#[derive(Debug, Serialize, Deserialize)]
pub struct Approved {
    /// Version of this shape.
    pub schema: u32,
    /// The MAC that it boots from.
    pub mac: MacAddr,
    /// What was written.
    #[serde(flatten)]
    pub done: Done,
    /// Whether the daemon serves it by now.
    pub served: bool,
    /// Whether it waits, and goes on by itself.
    pub waiting: bool,
}

/// Who approves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Whoever may open the daemon's own socket.
    Socket,
    /// Somebody with the write token, come by the way that these words say.
    Network(String),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket => f.write_str("over the control socket"),
            Self::Network(way) => write!(f, "with the write token {way}"),
        }
    }
}

/// Why a machine was not made a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// Nobody has asked with this MAC, or it is a host's.
    #[error(
        "{0} has not asked since the daemon started, or is listed already; `bridgehead discover list` shows who asks, `bridgehead hosts list` who is listed, and `bridgehead hosts add` lists a machine that is not here yet"
    )]
    Unknown(MacAddr),
    /// Guests of the hosts ask on the same wire.
    #[error(
        "{mac} looks like a virtual machine: {why}; nothing was written. If it is to be a host, say so (--virtual, or `virtual`)"
    )]
    Virtual {
        /// Which one.
        mac: MacAddr,
        /// By what.
        why: String,
    },
    /// Its network's machines are listed at the server alone.
    #[error(
        "{mac} asks on {network}, whose machines are not approved over the network (`unknown: {{policy: {policy}}}`): with `policy: approve` they may be; `bridgehead discover approve` on the server always may"
    )]
    Policy {
        /// Which one.
        mac: MacAddr,
        /// In words.
        network: String,
        /// What holds there.
        policy: UnknownPolicy,
    },
    /// The file was not written.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Site {
    /// Makes a machine a host, and waits until it is served as one.
    ///
    /// # Errors
    /// [`NotApproved`].
    pub async fn approve(
        &self,
        mac: MacAddr,
        approval: &Approval,
        by: &By,
    ) -> Result<Approved, NotApproved> {
        let list = self.discovered(Timestamp::now());
        let mut machines = list.machines.iter();
        let machine = machines.find(|machine| machine.seen.mac == mac);
        let machine = machine.ok_or(NotApproved::Unknown(mac))?;
        self.may_approve(machine, by)?;
        if let (Some(why), false) = (&machine.r#virtual, approval.r#virtual) {
            let why = why.clone();
            return Err(NotApproved::Virtual { mac, why });
        }
        let edit = Edit::Add(new_host(approval, machine, &list.own));
        let done = self.scribe.edit(edit, approval.dry_run).await?;
        let mut approved = Approved {
            schema: SCHEMA,
            mac,
            done,
            served: false,
            waiting: machine.waiting,
        };
        if !approval.dry_run {
            self.note_approval(&approved, by);
            approved.served = self.serves(mac).await;
        }
        Ok(approved)
    }

    /// Whether its network's machines may be approved over the network.
    pub fn is_open(&self, machine: &DiscoveredStatus) -> bool {
        let network = machine.seen.network.as_deref();
        let snapshot = self.snapshot();
        snapshot.inventory.unknown_on(network).policy.is_open()
    }

    fn may_approve(&self, machine: &DiscoveredStatus, by: &By) -> Result<(), NotApproved> {
        let network = machine.seen.network.as_deref();
        if *by == By::Socket || self.is_open(machine) {
            return Ok(());
        }
        let policy = self.snapshot().inventory.unknown_on(network).policy;
        Err(NotApproved::Policy {
            mac: machine.seen.mac,
            network: network.map_or("no network of ours".into(), |name| {
                format!("network {name}")
            }),
            policy,
        })
    }

    fn note_approval(&self, approved: &Approved, by: &By) {
        let (host, mac) = (&approved.done.host, approved.mac);
        let message = format!("{mac} was approved as {host} {by}");
        let (id, state) = (MachineId(host.clone()), StageState::Info);
        let event = BootEvent::sent(Timestamp::now(), id, Stage::Dhcp, state, message);
        self.timeline.record(event.from_mac(mac));
    }

    /// Whether the MAC is a host's before long.
    async fn serves(&self, mac: MacAddr) -> bool {
        let began = Instant::now();
        loop {
            if self.snapshot().inventory.by_mac.contains_key(&mac) {
                return true;
            }
            // A daemon that ends takes up no edit.
            if began.elapsed() >= SERVED_WITHIN || self.scribe.is_closed() {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn new_host(approval: &Approval, machine: &DiscoveredStatus, own: &[Ipv4Addr]) -> NewHost {
    NewHost {
        name: approval.name.clone(),
        mac: machine.seen.mac,
        profile: approval.profile.clone(),
        ip: approval.ip,
        rack: approval.rack.clone(),
        unit: approval.unit,
        network: machine.seen.network.clone(),
        taken: own.to_vec(),
    }
}

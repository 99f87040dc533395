//! A machine that waits is made a host: over the daemon's own socket, or over the network by who may write.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::discovery::DiscoveredStatus;
use super::{Site, naming};
use crate::inventory::model::{MacAddr, UnknownPolicy};
use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
use crate::scribe::{Done, Kind, Outcome, Refusal};

/// Version of the JSON; a change that could break a reader makes it 2.
const SCHEMA: u32 = 1;
/// The daemon looks at its files every second; ten thousand hosts take another.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// A request by HTTP is answered within half a minute.
const ANSWERED_WITHIN: Duration = Duration::from_secs(28);
const LOOK: Duration = Duration::from_millis(100);

/// What a machine is to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Its name from now on: a new one, or that of a host which is listed and waits for its hardware.
    pub name: String,
    /// What it boots; a host that is listed says that already.
    #[serde(default)]
    pub profile: Option<String>,
    /// Its address; none: what is listed, or the next free one of the network that it asks on, outside the pool.
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
    /// The name is no name for it, or the host of that name is another machine.
    #[error("nothing was changed: {0}")]
    Unfit(String),
    /// The file was not written.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Site {
    /// Makes a machine a host, and waits until it is served as one. Who it was by is written down when it is done, also
    /// where nobody waits any more.
    ///
    /// # Errors
    /// [`NotApproved`].
    pub async fn approve(
        self: &Arc<Self>,
        mac: MacAddr,
        approval: &Approval,
        by: &By,
    ) -> Result<Approved, NotApproved> {
        let began = Instant::now();
        let list = self.discovered(Timestamp::now());
        let mut machines = list.machines.iter();
        let machine = machines.find(|machine| machine.seen.mac == mac);
        let machine = machine.ok_or(NotApproved::Unknown(mac))?;
        self.may_approve(machine, by)?;
        if let (Some(why), false) = (&machine.r#virtual, approval.r#virtual) {
            let why = why.clone();
            return Err(NotApproved::Virtual { mac, why });
        }
        let inventory = &self.snapshot().inventory;
        let edit = naming::edit(inventory, approval, &machine.seen, &list.own);
        let edit = edit.map_err(NotApproved::Unfit)?;
        let note = self.clone().approval_note(mac, approval, by);
        let done = self.scribe.edit_then(edit, approval.dry_run, note).await?;
        let mut approved = Approved {
            schema: SCHEMA,
            mac,
            done,
            served: false,
            waiting: machine.waiting,
        };
        if !approval.dry_run {
            let rest = ANSWERED_WITHIN.saturating_sub(began.elapsed());
            approved.served = self.serves(mac, rest.min(SERVED_WITHIN)).await;
        }
        Ok(approved)
    }

    /// Whether its network's machines may be approved over the network.
    pub fn is_open(&self, machine: &DiscoveredStatus) -> bool {
        let network = machine.seen.network.as_deref();
        let snapshot = self.snapshot();
        snapshot.inventory.unknown_on(network).policy.is_open()
    }

    /// Whether this machine may be approved by this way.
    ///
    /// # Errors
    /// [`NotApproved::Policy`].
    pub fn may_approve(&self, machine: &DiscoveredStatus, by: &By) -> Result<(), NotApproved> {
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

    /// Writes down what came of it.
    fn approval_note(
        self: Arc<Self>,
        mac: MacAddr,
        approval: &Approval,
        by: &By,
    ) -> impl FnOnce(&Outcome) + Send + use<> {
        let (name, dry_run) = (approval.name.clone(), approval.dry_run);
        let by = by.to_string();
        move |outcome| {
            let approved = match outcome {
                Ok(_) => "approved",
                Err(refusal) if refusal.kind == Kind::Gone => "perhaps approved",
                Err(_) => return,
            };
            if dry_run {
                return;
            }
            let message = format!("{mac} was {approved} as {name} {by}");
            let (id, state) = (MachineId(name), StageState::Info);
            let event = BootEvent::sent(Timestamp::now(), id, Stage::Dhcp, state, message);
            self.timeline.record(event.from_mac(mac));
            self.enrolment.written.notify_one();
        }
    }

    /// Whether the MAC is a host's before long.
    async fn serves(&self, mac: MacAddr, within: Duration) -> bool {
        let began = Instant::now();
        loop {
            if self.snapshot().inventory.by_mac.contains_key(&mac) {
                return true;
            }
            // A daemon that ends takes up no edit.
            if began.elapsed() >= within || self.scribe.is_closed() {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

//! Machines that boot and are not listed, as `discover list` tells of them.

mod restored;
mod wait;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Site;
use super::report::MachineStatus;
use crate::inventory::model::{Inventory, MacAddr};
use crate::policy::architecture::Architecture;
use crate::policy::client::Client;
use crate::policy::discovered::{Discovered, Discoveries, Hardware, HardwareNic, Identity};
use crate::policy::enrol::{Because, Decision, Taken};
use crate::policy::event::MachineId;
use crate::policy::near::{NearMiss, near_misses};
use crate::policy::switch_port::SwitchPort;
use crate::wire::dhcp::Request;
use wait::{Wait, waits};

/// Version of the JSON; a change that could break a reader makes it 2.
const SCHEMA: u32 = 1;

/// What was heard of them.
#[derive(Debug, Default)]
pub struct Discovery(Mutex<Discoveries>);

impl Discovery {
    fn lock(&self) -> MutexGuard<'_, Discoveries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine was told to wait.
    pub(super) fn held(&self, mac: MacAddr) {
        self.lock().held(mac, Timestamp::now());
    }

    /// What a machine that waits says of itself.
    pub fn told(&self, mac: MacAddr, said: Identity) {
        self.lock().told(mac, said);
    }

    /// What is known of a machine but where it is plugged in.
    fn machine(&self, mac: MacAddr) -> Option<Discovered> {
        self.lock().get(mac).cloned()
    }

    /// Begins an inventory boot, or says why there is none for this machine.
    pub(super) fn begin_inventory(
        &self,
        mac: MacAddr,
        of: Option<Architecture>,
        kernel: &str,
    ) -> Result<(), String> {
        self.lock()
            .begin_inventory(mac, of, kernel, Timestamp::now())
    }

    /// What the inventory boot of a machine found; `seen` is for one that was not known.
    pub(super) fn found(&self, seen: Discovered, said: Identity, hardware: Hardware) {
        self.lock().found(seen, said, hardware);
    }

    /// Whether an inventory boot has told what the machine is made of.
    pub(super) fn knows_hardware(&self, mac: MacAddr) -> bool {
        let known = self.lock();
        known.get(mac).is_some_and(|known| known.hardware.is_some())
    }

    /// The network that a machine asks on.
    pub(super) fn network_of(&self, mac: MacAddr) -> Option<String> {
        self.lock().get(mac)?.network.clone()
    }

    /// What came from a machine's address by syslog; false where it is listed, or never asked.
    pub fn heard(&self, mac: MacAddr, said: String) -> bool {
        self.lock().heard(mac, said)
    }

    /// Those that wait, by their names in events.
    pub(crate) fn waiting(&self, now: Timestamp) -> BTreeSet<String> {
        let known = self.lock();
        let known = known.list().into_iter();
        let waiting = known.filter(|seen| seen.held.is_some_and(|held| waits(held, now)));
        waiting
            .map(|seen| MachineId::unlisted(seen.mac).0)
            .collect()
    }
}

/// The machine, as one that waits only where it was told so lately.
fn as_it_waits(seen: &Discovered, now: Timestamp) -> Discovered {
    Discovered {
        held: seen.held.filter(|held| waits(*held, now)),
        ..seen.clone()
    }
}

/// Machines that are not listed.
#[derive(Debug, Serialize, Deserialize)]
pub struct DiscoveredList {
    /// Version of this shape.
    pub schema: u32,
    /// Those that came first first.
    pub machines: Vec<DiscoveredStatus>,
    /// The daemon's own addresses: nobody else's.
    pub own: Vec<Ipv4Addr>,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct DiscoveredStatus {
    /// What was heard of it.
    #[serde(flatten)]
    pub seen: Discovered,
    /// Whether it waits at its loader, and goes on by itself once it is listed.
    pub waiting: bool,
    /// Why it is taken for a virtual machine, if it is.
    pub r#virtual: Option<String>,
    /// The policy of its network.
    #[serde(default)]
    pub policy: String,
    /// What that makes of it: `becomes kvm03, …` or `waits: …`.
    #[serde(default)]
    pub verdict: String,
    /// The host that has its MAC in `nics`, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic_of: Option<String>,
    /// Listed hosts whose MAC is one slip away, in words.
    pub near: Vec<String>,
}

impl DiscoveredStatus {
    /// What is known beside who it is: a line each.
    pub fn facts(&self) -> Vec<String> {
        let seen = &self.seen;
        let uuid = seen.identity.uuid.iter().map(|uuid| format!("UUID {uuid}"));
        let port = seen.port.iter().map(|port| format!("port {port}"));
        let elsewhere = seen.elsewhere.iter();
        let elsewhere = elsewhere.map(|port| format!("asked by {port} since"));
        let relay = seen.relay.iter().map(|relay| format!("relay {relay}"));
        let place = port
            .chain(elsewhere)
            .chain(relay)
            .collect::<Vec<_>>()
            .join(", ");
        let parts = seen.hardware.iter().flat_map(|hardware| {
            let nics = hardware.nics.iter().map(HardwareNic::words);
            [hardware.words()].into_iter().chain(nics)
        });
        let said = seen.said.iter();
        let said = said.map(|said| format!("said by syslog (unproven): {said}"));
        let before = seen.restored.then(|| {
            "known from the daemon's log: it has not asked since the daemon was started, and says what it is when it does".to_owned()
        });
        let facts = before
            .into_iter()
            .chain(uuid)
            .chain([place])
            .chain(parts)
            .chain(said);
        facts.filter(|words| !words.is_empty()).collect()
    }

    /// What somebody should know before it becomes a host: a line each.
    pub fn warnings(&self) -> Vec<String> {
        let near = self.near.iter();
        let near = near.map(|near| format!("{near}: a typing mistake?"));
        let guest = self.r#virtual.iter();
        // By hand, where nothing is said.
        let by_itself = !matches!(self.policy.as_str(), "" | "hold" | "approve" | "ignore");
        let told = by_itself || self.nic_of.is_some();
        let verdict = told.then(|| format!("{}: {}", self.policy, self.verdict));
        let guest = guest.map(|why| format!("virtual: {why}"));
        near.chain(guest).chain(verdict).collect()
    }
}

impl Site {
    /// A machine asked for an address by this port; one that is not listed is remembered. `place` is an address of its
    /// network.
    pub fn discover(
        &self,
        request: &Request,
        client: &Client,
        place: Ipv4Addr,
        port: Option<SwitchPort>,
    ) {
        let snapshot = self.snapshot();
        let inventory = &snapshot.inventory;
        if !client.boots() || inventory.by_mac.contains_key(&client.mac) {
            return;
        }
        let mut networks = inventory.networks.values();
        let network = networks.find(|network| network.subnet.contains(&place));
        let name = network.map(|network| network.name.clone());
        let seen = Discovered::new(request, client, name, port, Timestamp::now());
        self.discovery.lock().saw(seen);
    }

    /// What is known of a machine that is not listed.
    pub fn stranger(&self, mac: MacAddr) -> Option<Discovered> {
        let mut machines = [self.discovery.machine(mac)?];
        self.plug_in(&mut machines);
        let [machine] = machines;
        Some(machine)
    }

    /// What the policy makes of a machine, where that lists machines by itself or it is the NIC of a host.
    pub(super) fn outlook(&self, mac: MacAddr, now: Timestamp) -> Option<Decision> {
        let machine = self.stranger(mac)?;
        let snapshot = self.snapshot();
        let unknown = snapshot.inventory.unknown_on(machine.network.as_deref());
        if !unknown.policy.enrols() && snapshot.inventory.nic(mac).is_none() {
            return None;
        }
        let nobody = Taken::default();
        let now_waits = self.verdict(&as_it_waits(&machine, now), &nobody, now);
        // One that says it is a host that lives is to be known for that also when it is silent.
        let once = match &now_waits {
            Decision::Wait(Because::NotHeld) => Some(self.verdict(&machine, &nobody, now)),
            _ => None,
        };
        let disputes = |decision: &Decision| match decision {
            Decision::Wait(because) => because.disputed().is_some(),
            Decision::Enrol(_) => false,
        };
        Some(once.filter(disputes).unwrap_or(now_waits))
    }

    /// Whether somebody asked in the machine's name by another port than its own.
    pub(super) fn is_disputed(&self, mac: MacAddr) -> bool {
        let now = self.journal.clock().now();
        let leases = self.leases();
        let known = leases.plugged_in(mac, now);
        known.is_some_and(|known| known.disputed_by().is_some())
    }

    /// Where they are plugged in, of those that hold a lease: that is kept with it, also over a restart.
    fn plug_in(&self, machines: &mut [Discovered]) {
        let now = self.journal.clock().now();
        let leases = self.leases();
        for machine in machines {
            if let Some(known) = leases.plugged_in(machine.mac, now) {
                machine.is_plugged_in(known);
            }
        }
    }

    /// Hosts that were never heard of and have a MAC one slip away: of hosts that came, and were bought together with
    /// the machine, the MACs are as near.
    pub(super) fn near(&self, mac: MacAddr, inventory: &Inventory) -> Vec<NearMiss> {
        let mut near = near_misses(mac, &inventory.by_mac);
        near.retain(|near| self.timeline.read(|machines| near.is_awaited(machines)));
        near
    }

    /// How a machine waits that was told to, if its newest boot came so far.
    pub(super) fn wait_of(
        &self,
        mac: MacAddr,
        stage: Option<&str>,
        now: Timestamp,
    ) -> Option<Wait> {
        Wait::of(&self.discovery.machine(mac)?, stage, now)
    }

    /// Adds who it is to what is known of each.
    pub(super) fn describe(&self, machines: &mut [MachineStatus], now: Timestamp) {
        for machine in machines {
            let mac = MachineId(machine.host.clone()).unlisted_mac();
            let Some(found) = mac.and_then(|mac| self.stranger(mac)) else {
                continue;
            };
            if let Some(wait) = Wait::of(&found, machine.stage.as_deref(), now) {
                wait.tell(machine);
            }
            let port = found.port.iter().map(|port| format!("at {port}"));
            let words: Vec<_> = Some(found.identity.words())
                .into_iter()
                .filter(|words| !words.is_empty())
                .chain(port)
                .collect();
            if !words.is_empty() {
                machine.note += &format!(" ({})", words.join("; "));
            }
        }
    }

    /// Machines that boot and are not listed.
    pub fn discovered(&self, now: Timestamp) -> DiscoveredList {
        let snapshot = self.snapshot();
        let inventory = &snapshot.inventory;
        // Thousands of machines, and as many hosts.
        let free = self.next_free_hosts(&snapshot, now);
        let by_mac = &inventory.by_mac;
        let verdict = |seen: &Discovered| {
            let machine = as_it_waits(seen, now);
            self.verdict_on(&snapshot, &free, &machine, now).to_string()
        };
        let status = |seen: Discovered| DiscoveredStatus {
            waiting: seen.held.is_some_and(|held| waits(held, now)),
            r#virtual: seen.virtual_because(),
            policy: inventory
                .unknown_on(seen.network.as_deref())
                .policy
                .to_string(),
            verdict: verdict(&seen),
            nic_of: inventory.nic(seen.mac).map(|(host, _)| host.name.clone()),
            near: self
                .near(seen.mac, inventory)
                .iter()
                .map(NearMiss::to_string)
                .collect(),
            seen,
        };
        let mut seen: Vec<Discovered> = {
            let mut known = self.discovery.lock();
            known.retain(|mac| !by_mac.contains_key(&mac));
            known.list().into_iter().cloned().collect()
        };
        self.plug_in(&mut seen);
        DiscoveredList {
            schema: SCHEMA,
            // DHCP need not wait for near misses to be sought.
            machines: seen.into_iter().map(status).collect(),
            own: self.own().all.clone(),
        }
    }
}

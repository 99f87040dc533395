//! Machines that boot from the network and that nobody listed.

mod guest;
mod hardware;
mod identity;
mod weight;

use std::collections::HashMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::hardware::{Hardware, HardwareNic, Neighbour};
pub use self::identity::Identity;
pub(crate) use self::identity::text;
use self::identity::{reported, uuid};
use crate::inventory::model::{Firmware, MacAddr};
use crate::policy::architecture::Architecture;
use crate::policy::client::Client;
use crate::policy::event::MachineId;
use crate::policy::switch_port::{PluggedIn, SwitchPort};
use crate::wire::dhcp::Request;

/// Machines remembered at most: anybody on the wire can be thousands.
const MOST: usize = 4096;
/// What all of them may take together, bytes: each may say some 20 KiB of itself, and a server says less than two.
const MOST_BYTES: usize = 24 << 20;
/// One that was told to wait so recently goes for none that was not, seconds.
const KEEPS_S: i64 = 300;
/// Inventory boots in a row that come to nothing before the machine waits at its loader instead.
const MOST_TRIES: u32 = 3;
/// How long after the last of them it is tried again, seconds.
const TRIES_AGAIN_S: i64 = 3600;

/// A machine that is not listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// The MAC that it boots from.
    pub mac: MacAddr,
    /// The network that it asks on.
    pub network: Option<String>,
    /// What it says that it runs (option 93), in words.
    pub architecture: String,
    /// What it says of itself.
    #[serde(flatten)]
    pub identity: Identity,
    /// The relay that it was heard by.
    pub relay: Option<Ipv4Addr>,
    /// The port that the relay heard it on.
    pub port: Option<String>,
    /// That port alone: option 82's circuit ID.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub circuit_id: Option<String>,
    /// Who the relay or switch is: option 82's remote ID.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remote_id: Option<String>,
    /// Another port that packets in its name come by, while it holds a lease by that one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub elsewhere: Option<String>,
    /// When it was first heard.
    pub first_seen: Timestamp,
    /// When it was last heard.
    pub last_seen: Timestamp,
    /// How often it asked for an address.
    pub discovers: u64,
    /// When it was last told to wait: only a machine with the address that it was given is.
    pub held: Option<Timestamp>,
    /// What its inventory boot found.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hardware: Option<Hardware>,
    /// What last came from its address by syslog; anybody who can forge that can have sent it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub said: Option<String>,
    /// It is known from what is on the disk alone, and has not asked since the daemon was started.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub restored: bool,
    /// What it can execute.
    #[serde(skip)]
    pub firmware: Option<Firmware>,
    /// Inventory boots of which nothing was heard yet, and when the last one began.
    #[serde(skip)]
    pub begun: Option<(u32, Timestamp)>,
}

impl Discovered {
    /// Of its DISCOVER, which came by this port.
    pub fn new(
        request: &Request,
        client: &Client,
        network: Option<String>,
        port: Option<SwitchPort>,
        now: Timestamp,
    ) -> Self {
        let mut machine = Self::seen(client.mac, network, client.architecture(), now);
        machine.identity.uuid = uuid(request, client.asker);
        machine.discovers = 1;
        machine.firmware = client.firmware;
        machine.plug_in(&port.unwrap_or_default());
        machine
    }

    /// Of which nothing is known but that it is there.
    pub(crate) fn seen(
        mac: MacAddr,
        network: Option<String>,
        architecture: String,
        now: Timestamp,
    ) -> Self {
        Self {
            mac,
            network,
            architecture,
            identity: Identity::default(),
            relay: None,
            port: None,
            circuit_id: None,
            remote_id: None,
            elsewhere: None,
            first_seen: now,
            last_seen: now,
            discovers: 0,
            held: None,
            hardware: None,
            said: None,
            restored: false,
            firmware: None,
            begun: None,
        }
    }

    fn plug_in(&mut self, port: &SwitchPort) {
        self.relay = port.relay;
        self.port = port.words();
        self.circuit_id.clone_from(&port.circuit_id);
        self.remote_id.clone_from(&port.remote_id);
    }

    /// Takes over where it is by its lease, which goes before any DISCOVER in its name.
    pub fn is_plugged_in(&mut self, known: &PluggedIn) {
        self.plug_in(&known.at);
        self.elsewhere = known.disputed_by().map(SwitchPort::name);
    }

    /// Of what its inventory boot says, where its DISCOVER was heard by a daemon that ran before.
    pub fn of_report(mac: MacAddr, network: Option<String>, report: &str, now: Timestamp) -> Self {
        let machine = reported(report, "machine").unwrap_or_else(|| "unknown".into());
        let firmware = match reported(report, "firmware").as_deref() {
            Some("uefi") => "UEFI",
            _ => "BIOS",
        };
        let mut known = Self::seen(mac, network, format!("{firmware} {machine}"), now);
        known.held = Some(now);
        known
    }

    /// It asks for an address again. Its loader's word on its UUID goes before its packet's.
    fn asks_again(&mut self, seen: Self) {
        let uuid = self.identity.uuid.take().or(seen.identity.uuid);
        *self = Self {
            identity: Identity {
                uuid,
                ..std::mem::take(&mut self.identity)
            },
            first_seen: self.first_seen,
            discovers: self.discovers.saturating_add(1),
            held: self.held,
            hardware: self.hardware.take(),
            said: self.said.take(),
            begun: self.begun,
            ..seen
        };
    }

    /// Begins an inventory boot with this kernel; or why none is begun.
    fn begin_inventory(
        &mut self,
        of: Option<Architecture>,
        kernel: &str,
        now: Timestamp,
    ) -> Result<(), String> {
        if let (Some(of), Some(firmware)) = (of, self.firmware)
            && !of.runs_on(firmware)
        {
            return Err(format!(
                "no inventory boot: kernel {kernel} is for {of}, and the machine is {firmware}; it waits at its loader"
            ));
        }
        let recent = |(_, at): &(u32, Timestamp)| now.as_second() - at.as_second() < TRIES_AGAIN_S;
        let (tries, last) = self.begun.filter(recent).unwrap_or((0, now));
        if tries >= MOST_TRIES {
            // Its age counts from the last try on.
            self.begun = Some((tries, last));
            return Err(format!(
                "no inventory boot: {tries} in a row came to nothing (see its console and `bridgehead log {}`); it waits at its loader, and is tried again an hour after the last",
                MachineId::unlisted(self.mac)
            ));
        }
        self.begun = Some((tries + 1, now));
        Ok(())
    }

    /// The switch port that the NIC which it boots from is plugged into, by LLDP.
    pub fn neighbour(&self) -> Option<&Neighbour> {
        let nic = self.hardware.as_ref()?.nic(self.mac)?;
        nic.neighbour.as_ref()
    }
}

/// Those that were heard, within bounds; in memory alone, as each that waits is heard again within half a minute.
#[derive(Debug, Default)]
pub struct Discoveries {
    machines: HashMap<MacAddr, Discovered>,
    /// What they take, bytes.
    weight: usize,
}

impl Discoveries {
    /// A machine asked for an address.
    pub fn saw(&mut self, seen: Discovered) {
        let (mac, now) = (seen.mac, seen.last_seen);
        if self.machines.contains_key(&mac) {
            self.learn(mac, |known| known.asks_again(seen));
        } else if self.machines.len() < MOST || self.makes_room(now) {
            self.weight += seen.weight();
            self.machines.insert(mac, seen);
            self.bound(mac);
        }
    }

    /// More is known of a machine; false where it is not one of them.
    fn learn(&mut self, mac: MacAddr, learn: impl FnOnce(&mut Discovered)) -> bool {
        let Some(known) = self.machines.get_mut(&mac) else {
            return false;
        };
        self.weight -= known.weight();
        learn(known);
        self.weight += known.weight();
        self.bound(mac);
        true
    }

    /// Makes room for what is known of a machine by now; where each of the others waits, it is that one which is
    /// forgotten, and known when it asks again.
    fn bound(&mut self, mac: MacAddr) {
        while self.weight > MOST_BYTES {
            let now = self.machines.get(&mac).map(|known| known.last_seen);
            if !now.is_some_and(|now| self.makes_room(now)) && !self.forget(mac) {
                return;
            }
        }
    }

    fn forget(&mut self, mac: MacAddr) -> bool {
        let gone = self.machines.remove(&mac);
        self.weight -= gone.as_ref().map_or(0, Discovered::weight);
        gone.is_some()
    }

    /// A machine that was known to a daemon that ran before; who asked this one says more.
    pub fn restore(&mut self, seen: Discovered) {
        let mac = seen.mac;
        if self.machines.len() < MOST && !self.machines.contains_key(&mac) {
            self.weight += seen.weight();
            self.machines.insert(mac, seen);
            self.bound(mac);
        }
    }

    /// A machine was told to wait, at the address that it was given.
    pub fn held(&mut self, mac: MacAddr, now: Timestamp) {
        if let Some(known) = self.machines.get_mut(&mac) {
            known.last_seen = now;
            known.held = Some(now);
        }
    }

    /// What a machine that waits says of itself.
    pub fn told(&mut self, mac: MacAddr, said: Identity) {
        self.learn(mac, |known| known.identity.learn(said));
    }

    /// Begins an inventory boot; or why there is none for this machine.
    ///
    /// # Errors
    /// In words, for the operator.
    pub fn begin_inventory(
        &mut self,
        mac: MacAddr,
        of: Option<Architecture>,
        kernel: &str,
        now: Timestamp,
    ) -> Result<(), String> {
        match self.machines.get_mut(&mac) {
            Some(known) => known.begin_inventory(of, kernel, now),
            None => Ok(()),
        }
    }

    /// What the inventory boot of a machine found; `seen` is for one that was not known.
    pub fn found(&mut self, seen: Discovered, said: Identity, hardware: Hardware) {
        let mac = seen.mac;
        if self.machines.get(&mac).is_none_or(|known| known.restored) {
            self.saw(seen);
        }
        self.learn(mac, |known| {
            known.identity.learn(said);
            known.hardware = Some(hardware);
            known.begun = None;
        });
    }

    /// What came from a machine's address by syslog; false where it is not one of them.
    pub fn heard(&mut self, mac: MacAddr, said: String) -> bool {
        self.learn(mac, |known| known.said = Some(said))
    }

    /// One of them.
    pub fn get(&self, mac: MacAddr) -> Option<&Discovered> {
        self.machines.get(&mac)
    }

    /// Every one, those that came first first.
    pub fn list(&self) -> Vec<&Discovered> {
        let mut list: Vec<_> = self.machines.values().collect();
        list.sort_by_key(|machine| (machine.first_seen, machine.mac));
        list
    }

    /// Those that were listed meanwhile are strangers no more.
    pub fn retain(&mut self, keep: impl Fn(MacAddr) -> bool) {
        self.machines.retain(|mac, _| keep(*mac));
        self.weight = self.machines.values().map(Discovered::weight).sum();
    }

    /// MACs that are made up never come as far as to be told to wait: they go first. Then the one that was silent
    /// longest, if it is long: false where each waits, and who comes asks again.
    fn makes_room(&mut self, now: Timestamp) -> bool {
        let machines = self.machines.values();
        let least = machines.min_by_key(|machine| (machine.held.is_some(), machine.last_seen));
        let waits = |held: Timestamp| now.as_second() - held.as_second() < KEEPS_S;
        let goes = least.filter(|machine| !machine.held.is_some_and(waits));
        let goes = goes.map(|machine| machine.mac);
        goes.is_some_and(|mac| self.forget(mac))
    }
}

#[cfg(test)]
mod tests;

//! Machines that boot from the network and that nobody listed.

mod hardware;

use std::collections::HashMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::hardware::{Hardware, HardwareNic, Neighbour};
use crate::inventory::model::{Firmware, MacAddr};
use crate::policy::architecture::Architecture;
use crate::policy::client::{Asker, Client};
use crate::policy::event::MachineId;
use crate::policy::switch_port::{PluggedIn, SwitchPort};
use crate::wire::dhcp::Request;
use crate::wire::text::is_shown;

/// Machines remembered at most: anybody on the wire can be thousands.
const MOST: usize = 4096;
/// One that was told to wait so recently goes for none that was not, seconds.
const KEEPS_S: i64 = 300;
/// Longest text that a machine says of itself, characters.
const LONGEST: usize = 64;
/// Inventory boots in a row that come to nothing before the machine waits at its loader instead.
const MOST_TRIES: u32 = 3;
/// How long after the last of them it is tried again, seconds.
const TRIES_AGAIN_S: i64 = 3600;

/// What a machine says of itself. Whoever can boot can say anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// SMBIOS system UUID, as `dmidecode` shows it.
    pub uuid: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// What it is.
    pub product: Option<String>,
}

impl Identity {
    /// Of the query that our hold script for iPXE asks with.
    pub fn of_query(query: &str) -> Self {
        let value = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(found, _)| *found == key)?;
            text(&percent_decode_str(value).decode_utf8_lossy())
        };
        Self {
            uuid: value("uuid").and_then(|text| Some(Uuid::try_parse(&text).ok()?.to_string())),
            serial: value("serial"),
            manufacturer: value("manufacturer"),
            product: value("product"),
        }
    }

    /// Of what an inventory boot posts.
    pub fn of_report(report: &str) -> Self {
        let uuid = reported(report, "uuid");
        Self {
            uuid: uuid.and_then(|text| Some(Uuid::try_parse(&text).ok()?.to_string())),
            serial: reported(report, "serial"),
            manufacturer: reported(report, "manufacturer"),
            product: reported(report, "product"),
        }
    }

    /// Takes over what is said.
    fn learn(&mut self, said: Self) {
        self.uuid = said.uuid.or(self.uuid.take());
        self.serial = said.serial.or(self.serial.take());
        self.manufacturer = said.manufacturer.or(self.manufacturer.take());
        self.product = said.product.or(self.product.take());
    }

    /// Maker, product and serial number.
    pub fn words(&self) -> String {
        let kind = [&self.manufacturer, &self.product];
        let kind: Vec<_> = kind.into_iter().flatten().map(String::as_str).collect();
        let serial = self.serial.iter().map(|serial| format!("serial {serial}"));
        let parts: Vec<_> = Some(kind.join(" ")).into_iter().chain(serial).collect();
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(", ")
    }
}

/// The value of a `KEY=VALUE` line before the NICs.
fn reported(report: &str, key: &str) -> Option<String> {
    let pairs = report.lines().filter_map(|line| line.split_once('='));
    let mut pairs = pairs.take_while(|(found, _)| *found != "nic");
    let (_, value) = pairs.find(|(found, _)| *found == key)?;
    text(value)
}

/// One line of printable characters, or nothing.
pub(super) fn text(said: &str) -> Option<String> {
    let printable: String = said.chars().filter(|c| is_shown(*c)).collect();
    let short: String = printable.trim().chars().take(LONGEST).collect();
    (!short.is_empty()).then_some(short)
}

/// Option 97. iPXE has the octets in the order of the text (RFC 9562); firmware sends the SMBIOS table's, where the
/// first three fields have their low octet first (SMBIOS 3.7 §7.2.1).
fn uuid(request: &Request, asker: Asker) -> Option<String> {
    let octets = request.guid().filter(|octets| *octets != [0; 16])?;
    let uuid = match asker {
        Asker::Ipxe => Uuid::from_bytes(octets),
        _ => Uuid::from_bytes_le(octets),
    };
    Some(uuid.to_string())
}

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
        let identity = Identity {
            uuid: uuid(request, client.asker),
            ..Identity::default()
        };
        let mut machine = Self {
            mac: client.mac,
            network,
            architecture: client.architecture(),
            identity,
            relay: None,
            port: None,
            circuit_id: None,
            remote_id: None,
            elsewhere: None,
            first_seen: now,
            last_seen: now,
            discovers: 1,
            held: None,
            hardware: None,
            said: None,
            firmware: client.firmware,
            begun: None,
        };
        machine.plug_in(&port.unwrap_or_default());
        machine
    }

    fn plug_in(&mut self, port: &SwitchPort) {
        self.relay = port.relay;
        self.port = port.words();
        self.circuit_id.clone_from(&port.circuit_id);
        self.remote_id.clone_from(&port.remote_id);
    }

    /// Takes over where it is by its lease, which goes before any DISCOVER in its name; `now` is by the leases' clock.
    pub fn is_plugged_in(&mut self, known: &PluggedIn, now: Timestamp) {
        self.plug_in(known.now_at(now));
        self.elsewhere = known.disputed_by(now).map(SwitchPort::name);
    }

    /// Of what its inventory boot says, where its DISCOVER was heard by a daemon that ran before.
    pub fn of_report(mac: MacAddr, network: Option<String>, report: &str, now: Timestamp) -> Self {
        let machine = reported(report, "machine").unwrap_or_else(|| "unknown".into());
        let firmware = match reported(report, "firmware").as_deref() {
            Some("uefi") => "UEFI",
            _ => "BIOS",
        };
        Self {
            mac,
            network,
            architecture: format!("{firmware} {machine}"),
            identity: Identity::default(),
            relay: None,
            port: None,
            circuit_id: None,
            remote_id: None,
            elsewhere: None,
            first_seen: now,
            last_seen: now,
            discovers: 0,
            held: Some(now),
            hardware: None,
            said: None,
            firmware: None,
            begun: None,
        }
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

    /// Why it is taken for a virtual machine, if it is.
    pub fn virtual_because(&self) -> Option<String> {
        let maker = virtual_maker(self.mac);
        let said = self.identity.words();
        let platform = VIRTUAL_PLATFORMS.iter().find(|name| said.contains(**name));
        let local = self.mac.0[0] & 2 != 0;
        match (maker, platform) {
            (Some(maker), _) => Some(format!("{maker} gives its virtual machines such MACs")),
            (None, Some(_)) => Some(format!("it calls itself {said}")),
            // IEEE 802-2014 §8.4: the second bit of the first octet.
            (None, None) if local => {
                Some("its MAC is locally administered: no maker of NICs gave it".into())
            }
            (None, None) => None,
        }
    }
}

/// How hypervisors call themselves in SMBIOS.
const VIRTUAL_PLATFORMS: [&str; 8] = [
    "QEMU",
    "KVM",
    "VMware",
    "VirtualBox",
    "Virtual Machine",
    "Xen",
    "Bochs",
    "OpenStack",
];

/// Who numbers virtual NICs from this block.
fn virtual_maker(mac: MacAddr) -> Option<&'static str> {
    match mac.0 {
        [0x52, 0x54, 0x00, ..] => Some("QEMU/KVM"),
        [0x00, 0x16, 0x3e, ..] => Some("Xen"),
        [0x00, 0x0c, 0x29, ..] | [0x00, 0x50, 0x56, ..] | [0x00, 0x05, 0x69, ..] => Some("VMware"),
        [0x08, 0x00, 0x27, ..] => Some("VirtualBox"),
        [0x00, 0x15, 0x5d, ..] => Some("Hyper-V"),
        [0xbc, 0x24, 0x11, ..] => Some("Proxmox"),
        _ => None,
    }
}

/// Those that were heard, within bounds; in memory alone, as each that waits is heard again within half a minute.
#[derive(Debug, Default)]
pub struct Discoveries {
    machines: HashMap<MacAddr, Discovered>,
}

impl Discoveries {
    /// A machine asked for an address.
    pub fn saw(&mut self, seen: Discovered) {
        if let Some(known) = self.machines.get_mut(&seen.mac) {
            // Its loader's word on its UUID goes before its packet's.
            let uuid = known.identity.uuid.take().or(seen.identity.uuid);
            *known = Discovered {
                identity: Identity {
                    uuid,
                    ..std::mem::take(&mut known.identity)
                },
                first_seen: known.first_seen,
                discovers: known.discovers.saturating_add(1),
                held: known.held,
                hardware: known.hardware.take(),
                said: known.said.take(),
                begun: known.begun,
                ..seen
            };
            return;
        }
        if self.machines.len() < MOST || self.makes_room(seen.last_seen) {
            self.machines.insert(seen.mac, seen);
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
        if let Some(known) = self.machines.get_mut(&mac) {
            known.identity.learn(said);
        }
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
        if !self.machines.contains_key(&mac) {
            self.saw(seen);
        }
        if let Some(known) = self.machines.get_mut(&mac) {
            known.identity.learn(said);
            known.hardware = Some(hardware);
            known.begun = None;
        }
    }

    /// What came from a machine's address by syslog; false where it is not one of them.
    pub fn heard(&mut self, mac: MacAddr, said: String) -> bool {
        let known = self.machines.get_mut(&mac);
        known.map(|known| known.said = Some(said)).is_some()
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
    }

    /// MACs that are made up never come as far as to be told to wait: they go first. Then the one that was silent
    /// longest, if it is long: false where each waits, and who comes asks again.
    fn makes_room(&mut self, now: Timestamp) -> bool {
        let machines = self.machines.values();
        let least = machines.min_by_key(|machine| (machine.held.is_some(), machine.last_seen));
        let waits = |held: Timestamp| now.as_second() - held.as_second() < KEEPS_S;
        let goes = least.filter(|machine| !machine.held.is_some_and(waits));
        let goes = goes.map(|machine| machine.mac);
        goes.is_some_and(|mac| self.machines.remove(&mac).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn request(mac: [u8; 6], options: &[(u8, &[u8])]) -> Request {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[24..28].copy_from_slice(&[10, 88, 0, 254]);
        bytes[28..34].copy_from_slice(&mac);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend([53, 1, 1]);
        for (code, data) in options {
            bytes.extend([*code, u8::try_from(data.len()).unwrap()]);
            bytes.extend(*data);
        }
        bytes.push(255);
        Request::parse(&bytes).unwrap()
    }

    fn seen(mac: [u8; 6], options: &[(u8, &[u8])], second: i64) -> Discovered {
        let request = request(mac, options);
        let port = SwitchPort::heard(&request, false);
        Discovered::new(&request, &Client::of(&request), None, port, at(second))
    }

    const REAL: [u8; 6] = [0x3c, 0xec, 0xef, 0, 0, 1];
    const GUID: [u8; 17] = [
        0, 0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
        0xee, 0xff,
    ];

    #[test]
    fn a_uuid_is_shown_as_on_the_machine_whoever_sends_it() {
        let firmware = seen(REAL, &[(60, b"PXEClient"), (97, &GUID)], 1);
        let shown = Some("00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(firmware.identity.uuid.as_deref(), shown);
        let ipxe = seen(REAL, &[(77, b"iPXE"), (97, &GUID)], 1);
        let shown = Some("33221100-5544-7766-8899-aabbccddeeff");
        assert_eq!(ipxe.identity.uuid.as_deref(), shown);
        assert_eq!(seen(REAL, &[(97, &[0; 17])], 1).identity.uuid, None);
    }

    #[test]
    fn a_relays_port_is_told_in_words() {
        let port = |info: &[u8]| seen(REAL, &[(82, info)], 1).port.unwrap_or_default();
        assert_eq!(port(b"\x01\x07Gi1/0/3\x02\x05sw-r1"), "Gi1/0/3 of sw-r1");
        assert_eq!(
            port(b"\x01\x06\x00\x04\x00\x0a\x01\x03\x02\x08\x00\x06\x00\x11\x22\x33\x44\x55"),
            "VLAN 10 module 1 port 3 of 00:11:22:33:44:55"
        );
        assert_eq!(port(b"\x02\x06\x01\x04sw-2"), "a port of sw-2");
        assert_eq!(port(b"\x01\x03\x1b[m"), "1b:5b:6d");
        assert_eq!(port(b"\x01\x00"), "");
        let long = [&[1, 20][..], &[7; 20]].concat();
        assert_eq!(port(&long).chars().count(), 16 * 3);
    }

    #[test]
    fn what_a_machine_says_is_bounded_and_printable() {
        let said = Identity::of_query(
            "uuid=00112233-4455-6677-8899-AABBCCDDEEFF&serial=%1b%5b2JAB%0a12&manufacturer=Dell%20Inc.&product=&x&y=1",
        );
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(said.uuid.as_deref(), Some(uuid));
        assert_eq!(said.words(), "Dell Inc., serial [2JAB12");
        let long = Identity::of_query(&format!("serial={}&uuid=<b>", "é".repeat(4000)));
        assert_eq!(long.serial.unwrap().chars().count(), LONGEST);
        assert_eq!(long.uuid, None);
        assert_eq!(Identity::of_query("%&&=&serial"), Identity::default());
    }

    #[test]
    fn a_virtual_machine_is_told_by_its_mac_or_its_own_words() {
        let mut real = seen(REAL, &[], 1);
        assert_eq!(real.virtual_because(), None);
        for mac in [
            [0x52, 0x54, 0, 1, 2, 3],
            [0x00, 0x16, 0x3e, 1, 2, 3],
            [0x00, 0x0c, 0x29, 1, 2, 3],
            [0x00, 0x50, 0x56, 1, 2, 3],
            [0x08, 0x00, 0x27, 1, 2, 3],
            [0x00, 0x15, 0x5d, 1, 2, 3],
            [0xfa, 0x16, 0x3e, 1, 2, 3],
        ] {
            assert!(seen(mac, &[], 1).virtual_because().is_some(), "{mac:?}");
        }
        real.identity.manufacturer = Some("QEMU".into());
        assert_eq!(
            real.virtual_because().as_deref(),
            Some("it calls itself QEMU")
        );
    }

    #[test]
    fn what_is_known_of_a_machine_stays_as_it_asks_again() {
        let mut known = Discoveries::default();
        known.saw(seen(REAL, &[(60, b"PXEClient"), (97, &GUID)], 1));
        known.held(MacAddr(REAL), at(2));
        known.told(MacAddr(REAL), Identity::of_query("serial=A1"));
        let again = seen(REAL, &[], 2);
        known.found(
            again,
            Identity::of_report("serial=A1\n"),
            Hardware::of_report("cpus=2\n"),
        );
        known.saw(seen(REAL, &[(77, b"iPXE")], 3));
        let machine = known.get(MacAddr(REAL)).unwrap();
        assert_eq!(machine.identity.serial.as_deref(), Some("A1"));
        assert!(machine.identity.uuid.is_some());
        assert_eq!(machine.hardware.as_ref().unwrap().cpus, 2);
        assert_eq!((machine.discovers, machine.held), (2, Some(at(2))));
        assert_eq!((machine.first_seen, machine.last_seen), (at(1), at(3)));
    }

    #[test]
    fn inventory_boots_that_come_to_nothing_end_at_the_loader() {
        let mut known = Discoveries::default();
        let mac = MacAddr(REAL);
        known.saw(seen(REAL, &[(60, b"PXEClient"), (93, &[0, 7])], 1));
        let mut begin = |second, of| known.begin_inventory(mac, Some(of), "debian", at(second));
        let other = begin(2, Architecture::Arm64).unwrap_err();
        assert!(other.contains("kernel debian is for arm64"), "{other}");
        for second in [10, 200, 400] {
            assert_eq!(begin(second, Architecture::X86), Ok(()));
        }
        let held = begin(600, Architecture::X86).unwrap_err();
        assert!(held.contains("3 in a row came to nothing"), "{held}");
        assert!(begin(3999, Architecture::X86).is_err());
        assert_eq!(begin(4000, Architecture::X86), Ok(()));
        // A restarted daemon has heard no DISCOVER of it, and one that came through is not held against it.
        known.retain(|_| false);
        let report = "machine=x86_64\nfirmware=uefi\nserial=A1\nnic=eth0\nserial=B2\n";
        let seen = Discovered::of_report(mac, None, report, at(5000));
        known.found(
            seen,
            Identity::of_report(report),
            Hardware::of_report(report),
        );
        let machine = known.get(mac).unwrap();
        assert_eq!(machine.identity.serial.as_deref(), Some("A1"));
        assert_eq!(machine.architecture, "UEFI x86_64");
        assert_eq!(machine.begun, None);
    }

    #[test]
    fn a_flood_of_made_up_macs_does_not_push_out_one_that_waits() {
        let mut known = Discoveries::default();
        known.saw(seen(REAL, &[], 1));
        known.held(MacAddr(REAL), at(1));
        for second in 2..9000_i64 {
            let [.., a, b] = second.to_be_bytes();
            known.saw(seen([0, 1, 2, 3, a, b], &[], second));
        }
        assert_eq!(known.list().len(), MOST);
        assert!(known.get(MacAddr(REAL)).is_some());
        known.retain(|mac| mac != MacAddr(REAL));
        assert!(known.get(MacAddr(REAL)).is_none());
        // Where thousands wait, one more waits for its turn, and takes that of one that is gone.
        known.retain(|_| false);
        let waits = |n: usize| [0x3c, 0xec, 0xef, 1, (n >> 8) as u8, n as u8];
        for n in 0..MOST {
            known.saw(seen(waits(n), &[], 1));
            known.held(MacAddr(waits(n)), at(if n == 7 { 1 } else { 200 }));
        }
        known.saw(seen(REAL, &[], 300));
        assert!(known.get(MacAddr(REAL)).is_none());
        known.saw(seen(REAL, &[], 301));
        assert!(known.get(MacAddr(REAL)).is_some());
        assert!(known.get(MacAddr(waits(7))).is_none());
        assert_eq!(known.list().len(), MOST);
    }
}

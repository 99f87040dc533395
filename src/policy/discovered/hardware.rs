//! What a machine is made of, as its inventory boot found it. Whoever can boot can say anything.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text;
use crate::inventory::model::MacAddr;
use crate::wire::lldp::Lldpdu;

/// What a machine is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Memory that its kernel found, MiB; the firmware keeps some for itself.
    pub memory_mib: u64,
    /// Logical processors.
    pub cpus: u32,
    /// What the processors call themselves.
    pub cpu_model: Option<String>,
    /// Ethernet NICs, in PCI order.
    pub nics: Vec<HardwareNic>,
}

/// One Ethernet NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareNic {
    /// The kernel's name for it.
    pub name: String,
    /// Its permanent address.
    pub mac: MacAddr,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// Of the link, Mb/s.
    pub speed_mbps: Option<u32>,
    /// Whether it has a carrier.
    pub link: bool,
    /// Who is at the other end of its cable, by LLDP. A guest on the wire can forge it.
    pub neighbour: Option<Neighbour>,
    /// Why nobody could be heard there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lldp_error: Option<String>,
}

/// The switch and its port that a NIC is plugged into, as the switch says by LLDP (IEEE 802.1AB).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The switch: its name, or its chassis ID.
    pub switch: String,
    /// The port's ID.
    pub port: String,
    /// What the switch's operator calls the port.
    pub port_description: Option<String>,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.port, self.switch)?;
        match &self.port_description {
            Some(words) if *words != self.port => write!(f, " ({words})"),
            _ => Ok(()),
        }
    }
}

impl Neighbour {
    /// Of the frame that was heard, as hexadecimal digits behind its `EtherType`.
    fn of_frame(hex: &str) -> Option<Self> {
        let pairs = hex.as_bytes().chunks(2);
        let octet = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let octets: Option<Vec<u8>> = pairs.map(octet).collect();
        let said = Lldpdu::parse(&octets?).ok();
        let said = said.filter(|said| said.ttl_s > 0)?;
        let named = said.system_name.as_deref().and_then(text);
        Some(Self {
            switch: named.or_else(|| text(&said.chassis))?,
            port: text(&said.port)?,
            port_description: said.port_description.as_deref().and_then(text),
        })
    }
}

impl Hardware {
    /// Processors and memory.
    pub fn words(&self) -> String {
        let cpus = match self.cpus {
            0 => None,
            1 => Some("1 CPU".to_owned()),
            many => Some(format!("{many} CPUs")),
        };
        let model = self.cpu_model.as_ref().map(|model| format!(" ({model})"));
        let cpus = cpus.map(|cpus| cpus + &model.unwrap_or_default());
        let memory = (self.memory_mib > 0).then(|| memory(self.memory_mib));
        let parts: Vec<_> = cpus.into_iter().chain(memory).collect();
        parts.join(", ")
    }

    /// The NIC with this address.
    pub fn nic(&self, mac: MacAddr) -> Option<&HardwareNic> {
        self.nics.iter().find(|nic| nic.mac == mac)
    }
}

fn memory(mib: u64) -> String {
    match mib {
        0..=8191 => format!("{mib} MiB memory"),
        _ => format!("{} GiB memory", mib.div_ceil(1024)),
    }
}

impl HardwareNic {
    /// In words: `eth0 3c:ec:ef:00:00:07, ixgbe, 10000 Mb/s, at Gi1/0/3 of sw-r1`.
    pub fn words(&self) -> String {
        let link = match (self.link, self.speed_mbps) {
            (false, _) => "no link".to_owned(),
            (true, None) => "link".to_owned(),
            (true, Some(speed)) => format!("{speed} Mb/s"),
        };
        let at = self.neighbour.as_ref().map(|at| format!("at {at}"));
        let deaf = self.lldp_error.as_ref().filter(|_| self.link);
        let deaf = deaf.map(|why| format!("LLDP not heard: {why}"));
        let parts = self.driver.iter().cloned().chain([link]);
        let parts = parts.chain(at).chain(deaf);
        let parts: Vec<_> = parts.collect();
        format!("{} {}, {}", self.name, self.mac, parts.join(", "))
    }
}

/// NICs of one machine at most.
const MOST_NICS: usize = 32;
/// What they may take, bytes: 32 that hear a switch each take 12 KiB.
const MOST_BYTES: usize = 16 << 10;

impl Hardware {
    /// Of what the inventory boot posts: `KEY=VALUE` lines; each `nic=NAME` begins another NIC, and the lines after it
    /// are its own. What is not understood is passed over: a newer initrd may say more.
    pub fn of_report(report: &str) -> Self {
        let mut found = Self::default();
        let mut bare: Vec<BareNic<'_>> = Vec::new();
        for (key, value) in report.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "nic" if bare.len() == MOST_NICS => break,
                "nic" => bare.push(BareNic::named(value)),
                _ => match bare.last_mut() {
                    Some(nic) => nic.learn(key, value),
                    None => found.learn(key, value),
                },
            }
        }
        let mut weight = 0;
        let light = |nic: &HardwareNic| {
            weight += nic.weight();
            weight <= MOST_BYTES
        };
        let nics = bare.into_iter().filter_map(BareNic::finish);
        found.nics = nics.take_while(light).collect();
        found
    }

    fn learn(&mut self, key: &str, value: &str) {
        match key {
            "memory_kib" => self.memory_mib = value.parse().map_or(0, |kib: u64| kib / 1024),
            "cpus" => self.cpus = value.parse().unwrap_or(0),
            "cpu_model" => self.cpu_model = text(value),
            _ => {}
        }
    }
}

/// A NIC whose lines are being read.
#[derive(Default)]
struct BareNic<'a> {
    name: &'a str,
    mac: Option<MacAddr>,
    driver: Option<String>,
    speed_mbps: Option<u32>,
    link: bool,
    neighbour: Option<Neighbour>,
    lldp_error: Option<String>,
}

impl<'a> BareNic<'a> {
    fn named(name: &'a str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    fn learn(&mut self, key: &str, value: &str) {
        match key {
            "mac" => self.mac = value.parse().ok(),
            "driver" => self.driver = text(value),
            // The kernel says -1 or 4294967295 where it does not know.
            "speed" => self.speed_mbps = value.parse().ok().filter(|s| (1..u32::MAX).contains(s)),
            "link" => self.link = value == "1",
            "lldp" => self.neighbour = Neighbour::of_frame(value),
            "lldp_error" => self.lldp_error = text(value),
            _ => {}
        }
    }

    /// One without a MAC is of no use to anybody.
    fn finish(self) -> Option<HardwareNic> {
        Some(HardwareNic {
            name: text(self.name)?,
            mac: self.mac?,
            driver: self.driver,
            speed_mbps: self.speed_mbps,
            link: self.link,
            neighbour: self.neighbour,
            lldp_error: self.lldp_error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "memory_kib=263842816\ncpus=64\ncpu_model=AMD EPYC 7543 32-Core Processor\nserial=JAB12\n\
        nic=eth0\nmac=3c:ec:ef:00:00:07\ndriver=ixgbe\nspeed=10000\nlink=1\n\
        nic=eth1\nmac=3c:ec:ef:00:00:08\nspeed=-1\nlink=0\nnic=eth2\nmac=none\n";

    #[test]
    fn a_report_is_read_by_key() {
        let found = Hardware::of_report(REPORT);
        assert_eq!(
            found.words(),
            "64 CPUs (AMD EPYC 7543 32-Core Processor), 252 GiB memory"
        );
        let nics: Vec<_> = found.nics.iter().map(HardwareNic::words).collect();
        assert_eq!(
            nics,
            [
                "eth0 3c:ec:ef:00:00:07, ixgbe, 10000 Mb/s",
                "eth1 3c:ec:ef:00:00:08, no link"
            ]
        );
        let mac = "3c:ec:ef:00:00:08".parse().unwrap();
        assert_eq!(found.nic(mac).unwrap().name, "eth1");
    }

    #[test]
    fn the_switch_port_is_read_from_the_frame() {
        let heard = |hex: &str| {
            let report = format!("nic=eth0\nmac=02:00:00:00:00:01\nlink=1\nlldp={hex}\n");
            Hardware::of_report(&report).nics.remove(0).words()
        };
        let minimal = "0206050 10a4d00fe 0403073432 06020078".replace(' ', "");
        assert_eq!(
            heard(&minimal),
            "eth0 02:00:00:00:00:01, link, at 42 of 10.77.0.254"
        );
        let named = minimal + "0a0473772d31" + "08036765" + "33";
        assert_eq!(
            heard(&named),
            "eth0 02:00:00:00:00:01, link, at 42 of sw-1 (ge3)"
        );
        let leaves = "020605010a4d00fe 0403073432 06020000".replace(' ', "");
        for bad in ["", "0", "zz", "+1", "0206é", &leaves] {
            assert_eq!(heard(bad), "eth0 02:00:00:00:00:01, link", "{bad}");
        }
    }

    #[test]
    fn a_nic_with_a_link_says_why_nobody_is_heard() {
        let words = |link: &str| {
            let report = format!(
                "nic=eth0\nmac=02:00:00:00:00:01\nlink={link}\nlldp=\nlldp_error=ENODEV: No such device\n"
            );
            Hardware::of_report(&report).nics.remove(0).words()
        };
        assert_eq!(
            words("1"),
            "eth0 02:00:00:00:00:01, link, LLDP not heard: ENODEV: No such device"
        );
        assert_eq!(words("0"), "eth0 02:00:00:00:00:01, no link");
    }

    #[test]
    fn hostile_reports_are_bounded_and_printable() {
        let many: String = (0..1000)
            .map(|n| {
                format!(
                    "nic=\u{1b}[2J{n}\nmac=02:00:00:00:{:02x}:{:02x}\n",
                    n / 256,
                    n % 256
                )
            })
            .collect();
        let found = Hardware::of_report(&format!("cpu_model={}\n{many}", "x".repeat(9999)));
        assert_eq!(found.nics.len(), MOST_NICS);
        assert_eq!(
            found.cpu_model.unwrap().len(),
            super::super::identity::LONGEST
        );
        assert_eq!(found.nics[0].name, "[2J0");
        assert_eq!(
            Hardware::of_report("=\n\ncpus=-1\nmemory_kib=1e9\n"),
            Hardware::default()
        );
        assert_eq!(Hardware::default().words(), "");
    }
}

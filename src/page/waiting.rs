//! Machines that wait to be made hosts, and the form that makes one of them a host.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PageError, render};
use crate::inventory::model::{Host, Inventory, MacAddr};
use crate::policy::discovered::Discovered;
use crate::policy::enrol::expected;
use crate::policy::event::MachineId;
use crate::site::discovery::DiscoveredStatus;
use crate::span::span;

/// Machines that are shown; a flood of them is for `discover list`.
const SHOWN: usize = 50;

/// One that waits.
#[derive(Debug, Serialize)]
pub(super) struct Stranger {
    mac: String,
    /// Its name in events, by which the script finds it.
    id: String,
    who: String,
    facts: Vec<String>,
    warnings: Vec<String>,
    is_virtual: bool,
    age: String,
    since_ms: i64,
    /// Whether it may be approved here.
    open: bool,
}

/// Those that are shown, and how many are not.
#[derive(Debug, Default, Serialize)]
pub struct Waiting {
    shown: Vec<Stranger>,
    more: usize,
}

impl Waiting {
    /// Of all that were discovered; `is_open` says of whom something may be changed over the network.
    pub fn new(
        machines: &[DiscoveredStatus],
        is_open: impl Fn(&DiscoveredStatus) -> bool,
        now: Timestamp,
    ) -> Self {
        let waiting: Vec<_> = machines.iter().filter(|machine| machine.waiting).collect();
        let stranger = |machine: &&DiscoveredStatus| Stranger::new(machine, is_open(machine), now);
        Self {
            shown: waiting.iter().take(SHOWN).map(stranger).collect(),
            more: waiting.len().saturating_sub(SHOWN),
        }
    }

    /// Whether it is shown here, and need not be elsewhere.
    pub(super) fn shows(&self, id: &str) -> bool {
        self.shown.iter().any(|stranger| stranger.id == id)
    }
}

impl Stranger {
    fn new(machine: &DiscoveredStatus, open: bool, now: Timestamp) -> Self {
        let seen = &machine.seen;
        let who = [seen.identity.words(), seen.architecture.clone()];
        let who = who.into_iter().filter(|words| !words.is_empty());
        let first = seen.first_seen;
        let network = seen.network.iter().map(|name| format!("network {name}"));
        Self {
            mac: seen.mac.to_string(),
            id: MachineId::unlisted(seen.mac).0,
            who: who.collect::<Vec<_>>().join("; "),
            facts: network.chain(machine.facts()).collect(),
            warnings: machine.warnings(),
            is_virtual: machine.r#virtual.is_some(),
            age: span((now.as_second() - first.as_second()).max(0)),
            since_ms: first.as_millisecond(),
            open,
        }
    }
}

/// What was typed into the form, as it was typed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Typed {
    /// The host's name.
    #[serde(default)]
    pub name: String,
    /// Its profile, or nothing for a host that is listed.
    #[serde(default)]
    pub profile: String,
    /// Its address, or nothing.
    #[serde(default)]
    pub ip: String,
    /// Its rack, or nothing.
    #[serde(default)]
    pub rack: String,
    /// Its unit, or nothing.
    #[serde(default)]
    pub unit: String,
    /// Anything: it may be a virtual machine.
    #[serde(default)]
    pub r#virtual: String,
}

impl Typed {
    /// What is likely to be meant: the listed host that waits for it, or the next name, and what most hosts boot.
    pub fn suggestion(inventory: &Inventory, machine: &Discovered) -> Self {
        match expected(inventory, machine) {
            Some(host) => Self {
                name: host.name.clone(),
                ..Self::default()
            },
            None => Self::of_a_new_one(inventory),
        }
    }

    fn of_a_new_one(inventory: &Inventory) -> Self {
        let mut profiles: BTreeMap<&str, usize> = BTreeMap::new();
        for host in inventory.hosts.values() {
            *profiles.entry(base(host)).or_default() += 1;
        }
        let most = profiles.into_iter().max_by_key(|(_, number)| *number);
        Self {
            name: next_name(inventory).unwrap_or_default(),
            profile: most.map(|(name, _)| name.to_owned()).unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// The profile as it is called in `profiles:`.
fn base(host: &Host) -> &str {
    &host.profile.name
}

/// The name after the highest of those that most hosts' names are like: `kvm08` after `kvm07`.
fn next_name(inventory: &Inventory) -> Option<String> {
    let mut kinds: BTreeMap<&str, (usize, u64, usize)> = BTreeMap::new();
    for name in inventory.hosts.keys() {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[stem.len()..];
        if let Ok(number) = digits.parse::<u64>() {
            let (hosts, highest, width) = kinds.entry(stem).or_insert((0, 0, usize::MAX));
            (*hosts, *highest) = (*hosts + 1, number.max(*highest));
            *width = digits.len().min(*width);
        }
    }
    let most = kinds.into_iter().max_by_key(|(_, (hosts, ..))| *hosts);
    let (stem, (_, highest, width)) = most?;
    Some(format!("{stem}{:0width$}", highest.checked_add(1)?))
}

#[derive(Debug, Serialize)]
struct FormView<'a> {
    site: &'a str,
    machine: Stranger,
    typed: &'a Typed,
    profiles: Vec<&'a str>,
    racks: BTreeSet<&'a str>,
    /// Hosts that wait for their hardware.
    awaited: Vec<&'a str>,
    refused: Option<&'a str>,
}

/// The form for a machine, where it is `open` to whoever asks; `refused` says why it is not, or the last try was.
///
/// # Errors
/// [`PageError`] where the template is broken.
pub fn form(
    inventory: &Inventory,
    machine: &DiscoveredStatus,
    open: bool,
    typed: &Typed,
    refused: Option<&str>,
    now: Timestamp,
) -> Result<String, PageError> {
    let racks = inventory.hosts.values();
    let awaited = racks.clone().filter(|host| host.waits_for_hardware());
    let view = FormView {
        site: &inventory.site,
        machine: Stranger::new(machine, open, now),
        typed,
        profiles: inventory.profiles.keys().map(String::as_str).collect(),
        racks: racks.filter_map(|host| host.rack.as_deref()).collect(),
        awaited: awaited.take(SHOWN).map(|host| &*host.name).collect(),
        refused,
    };
    render("approve.html", &view)
}

#[derive(Debug, Serialize)]
struct OutcomeView<'a> {
    site: &'a str,
    mac: MacAddr,
    /// Nothing while the host is not served yet.
    host: Option<HostView<'a>>,
    words: &'a str,
}

#[derive(Debug, Serialize)]
struct HostView<'a> {
    name: &'a str,
    ip: String,
    profile: &'a str,
    place: Option<String>,
}

/// What became of a machine that was made a host.
///
/// # Errors
/// [`PageError`] where the template is broken.
pub fn outcome(inventory: &Inventory, mac: MacAddr, words: &str) -> Result<String, PageError> {
    let host = inventory.by_mac.get(&mac).map(|host| HostView {
        name: &host.name,
        ip: host.ip.to_string(),
        profile: base(host),
        place: host.rack.as_ref().map(|rack| match host.unit {
            Some(unit) => format!("rack {rack}, unit {unit}"),
            None => format!("rack {rack}"),
        }),
    });
    let view = OutcomeView {
        site: &inventory.site,
        mac,
        host,
        words,
    };
    render("approved.html", &view)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(names: &[&str]) -> Inventory {
        let host = |(index, name): (usize, &&str)| {
            let (number, profile) = (index + 1, if index == 0 { "big" } else { "kvm" });
            format!(
                "  {name}: {{mac: \"52:54:00:00:00:{number:02x}\", ip: 10.77.0.{number}, profile: {profile}}}\n"
            )
        };
        let hosts: String = names.iter().enumerate().map(host).collect();
        let text = format!(
            "networks: {{boot: {{subnet: 10.77.0.0/24}}}}\nprofiles:\n  kvm: {{kernel: debian, initrd: default, root: {{nfs: /roots/kvm}}}}\n  big: {{extends: kvm}}\nhosts:\n{hosts}"
        );
        crate::inventory::parse("hosts.yaml", &text).unwrap().0
    }

    #[test]
    fn what_most_hosts_are_is_suggested() {
        let of = |names: &[&str]| Typed::of_a_new_one(&inventory(names)).name;
        assert_eq!(of(&["gate", "kvm01", "kvm07", "db1"]), "kvm08");
        assert_eq!(of(&["node9", "node10", "node-b"]), "node11");
        assert_eq!(of(&["kvm08", "kvm99"]), "kvm100");
        assert_eq!(of(&["kvm09"]), "kvm10");
        assert_eq!(of(&["gate"]), "");
        let typed = Typed::of_a_new_one(&inventory(&["a1", "a2", "a3"]));
        assert_eq!(typed.profile, "kvm");
    }

    /// LLDP, option 82, SMBIOS tables, the kernel's words, syslog: all of it is said by a stranger.
    #[test]
    fn nothing_that_a_stranger_says_is_markup() {
        let bad = r#"<script>alert(1)</script>"' onmouseover=x {{ site }}"#;
        let neighbour = serde_json::json!({"switch": bad, "port": bad, "port_description": bad});
        let nic = serde_json::json!({
            "name": bad, "mac": "3c:ec:ef:00:00:07", "driver": bad, "speed_mbps": 1000, "link": true,
            "neighbour": neighbour,
        });
        let machine: DiscoveredStatus = serde_json::from_value(serde_json::json!({
            "mac": "3c:ec:ef:00:00:07", "network": bad, "architecture": bad, "uuid": bad, "serial": bad,
            "manufacturer": bad, "product": bad, "relay": null, "port": bad, "circuit_id": bad, "remote_id": bad, "elsewhere": bad,
            "first_seen": "2026-11-22T02:20:00Z", "last_seen": "2026-11-22T02:20:30Z", "discovers": 2,
            "held": "2026-11-22T02:20:31Z", "said": bad, "waiting": true, "virtual": bad, "policy": "by-port",
            "verdict": bad, "near": [bad],
            "hardware": {"memory_mib": 1, "cpus": 1, "cpu_model": bad, "nics": [nic]},
        }))
        .unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let typed = Typed {
            name: bad.to_owned(),
            ip: bad.to_owned(),
            ..Typed::default()
        };
        let inventory = inventory(&["kvm01"]);
        let form = form(&inventory, &machine, true, &typed, Some(bad), now).unwrap();
        let waiting = Waiting::new(&[machine], |_| true, now);
        let page = crate::page::fleet(&Default::default(), waiting, "e-1", now).unwrap();
        for (html, least) in [(page, 15), (form, 17)] {
            assert!(!html.contains("<script>alert"), "{html}");
            assert!(!html.contains("\"' onmouseover"), "{html}");
            let told = html.matches("&lt;script&gt;alert").count();
            assert!(told >= least, "{told} in {html}");
        }
    }
}

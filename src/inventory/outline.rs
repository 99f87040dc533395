//! An inventory in outline, and what differs between two of them: what a reload changed, and what
//! an edit would change.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::layers::Setting;
use super::model::{Boots, Host, Inventory, MenuEntry};

/// Version of the JSON; a change that could break a reader makes it 2.
const SCHEMA: u32 = 1;
/// Keys of a host by which a machine on the wire is that host.
const IDENTITY: &[&str] = &["mac", "macs", "ip", "addresses."];

/// What one network, profile or host says: texts by key, several where a list adds up.
pub type Entries = BTreeMap<String, Vec<String>>;

/// All of an inventory in texts, without places: two that mean the same are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Version of this shape.
    pub schema: u32,
    /// What stands outside the sections.
    pub site: Entries,
    /// By name.
    pub networks: BTreeMap<String, Entries>,
    /// By name; what they inherit is their parents'.
    pub profiles: BTreeMap<String, Entries>,
    /// By name, ranges counted up; what they inherit is their profiles'.
    pub hosts: BTreeMap<String, Entries>,
    /// Profiles that the entries of a host's menu boot, by host.
    #[serde(default)]
    pub offered: BTreeMap<String, Vec<String>>,
    /// Boots under way: the attempt's id, by host. Only a daemon knows.
    #[serde(default)]
    pub under_way: BTreeMap<String, String>,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It says something else.
    Changed,
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its key.
    pub key: String,
    /// What it was; empty: it was not there.
    pub old: Vec<String>,
    /// What it is; empty: it is gone.
    pub new: Vec<String>,
}

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What became of it.
    pub fate: Fate,
    /// `site`, `network`, `profile` or `host`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What of it.
    pub values: Vec<Difference>,
    /// The hosts of a network or profile, which it concerns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// Everything that differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Version of this shape.
    pub schema: u32,
    /// Each entry, sorted by kind and name.
    pub changes: Vec<Change>,
    /// Hosts that it concerns and that are booting: to them it applies at their next boot.
    pub under_way: BTreeMap<String, String>,
    /// Of these, those that are removed or known by another MAC or address: the boot is not waited for.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub ended: BTreeSet<String>,
}

impl Inventory {
    /// The inventory in outline.
    pub fn outline(&self) -> Outline {
        let section = |layers: &BTreeMap<String, super::layers::Layer>| {
            let entries = layers.iter();
            entries
                .map(|(name, layer)| (name.clone(), entries_of(layer)))
                .collect()
        };
        Outline {
            schema: SCHEMA,
            site: entries_of(&self.written.top),
            networks: section(&self.written.networks),
            profiles: section(&self.written.profiles),
            hosts: self.host_entries(),
            offered: self.offered(),
            under_way: BTreeMap::new(),
        }
    }

    fn offered(&self) -> BTreeMap<String, Vec<String>> {
        let profile = |entry: &MenuEntry| match &entry.boots {
            Boots::Profile(profile) => Some(profile.name.clone()),
            Boots::LocalDisk | Boots::Kernel { .. } => None,
        };
        let of = |host: &Arc<Host>| {
            let menu = host.profile.menu.as_ref()?;
            let profiles = menu.entries.iter().filter_map(profile).collect();
            Some((host.name.clone(), profiles))
        };
        self.hosts.values().filter_map(of).collect()
    }

    fn host_entries(&self) -> BTreeMap<String, Entries> {
        let mut hosts = BTreeMap::new();
        for (name, host) in &self.hosts {
            let mut entries = Entries::new();
            for value in self.own_values(host) {
                entries.entry(value.key).or_default().push(value.value);
            }
            let layer = self.written.hosts.get(name).into_iter();
            for (key, values) in layer.flat_map(|layer| entries_of(layer)) {
                // Counted up above.
                if !matches!(&*key, "mac" | "macs" | "serial" | "serials") {
                    entries.entry(key).or_insert(values);
                }
            }
            hosts.insert(name.clone(), entries);
        }
        hosts
    }
}

fn entries_of(layer: &[Setting]) -> Entries {
    let mut entries = Entries::new();
    for setting in layer {
        let values = entries.entry(setting.key.clone()).or_default();
        values.push(setting.value.clone());
    }
    entries
}

impl Outline {
    /// What differs in `new`.
    pub fn changes(&self, new: &Self) -> Changes {
        let mut changes: Vec<Change> = difference_of(&self.site, &new.site)
            .into_iter()
            .map(|value| Change {
                fate: Fate::Changed,
                kind: "site",
                name: value.key.clone(),
                values: vec![value],
                hosts: Vec::new(),
            })
            .collect();
        changes.extend(compare("network", &self.networks, &new.networks));
        changes.extend(compare("profile", &self.profiles, &new.profiles));
        changes.extend(compare("host", &self.hosts, &new.hosts));
        for change in &mut changes {
            change.hosts = new.hosts_of(change.kind, &change.name);
        }
        let mut changes = Changes {
            schema: SCHEMA,
            changes,
            ..Changes::default()
        };
        changes.meet(&self.under_way);
        changes
    }

    /// The hosts that a network or profile concerns.
    fn hosts_of(&self, kind: &str, name: &str) -> Vec<String> {
        if !matches!(kind, "network" | "profile") {
            return Vec::new();
        }
        let offers = |host: &String| {
            let mut profiles = self.offered.get(host).into_iter().flatten();
            profiles.any(|profile| self.extends(Some(profile), name))
        };
        let concerned = |(host, entries): &(&String, &Entries)| match kind {
            "network" => first(entries, "network") == Some(name),
            _ => self.extends(first(entries, "profile"), name) || offers(host),
        };
        let hosts = self.hosts.iter().filter(concerned);
        hosts.map(|(host, _)| host.clone()).collect()
    }

    /// Whether a profile is another one, or extends it. Chains are short, and end: they are checked.
    fn extends(&self, profile: Option<&str>, name: &str) -> bool {
        let next = |profile: &&str| first(self.profiles.get(*profile)?, "extends");
        let mut chain = std::iter::successors(profile, next).take(32);
        chain.any(|profile| profile == name)
    }
}

impl Changes {
    /// Whether two inventories say the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Notes which of these boots they concern.
    pub fn meet(&mut self, under_way: &BTreeMap<String, String>) {
        let hosts = self.hosts();
        let met = under_way.iter().filter(|(host, _)| hosts.contains(host));
        let met: BTreeMap<_, _> = met.map(|(host, id)| (host.clone(), id.clone())).collect();
        let ended = self.changes.iter().filter(|change| change.ends_boots());
        let ended = ended.map(|change| change.name.clone());
        self.ended = ended.filter(|host| met.contains_key(host)).collect();
        self.under_way = met;
    }

    /// The hosts that they are of: their own lines, or their profile's or network's.
    pub fn hosts(&self) -> BTreeSet<&String> {
        let of = |change: &'_ Change| change.kind == "host";
        let own = self.changes.iter().filter(|change| of(change));
        let own = own.map(|change| &change.name);
        own.chain(self.changes.iter().flat_map(|change| &change.hosts))
            .collect()
    }

    /// Whether one of them may mean something to hosts that it does not name: to those that have an address in a
    /// network and boot from another.
    pub fn are_wide(&self) -> bool {
        let wide = |change: &Change| matches!(change.kind, "site" | "network");
        self.changes.iter().any(wide)
    }
}

fn first<'e>(entries: &'e Entries, key: &str) -> Option<&'e str> {
    entries.get(key)?.first().map(String::as_str)
}

type Section = BTreeMap<String, Entries>;

fn compare(kind: &'static str, old: &Section, new: &Section) -> Vec<Change> {
    let nothing = Entries::new();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| {
        let (before, after) = (old.get(name), new.get(name));
        let fate = match (before, after) {
            (None, _) => Fate::Added,
            (_, None) => Fate::Removed,
            (before, after) if before == after => return None,
            _ => Fate::Changed,
        };
        let (before, after) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
        Some(Change {
            fate,
            kind,
            name: name.clone(),
            values: difference_of(before, after),
            hosts: Vec::new(),
        })
    };
    names.into_iter().filter_map(change).collect()
}

fn difference_of(old: &Entries, new: &Entries) -> Vec<Difference> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let difference = |key: &String| {
        let of = |entries: &Entries| entries.get(key).cloned().unwrap_or_default();
        let (old, new) = (of(old), of(new));
        let key = key.clone();
        (old != new).then_some(Difference { key, old, new })
    };
    keys.into_iter().filter_map(difference).collect()
}

impl Change {
    /// Whether what is on the wire is no longer this host.
    fn ends_boots(&self) -> bool {
        let identity = |value: &Difference| {
            let key = value.key.as_str();
            IDENTITY.iter().any(|known| match known.ends_with('.') {
                true => key.starts_with(known),
                false => key == *known,
            })
        };
        let other = self.fate == Fate::Removed || self.values.iter().any(identity);
        self.kind == "host" && other
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::parse;
    use super::*;

    const OLD: &str = "\
networks: {boot: {subnet: 10.77.0.0/24}, other: {subnet: 10.78.0.0/24, dhcp: off}}
profiles:
  base: {kernel: debian, initrd: default, cmdline: [quiet]}
  kvm: {extends: base, root: {nfs: /roots/kvm}, rescue: {password: \"$6$a$b\"}}
hosts:
  n[1-3]: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm}
  x: {mac: \"52:54:00:00:01:01\", ip: 10.78.0.11, profile: kvm, loaders: {bios: a.pxe}}
";

    fn outline(text: &str) -> Outline {
        parse("hosts.yaml", text).unwrap().0.outline()
    }

    fn lines(new: &str) -> String {
        outline(OLD).changes(&outline(new)).lines(100)
    }

    #[test]
    fn comments_and_places_are_no_change() {
        let moved = format!("# moved\n{}", OLD.replace("n[1-3]: {mac", "n[1-3]: { mac"));
        assert_eq!(lines(&moved), "");
        let changes = outline(OLD).changes(&outline(&moved));
        assert_eq!(changes.summary(), "nothing changed");
    }

    #[test]
    fn a_profile_names_the_hosts_that_it_concerns() {
        let new = OLD
            .replace("debian", "edge")
            .replace("[quiet]", "[quiet, nosmt]");
        assert_eq!(
            lines(&new),
            "~ profile base cmdline: quiet -> quiet nosmt; kernel: debian -> edge  (n1, n2, n3, x)\n"
        );
        let new = OLD.replace("subnet: 10.78.0.0/24,", "subnet: 10.78.0.0/24, mtu: 9000,");
        assert_eq!(lines(&new), "~ network other mtu: 9000 (new)  (x)\n");
    }

    #[test]
    fn a_profile_concerns_who_has_it_in_a_menu() {
        let menu = OLD
            .replace("hosts:", "  rescue: {extends: kvm}\nhosts:")
            .replace(
                "loaders: {bios: a.pxe}",
                "menu: {default: a, entries: {a: {label: A}, b: {label: B, profile: rescue}}}",
            );
        let new = menu.replace(
            "rescue: {extends: kvm}",
            "rescue: {extends: kvm, cmdline: [single]}",
        );
        let changes = outline(&menu).changes(&outline(&new));
        assert_eq!(
            changes.lines(9),
            "~ profile rescue cmdline: single (new)  (x)\n"
        );
    }

    #[test]
    fn ranges_are_told_host_by_host() {
        let new = OLD
            .replace("n[1-3]", "n[2-3]")
            .replace("ip: 10.77.0.11", "ip: 10.77.0.12");
        assert_eq!(
            lines(&new),
            "- host n1 ip 10.77.0.11; mac 52:54:00:00:00:01; network boot; profile kvm\n\
             ~ host n2 mac: 52:54:00:00:00:02 -> 52:54:00:00:00:01\n\
             ~ host n3 mac: 52:54:00:00:00:03 -> 52:54:00:00:00:02\n"
        );
        let changes = outline(OLD).changes(&outline(&new));
        assert!(changes.lines(1).ends_with("  and 2 more\n"));
    }

    #[test]
    fn a_password_is_compared_and_not_shown() {
        let told = lines(&OLD.replace("$6$a$b", "$6$a$c"));
        assert!(
            told.starts_with("~ profile kvm rescue: {password: (not shown"),
            "{told}"
        );
        assert!(!told.contains("$6$"), "{told}");
    }

    #[test]
    fn boots_under_way_are_told_where_a_change_concerns_them() {
        let mut old = outline(OLD);
        old.under_way = ["n1", "x"]
            .map(|host| (host.to_owned(), "0197".to_owned()))
            .into();
        let new = outline(&OLD.replace("a.pxe", "b.pxe"));
        let changes = old.changes(&new);
        assert_eq!(changes.under_way.keys().collect::<Vec<_>>(), ["x"]);
        let told = changes.lines(9);
        assert!(
            told.contains("x is booting (attempt 0197): applies at its next boot"),
            "{told}"
        );
    }
}

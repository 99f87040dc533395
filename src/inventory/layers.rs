//! What each layer says, as written: which value holds, where it stands, and what it superseded.
//!
//! The typed settings decide what is served. This is the same file told to people: `hosts show`
//! and the comparison of two inventories. A test holds the one against the other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::faults::Faults;
use super::fields::Fields;
use super::model::{Host, Inventory, Origin, Sourced};
use super::tree::{Entry, Kind, Node, Scalar};

/// Maps of which each key is a setting of its own: layers are laid over each other key by key.
const SPLIT: [&str; 13] = [
    "addresses",
    "bridge",
    "interfaces",
    "loaders",
    "menu",
    "menu.entries",
    "nics",
    "options",
    "reply_delay",
    "root",
    "routes",
    "server",
    "unknown",
];
/// Lists to which each layer adds.
const ADD_UP: [&str; 3] = ["cmdline", "files", "pci"];
/// Settings of profiles, in the order in which a boot meets them.
const ORDER: [&str; 13] = [
    "loader",
    "kernel",
    "initrd",
    "cmdline",
    "bridge",
    "interfaces",
    "root",
    "image_pool",
    "files",
    "on_failure",
    "rescue",
    "menu",
    "pci",
];
/// What holds where nobody says anything; the bridge's name is the model's.
const DEFAULTS: [(&str, &str); 3] = [
    ("loader", "ipxe"),
    ("root.overlay", "1G"),
    ("on_failure", "reboot"),
];
/// Values that are not shown, but for whether they are the same.
const HIDDEN: [&str; 1] = ["password"];

/// One value as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key: `kernel`, `root.nfs`. Each item of a list to which layers add has the list's.
    pub key: String,
    /// Its text; a list or map as YAML on one line.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
}

/// Everything that one entry of a section says, in the order of the file.
pub type Layer = Arc<[Setting]>;

/// The inventory as written.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// What stands outside the sections.
    pub top: Layer,
    /// By the names of networks.
    pub networks: BTreeMap<String, Layer>,
    /// By the names of profiles.
    pub profiles: BTreeMap<String, Layer>,
    /// By the names of hosts; those of a range share theirs.
    pub hosts: BTreeMap<String, Layer>,
}

/// One value of a host, as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Value {
    /// Its key, as in [`Setting::key`].
    pub key: String,
    /// Its text.
    pub value: String,
    /// Where it stands; `None` for what holds where nothing is written.
    pub origin: Option<Origin>,
    /// What farther layers say, and does not hold; nearest first.
    pub superseded: Vec<Setting>,
}

/// The settings of one map of a section.
pub(super) fn layer(fields: &Fields<'_, '_>, faults: &Faults) -> Layer {
    let mut settings = Vec::new();
    split("", fields.entries(), fields.layer(), faults, &mut settings);
    settings.into()
}

/// What stands outside the sections.
pub(super) fn top(root: &Node<'_>, faults: &Faults) -> Layer {
    let mut settings = Vec::new();
    if let Kind::Mapping(entries) = &root.kind {
        let sections = ["networks", "profiles", "hosts", "include"];
        let rest = entries
            .iter()
            .filter(|entry| !sections.contains(&&*entry.key.text));
        for entry in rest {
            let layer = Arc::from(&*entry.key.text);
            split(
                "",
                std::slice::from_ref(entry),
                &layer,
                faults,
                &mut settings,
            );
        }
    }
    settings.into()
}

/// Collects entries, those of a map that is split one by one. Depth is that of [`SPLIT`].
fn split(
    prefix: &str,
    entries: &[Entry<'_>],
    layer: &Arc<str>,
    faults: &Faults,
    settings: &mut Vec<Setting>,
) {
    for entry in entries.iter().filter(|entry| !entry.duplicate) {
        let key = format!("{prefix}{}", entry.key.text);
        match &entry.node.kind {
            Kind::Mapping(entries) if SPLIT.contains(&&*key) => {
                split(&format!("{key}."), entries, layer, faults, settings);
            }
            Kind::Sequence(items) if ADD_UP.contains(&&*key) => {
                settings.extend(items.iter().map(|item| Setting {
                    key: key.clone(),
                    value: shown(item),
                    origin: faults.origin(item.span, layer),
                }));
            }
            _ => settings.push(Setting {
                value: value_of(entry),
                origin: faults.origin(entry.node.span, layer),
                key,
            }),
        }
    }
}

fn value_of(entry: &Entry<'_>) -> String {
    match &entry.node.kind {
        Kind::Scalar(scalar) if HIDDEN.contains(&&*entry.key.text) => hidden(scalar),
        _ => shown(&entry.node),
    }
}

/// Says no more than whether two are the same.
fn hidden(scalar: &Scalar<'_>) -> String {
    use sha2::{Digest, Sha256};
    let sum = Sha256::digest(scalar.text.as_bytes());
    let sum = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
    format!("(not shown, {sum:08x})")
}

/// A text as it is; what holds others, as YAML on one line.
fn shown(node: &Node<'_>) -> String {
    match &node.kind {
        Kind::Scalar(scalar) => scalar.text.to_string(),
        _ => flow(node),
    }
}

fn flow(node: &Node<'_>) -> String {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.plain => scalar.text.to_string(),
        Kind::Scalar(scalar) => format!("{:?}", scalar.text),
        Kind::Sequence(items) => {
            let items: Vec<_> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Kind::Mapping(entries) => {
            let entry = |entry: &Entry<'_>| match &entry.node.kind {
                Kind::Scalar(scalar) if HIDDEN.contains(&&*entry.key.text) => {
                    format!("{}: {}", entry.key.text, hidden(scalar))
                }
                _ => format!("{}: {}", entry.key.text, flow(&entry.node)),
            };
            let entries: Vec<_> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Kind::Refused => String::new(),
    }
}

fn top_key(key: &str) -> &str {
    key.split_once('.').map_or(key, |(top, _)| top)
}

impl Inventory {
    /// Every value of a host as it holds, with its place and what it superseded.
    pub fn values_of(&self, host: &Host) -> Vec<Value> {
        let mut values = self.own_values(host);
        let mut settings = Holding::default();
        for layer in self.layers_of(host) {
            settings.lay_below(layer);
        }
        values.extend(settings.into_values(host));
        values
    }

    /// What a host says itself, nearest, then its profile and those that it extends.
    fn layers_of(&self, host: &Host) -> impl Iterator<Item = &[Setting]> {
        let names = std::iter::once(&host.profile.name).chain(&host.profile.extends);
        let profiles = names.filter_map(|name| self.written.profiles.get(name));
        let own = self.written.hosts.get(&host.name);
        own.into_iter().chain(profiles).map(|layer| &**layer)
    }

    /// What is the host's alone; in a range, as it was counted up.
    pub(super) fn own_values(&self, host: &Host) -> Vec<Value> {
        let mut values = vec![sourced("ip", &host.ip)];
        let macs = host.macs.iter();
        values.splice(0..0, macs.map(|mac| sourced("mac", mac)));
        let subnet = self.written.networks.get(&host.network.name);
        let subnet = subnet.and_then(|layer| layer.iter().find(|at| at.key == "subnet"));
        values.push(Value {
            key: "network".into(),
            value: host.network.name.clone(),
            origin: subnet.map(|at| at.origin.clone()),
            superseded: Vec::new(),
        });
        values.extend(host.serial.iter().map(|serial| sourced("serial", serial)));
        let plug = host.plug.iter();
        values.extend(plug.flat_map(|plug| {
            let port = sourced("port", &plug.port);
            [sourced("switch", &plug.switch), port]
        }));
        let nics = host.nics.iter();
        values.extend(nics.map(|(name, mac)| sourced(&format!("nics.{name}"), mac)));
        let addresses = host.addresses.iter();
        values.extend(addresses.map(|(name, at)| sourced(&format!("addresses.{name}"), at)));
        let counted = |key: &str| match key {
            "rack" => host.rack.clone(),
            "unit" => host.unit.map(|unit| unit.to_string()),
            _ => None,
        };
        let own = self.written.hosts.get(&host.name).into_iter();
        let own = own.flat_map(|layer| layer.iter());
        let rest =
            own.filter(|at| matches!(top_key(&at.key), "profile" | "rack" | "unit" | "loaders"));
        values.extend(rest.map(|at| Value {
            key: at.key.clone(),
            value: counted(&at.key).unwrap_or_else(|| at.value.clone()),
            origin: Some(at.origin.clone()),
            superseded: Vec::new(),
        }));
        values
    }
}

fn sourced<T: ToString>(key: &str, at: &Sourced<T>) -> Value {
    Value {
        key: key.to_owned(),
        value: at.value.to_string(),
        origin: at.origin.clone(),
        superseded: Vec::new(),
    }
}

/// Settings that hold, while layers are laid below each other.
#[derive(Default)]
struct Holding {
    values: Vec<Value>,
    by_key: HashMap<String, usize>,
    /// Layers of lists that add up; farther ones come first in the end.
    added: Vec<Vec<Value>>,
}

impl Holding {
    fn lay_below(&mut self, layer: &[Setting]) {
        let (added, held): (Vec<_>, Vec<_>) = layer
            .iter()
            .filter(|at| ORDER.contains(&top_key(&at.key)))
            .partition(|at| ADD_UP.contains(&&*at.key));
        self.added.push(added.into_iter().map(holds).collect());
        // Found first, so that keys of one layer don't supersede each other.
        let above: Vec<_> = held.iter().map(|at| self.above(&at.key)).collect();
        for (at, above) in held.into_iter().zip(above) {
            match above.and_then(|index| self.values.get_mut(index)) {
                Some(value) => value.superseded.push(at.clone()),
                None => {
                    self.by_key.insert(at.key.clone(), self.values.len());
                    self.values.push(holds(at));
                }
            }
        }
    }

    /// What keeps a setting of a farther layer from holding: the same one, or `menu: none` above
    /// `menu.timeout`, or the other way round.
    fn above(&self, key: &str) -> Option<usize> {
        let whole = || self.by_key.get(top_key(key));
        let part = || {
            let prefix = format!("{key}.");
            let parts = self.values.iter();
            let mut parts = parts.enumerate();
            parts.find(|(_, value)| value.key.starts_with(&prefix))
        };
        // The version is that of the server which stands beside it.
        let server = || {
            self.by_key
                .get("root.nfs")
                .filter(|_| key == "root.version")
        };
        let same = self.by_key.get(key).or_else(whole).or_else(server).copied();
        same.or_else(|| part().map(|(index, _)| index))
    }

    fn into_values(mut self, host: &Host) -> Vec<Value> {
        let bridge = &host.profile.bridge.value.name;
        let defaults = DEFAULTS
            .into_iter()
            .chain([("bridge.name", bridge.as_str())]);
        for (key, value) in defaults {
            if self.by_key.contains_key(key) {
                continue;
            }
            self.values.push(Value {
                key: key.to_owned(),
                value: value.to_owned(),
                origin: None,
                superseded: Vec::new(),
            });
        }
        self.values.extend(self.added.into_iter().rev().flatten());
        let place = |value: &Value| ORDER.iter().position(|key| *key == top_key(&value.key));
        self.values.sort_by_key(place);
        self.values
    }
}

fn holds(setting: &Setting) -> Value {
    Value {
        key: setting.key.clone(),
        value: setting.value.clone(),
        origin: Some(setting.origin.clone()),
        superseded: Vec::new(),
    }
}

//! What decides over a boot, and where it is written.

use serde::Serialize;

use crate::inventory::model::{
    DhcpMode, Host, ImagePool, Inventory, Loader, MacAddr, Origin, PoolKind, RootSource, Setting,
    Sourced,
};

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Value {
    /// Its key in the inventory.
    pub key: String,
    /// The value.
    pub value: String,
    /// `hosts.yaml:12`; `None` for a default of ours.
    pub place: Option<String>,
    /// `profile base`, `host kvm07`, or `default`.
    pub layer: String,
    /// What farther layers say of it, and does not hold; nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Superseded>,
}

/// A value that a nearer layer superseded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Superseded {
    /// Its key, which may be that of a map around: `root`, `root.nfs`.
    pub key: String,
    /// What stands there.
    pub value: String,
    /// `hosts.yaml:12`.
    pub place: String,
    /// `profile base`.
    pub layer: String,
}

impl Superseded {
    fn new(setting: &Setting) -> Self {
        let Origin {
            file, line, layer, ..
        } = &setting.origin;
        Self {
            key: setting.key.clone(),
            value: setting.value.clone(),
            place: format!("{file}:{line}"),
            layer: layer.to_string(),
        }
    }
}

impl Value {
    fn new(key: &str, value: impl Into<String>, origin: Option<&Origin>) -> Self {
        Self {
            key: key.to_owned(),
            value: value.into(),
            place: origin.map(|origin| format!("{}:{}", origin.file, origin.line)),
            layer: origin.map_or_else(|| "default".to_owned(), |origin| origin.layer.to_string()),
            superseded: Vec::new(),
        }
    }

    fn of<T>(key: &str, value: impl Into<String>, sourced: &Sourced<T>) -> Self {
        Self::new(key, value, sourced.origin.as_ref())
    }
}

/// Of a host as it boots, asking with this MAC, with what does not hold of it.
pub(super) fn of(inventory: &Inventory, host: &Host, mac: MacAddr) -> Vec<Value> {
    let mut values = holding(host, mac);
    for written in inventory.values_of(host) {
        let top = top_key(&written.key);
        let Some(last) = values.iter().rposition(|value| top_key(&value.key) == top) else {
            continue;
        };
        let old = written.superseded.iter().map(Superseded::new);
        let shows = |value: &&mut Value| {
            value.key == written.key || value.key == top && value.value.contains(&written.value)
        };
        match values.iter_mut().find(shows) {
            Some(value) => value.superseded.extend(old),
            // Beside what its key shows in short: `root.overlay`.
            None => {
                let mut value = Value::new(&written.key, &*written.value, written.origin.as_ref());
                value.superseded.extend(old);
                values.insert(last + 1, value);
            }
        }
    }
    values
}

fn top_key(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

/// Keys of a network that clients are told.
const TOLD: &[&str] = &[
    "subnet",
    "router",
    "dns",
    "domain",
    "search",
    "ntp",
    "mtu",
    "lease_time",
    "routes",
    "options",
];

/// What the network's clients are told, where its DHCP is ours.
pub(super) fn of_network(inventory: &Inventory, name: &str) -> Vec<Value> {
    let network = inventory.networks.get(name);
    if network.is_none_or(|network| network.dhcp != DhcpMode::Server) {
        return Vec::new();
    }
    let written = inventory.written.networks.get(name).into_iter();
    let settings = written.flat_map(|layer| layer.iter());
    let told = settings.filter(|setting| TOLD.contains(&top_key(&setting.key)));
    told.map(|setting| Value::new(&setting.key, &*setting.value, Some(&setting.origin)))
        .collect()
}

fn holding(host: &Host, mac: MacAddr) -> Vec<Value> {
    let profile = &host.profile;
    let mut values = vec![Value::new("host", &*host.name, Some(&host.origin))];
    let macs = host.macs.iter().filter(|listed| ***listed == mac);
    values.extend(macs.map(|listed| Value::of("mac", listed.to_string(), listed)));
    values.extend([
        Value::of("ip", host.ip.to_string(), &host.ip),
        Value::of("loader", loader(*profile.loader), &profile.loader),
        Value::of("kernel", &**profile.kernel, &profile.kernel),
        Value::of("initrd", &**profile.initrd, &profile.initrd),
    ]);
    let words = profile.cmdline.iter();
    values.extend(words.map(|word| Value::of("cmdline", &**word, word)));
    values.extend([
        Value::of("bridge", &*profile.bridge.name, &profile.bridge),
        Value::of("root", root(&profile.root.source), &profile.root),
    ]);
    let pool = profile.image_pool.iter();
    values.extend(pool.map(|sourced| Value::of("image_pool", image_pool(sourced), sourced)));
    values
}

fn loader(loader: Loader) -> &'static str {
    match loader {
        Loader::Ipxe => "ipxe",
        Loader::Pxelinux => "pxelinux",
        Loader::Grub => "grub",
    }
}

fn root(source: &RootSource) -> String {
    match source {
        RootSource::Embedded { name } => format!("nfs /roots/{name}"),
        RootSource::External { server, path, .. } => format!("nfs {server}:{}", path.display()),
    }
}

fn image_pool(pool: &ImagePool) -> String {
    match &pool.kind {
        PoolKind::Lustre { source } => format!("lustre {source}"),
        PoolKind::Moosefs {
            master, subfolder, ..
        } => format!("moosefs {master}:{subfolder}"),
        PoolKind::Nfs { server, path, .. } => format!("nfs {server}:{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVENTORY: &str = r#"
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    pool: 10.77.0.100-10.77.0.199
    options: {150: 10.77.0.5}
  other: {subnet: 10.66.0.0/24, dhcp: proxy, domain: lab.org}
profiles:
  base: {kernel: debian, initrd: default, root: {nfs: "/roots/kvm", overlay: 512M}}
  kvm: {extends: base, root: {overlay: 4G}}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm, root: {overlay: 6G}}
"#;

    fn rows(values: &[Value]) -> Vec<String> {
        let row = |value: &Value| {
            let place = value.place.as_deref().unwrap_or("-");
            let old = value.superseded.iter();
            let old: String = old
                .map(|old| format!(", not {} {}", old.value, old.place))
                .collect();
            format!("{} {} {place}{old}", value.key, value.value)
        };
        values.iter().map(row).collect()
    }

    #[test]
    fn what_holds_is_there_with_what_it_superseded() {
        let (inventory, _) = crate::inventory::parse("hosts.yaml", INVENTORY).unwrap();
        let host = &inventory.hosts["kvm01"];
        let rows = rows(&of(&inventory, host, host.first_mac().unwrap()));
        let root: Vec<_> = rows.iter().filter(|row| row.starts_with("root")).collect();
        assert_eq!(
            root,
            [
                "root nfs /roots/kvm hosts.yaml:10",
                "root.overlay 6G hosts.yaml:13, not 4G hosts.yaml:11, not 512M hosts.yaml:10"
            ]
        );
    }

    #[test]
    fn what_a_network_tells_has_its_line() {
        let (inventory, _) = crate::inventory::parse("hosts.yaml", INVENTORY).unwrap();
        assert_eq!(
            rows(&of_network(&inventory, "boot")),
            [
                "subnet 10.77.0.0/24 hosts.yaml:4",
                "router 10.77.0.1 hosts.yaml:5",
                "options.150 10.77.0.5 hosts.yaml:7"
            ]
        );
        // Another server tells them there.
        assert_eq!(of_network(&inventory, "other"), []);
    }
}

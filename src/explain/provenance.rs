//! What decides over a boot, and where it is written.

use serde::Serialize;

use crate::inventory::model::{
    Host, ImagePool, Inventory, Loader, MacAddr, Origin, PoolKind, RootSource, Setting, Sourced,
};

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Value {
    /// Its key in the inventory.
    pub key: &'static str,
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
    fn new(key: &'static str, value: impl Into<String>, origin: Option<&Origin>) -> Self {
        Self {
            key,
            value: value.into(),
            place: origin.map(|origin| format!("{}:{}", origin.file, origin.line)),
            layer: origin.map_or_else(|| "default".to_owned(), |origin| origin.layer.to_string()),
            superseded: Vec::new(),
        }
    }

    fn of<T>(key: &'static str, value: impl Into<String>, sourced: &Sourced<T>) -> Self {
        Self::new(key, value, sourced.origin.as_ref())
    }
}

/// Of a host as it boots, asking with this MAC, with what does not hold of it.
pub(super) fn of(inventory: &Inventory, host: &Host, mac: MacAddr) -> Vec<Value> {
    let mut values = holding(host, mac);
    for written in inventory.values_of(host) {
        let top = written.key.split('.').next().unwrap_or_default();
        let Some(value) = values.iter_mut().find(|value| value.key == top) else {
            continue;
        };
        let old = written.superseded.iter().map(Superseded::new);
        value.superseded.extend(old);
    }
    values
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

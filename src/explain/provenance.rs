//! What decides over a boot, and where it is written.

use serde::Serialize;

use crate::inventory::model::{
    Host, ImagePool, Loader, MacAddr, Origin, PoolKind, RootSource, Sourced,
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
}

impl Value {
    fn new(key: &'static str, value: impl Into<String>, origin: Option<&Origin>) -> Self {
        Self {
            key,
            value: value.into(),
            place: origin.map(|origin| format!("{}:{}", origin.file, origin.line)),
            layer: origin.map_or_else(|| "default".to_owned(), |origin| origin.layer.to_string()),
        }
    }

    fn of<T>(key: &'static str, value: impl Into<String>, sourced: &Sourced<T>) -> Self {
        Self::new(key, value, sourced.origin.as_ref())
    }
}

/// Of a host as it boots, asking with this MAC.
pub(super) fn of(host: &Host, mac: MacAddr) -> Vec<Value> {
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

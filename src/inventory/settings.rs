//! What profiles and hosts can set, each value with its place, and one laid over another.

use std::path::PathBuf;
use std::sync::Arc;

use super::faults::Faults;
use super::fields::Fields;
use super::model::{
    Bridge, ImagePool, Loader, NfsVersion, OnFailure, PoolKind, Profile, Root, RootSource, Sourced,
};
use super::rescue::{self, PasswordHash};
use super::storage::{self, NfsTarget};
use super::tree::{At, Kind, Scalar};
use super::{names, scalars};

const LOADERS: &[(&str, Loader)] = &[
    ("ipxe", Loader::Ipxe),
    ("pxelinux", Loader::Pxelinux),
    ("grub", Loader::Grub),
];
const ON_FAILURE: &[(&str, OnFailure)] = &[
    ("reboot", OnFailure::Reboot),
    ("shell", OnFailure::Shell),
    ("hold", OnFailure::Hold),
];

const DEFAULT_BRIDGE: &str = "br0";
const DEFAULT_MTU: u16 = 1500;
const DEFAULT_OVERLAY: u64 = 1 << 30;
const DEFAULT_POOL_MOUNT: &str = "/var/lib/libvirt/images";
/// Less can't hold a systemd's run-time changes, more is a slip of the unit.
const OVERLAY_BOUNDS: std::ops::RangeInclusive<u64> = 16 << 20..=4 << 40;

/// Settings of one layer, or of several laid over each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    loader: Option<Sourced<Loader>>,
    kernel: Option<Sourced<String>>,
    initrd: Option<Sourced<String>>,
    cmdline: Vec<Sourced<String>>,
    bridge_name: Option<Sourced<String>>,
    bridge_mtu: Option<Sourced<u16>>,
    root: Option<Sourced<RootSource>>,
    overlay: Option<Sourced<u64>>,
    /// `Some(None)`: the layer says `none`.
    image_pool: Option<Sourced<Option<ImagePool>>>,
    files: Vec<Sourced<String>>,
    on_failure: Option<Sourced<OnFailure>>,
    rescue: Option<Sourced<PasswordHash>>,
    /// A value was refused: what is missing then is no second fault.
    pub(super) broken: bool,
}

impl Settings {
    /// Takes the settings out of a profile's or a host's map.
    pub(super) fn read(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Self {
        let layer = fields.layer().clone();
        let loader = scalars::one_of("a loader", "inventory::unknown_loader", LOADERS);
        let failure = scalars::one_of("a way to fail", "inventory::bad_on_failure", ON_FAILURE);
        let mut settings = Self {
            loader: source(fields.get("loader", faults, loader), &layer, faults),
            kernel: source(
                fields.get("kernel", faults, names::file_name),
                &layer,
                faults,
            ),
            initrd: source(
                fields.get("initrd", faults, names::file_name),
                &layer,
                faults,
            ),
            cmdline: read_cmdline(fields, faults),
            ..Self::default()
        };
        settings.read_bridge(fields, faults);
        settings.read_root(fields, faults);
        settings.image_pool = read_image_pool(fields, faults);
        settings.files = read_files(fields, faults);
        settings.on_failure = source(fields.get("on_failure", faults, failure), &layer, faults);
        settings.rescue = rescue::read(fields, faults);
        settings.broken = settings.misses_written(fields);
        settings
    }

    /// Whether a required key was written, but refused.
    fn misses_written(&self, fields: &Fields<'_, '_>) -> bool {
        let refused = |key, missing| missing && fields.has_like(key);
        refused("kernel", self.kernel.is_none())
            || refused("initrd", self.initrd.is_none())
            || refused("root", self.root.is_none() && self.overlay.is_none())
    }

    fn read_bridge(&mut self, fields: &mut Fields<'_, '_>, faults: &mut Faults) {
        let Some(mut bridge) = fields.map("bridge", faults) else {
            return;
        };
        let layer = bridge.layer().clone();
        let mtu = scalars::number("an MTU that a bridge can have", 1280..=9216);
        self.bridge_name = source(bridge.get("name", faults, names::interface), &layer, faults);
        self.bridge_mtu = source(bridge.get("mtu", faults, mtu), &layer, faults);
        bridge.finish(faults);
    }

    fn read_root(&mut self, fields: &mut Fields<'_, '_>, faults: &mut Faults) {
        let Some(mut root) = fields.map("root", faults) else {
            return;
        };
        let layer = root.layer().clone();
        let target = root.get("nfs", faults, storage::root_target);
        let version = root.get("version", faults, storage::nfs_version);
        let overlay = root.get("overlay", faults, overlay_size);
        if version.is_some() && !root.has("nfs") {
            root.require("nfs", "\"10.0.0.9:/srv/roots/kvm\"", faults);
        }
        self.root = target
            .and_then(|target| root_source(target, version, faults))
            .map(|at| faults.sourced(at, &layer));
        self.overlay = source(overlay, &layer, faults);
        root.finish(faults);
    }

    /// These settings where they are set, the parent's elsewhere; arguments and trees of files
    /// after the parent's.
    pub(super) fn over(&self, parent: &Self) -> Self {
        fn pick<T: Clone>(own: &Option<T>, parent: &Option<T>) -> Option<T> {
            own.as_ref().or(parent.as_ref()).cloned()
        }
        Self {
            loader: pick(&self.loader, &parent.loader),
            kernel: pick(&self.kernel, &parent.kernel),
            initrd: pick(&self.initrd, &parent.initrd),
            cmdline: [parent.cmdline.as_slice(), self.cmdline.as_slice()].concat(),
            bridge_name: pick(&self.bridge_name, &parent.bridge_name),
            bridge_mtu: pick(&self.bridge_mtu, &parent.bridge_mtu),
            root: pick(&self.root, &parent.root),
            overlay: pick(&self.overlay, &parent.overlay),
            image_pool: pick(&self.image_pool, &parent.image_pool),
            files: [parent.files.as_slice(), self.files.as_slice()].concat(),
            on_failure: pick(&self.on_failure, &parent.on_failure),
            rescue: pick(&self.rescue, &parent.rescue),
            broken: self.broken || parent.broken,
        }
    }

    /// Whether nothing is set at all.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            loader,
            kernel,
            initrd,
            cmdline,
            bridge_name,
            bridge_mtu,
            root,
            overlay,
            image_pool,
            files,
            on_failure,
            rescue,
            broken: _,
        } = self;
        cmdline.is_empty()
            && files.is_empty()
            && loader.is_none()
            && kernel.is_none()
            && initrd.is_none()
            && bridge_name.is_none()
            && bridge_mtu.is_none()
            && root.is_none()
            && overlay.is_none()
            && image_pool.is_none()
            && on_failure.is_none()
            && rescue.is_none()
    }

    /// The keys without which nothing boots, as far as they are not set.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let required = [
            ("kernel", self.kernel.is_none()),
            ("initrd", self.initrd.is_none()),
            ("root", self.root.is_none()),
        ];
        let missing = required.into_iter().filter(|(_, missing)| *missing);
        missing.map(|(key, _)| key).collect()
    }

    /// The profile that these settings make; `None` while something is missing.
    pub(super) fn profile(&self, name: &str, extends: &[String]) -> Option<Profile> {
        Some(Profile {
            name: name.to_owned(),
            extends: extends.to_vec(),
            loader: or_default(&self.loader, Loader::Ipxe),
            kernel: self.kernel.clone()?,
            initrd: self.initrd.clone()?,
            cmdline: self.cmdline.clone(),
            bridge: self.bridge(),
            root: self
                .root
                .as_ref()
                .map(|root| self.root_with_overlay(root))?,
            image_pool: self.image_pool.clone().and_then(written_pool),
            files: self.files.clone(),
            on_failure: or_default(&self.on_failure, OnFailure::Reboot),
            rescue: self.rescue.clone(),
        })
    }

    fn bridge(&self) -> Sourced<Bridge> {
        let name = or_default(&self.bridge_name, DEFAULT_BRIDGE.to_owned());
        let mtu = or_default(&self.bridge_mtu, DEFAULT_MTU);
        Sourced {
            origin: name.origin.or(mtu.origin),
            value: Bridge {
                name: name.value,
                mtu: mtu.value,
            },
        }
    }

    fn root_with_overlay(&self, root: &Sourced<RootSource>) -> Sourced<Root> {
        let overlay = self.overlay.as_ref().map_or(DEFAULT_OVERLAY, |at| at.value);
        let source = root.value.clone();
        Sourced {
            value: Root { source, overlay },
            origin: root.origin.clone(),
        }
    }
}

fn source<T>(at: Option<At<T>>, layer: &Arc<str>, faults: &Faults) -> Option<Sourced<T>> {
    at.map(|at| faults.sourced(at, layer))
}

fn or_default<T: Clone>(set: &Option<Sourced<T>>, default: T) -> Sourced<T> {
    set.clone().unwrap_or(Sourced {
        value: default,
        origin: None,
    })
}

fn written_pool(pool: Sourced<Option<ImagePool>>) -> Option<Sourced<ImagePool>> {
    let origin = pool.origin;
    pool.value.map(|value| Sourced { value, origin })
}

fn overlay_size(scalar: &Scalar<'_>) -> Result<u64, scalars::Bad> {
    let bytes = scalars::size(scalar)?;
    if OVERLAY_BOUNDS.contains(&bytes) {
        return Ok(bytes);
    }
    Err(scalars::Bad::new(
        "inventory::bad_size",
        format!("an overlay of {} is not sensible", scalar.text),
        "write a size from 16M to 4T; it caps what a host may write to its root, in RAM",
    ))
}

fn read_cmdline(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Vec<Sourced<String>> {
    let layer = fields.layer().clone();
    if let Some(Kind::Sequence(items)) = fields.node("cmdline").map(|node| &node.kind) {
        for pair in items.windows(2) {
            refuse_split_console(pair, faults);
        }
    }
    let arguments = fields.list("cmdline", faults, names::kernel_argument);
    let arguments = arguments.into_iter();
    arguments.map(|at| faults.sourced(at, &layer)).collect()
}

fn read_files(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Vec<Sourced<String>> {
    let layer = fields.layer().clone();
    let trees = fields.list("files", faults, names::tree_name).into_iter();
    trees.map(|at| faults.sourced(at, &layer)).collect()
}

/// `[console=ttyS0,115200]` without quotes is two items to YAML.
fn refuse_split_console(pair: &[super::tree::Node<'_>], faults: &mut Faults) {
    let [first, second] = pair else { return };
    let (Kind::Scalar(console), Kind::Scalar(speed)) = (&first.kind, &second.kind) else {
        return;
    };
    let plain = console.plain && speed.plain && first.span.line == second.span.line;
    if plain
        && console.text.starts_with("console=")
        && speed.text.starts_with(|c: char| c.is_ascii_digit())
    {
        faults.error(
            "inventory::split_argument",
            second.span,
            format!("`{}` stands as an argument of its own", speed.text),
            "the comma before it ended the item",
            format!(
                "quote the whole argument: \"{},{}\"",
                console.text, speed.text
            ),
        );
    }
}

/// The embedded server speaks NFSv3 only; others are mounted with 4.2 unless told.
fn root_source(
    target: At<NfsTarget>,
    version: Option<At<NfsVersion>>,
    faults: &mut Faults,
) -> Option<At<RootSource>> {
    let value = match target.value {
        NfsTarget::External { server, path } => RootSource::External {
            server,
            path,
            version: version.map_or(NfsVersion::V4_2, |at| at.value),
        },
        NfsTarget::Embedded { name } => {
            if let Some(at) = version.filter(|at| at.value != NfsVersion::V3) {
                faults.error(
                    "inventory::bad_version",
                    at.span,
                    "roots served from here are served by NFSv3 only",
                    "",
                    "remove `version`, or name another server: \"10.0.0.9:/srv/roots/kvm\"",
                );
                return None;
            }
            RootSource::Embedded { name }
        }
    };
    let span = target.span;
    Some(At { value, span })
}

fn read_image_pool(
    fields: &mut Fields<'_, '_>,
    faults: &mut Faults,
) -> Option<Sourced<Option<ImagePool>>> {
    let layer = fields.layer().clone();
    let node = fields.node("image_pool")?;
    if matches!(&node.kind, Kind::Scalar(word) if word.text == "none") {
        let none = At {
            value: None,
            span: node.span,
        };
        return Some(faults.sourced(none, &layer));
    }
    let mut pool = fields.map("image_pool", faults)?;
    let kind = read_pool_kind(&mut pool, faults);
    let mount = pool.get("mount", faults, storage::mount_point);
    let options = pool.get("options", faults, storage::mount_options);
    pool.finish(faults);
    let kind = kind?;
    let value = Some(ImagePool {
        kind: kind.value,
        mount: mount.map_or_else(|| PathBuf::from(DEFAULT_POOL_MOUNT), |at| at.value),
        options: options.map(|at| at.value),
    });
    let span = kind.span;
    Some(faults.sourced(At { value, span }, &layer))
}

/// Exactly one of `lustre`, `moosefs` and `nfs`.
fn read_pool_kind(pool: &mut Fields<'_, '_>, faults: &mut Faults) -> Option<At<PoolKind>> {
    let lustre = pool.get("lustre", faults, storage::lustre);
    let moosefs = pool.get("moosefs", faults, storage::moosefs);
    let nfs = pool.get("nfs", faults, storage::pool_nfs);
    let version = pool.get("version", faults, storage::nfs_version);
    let kinds: Vec<_> = ["lustre", "moosefs", "nfs"]
        .into_iter()
        .filter_map(|kind| pool.key_span(kind))
        .collect();
    if let Some(span) = pool.key_span("version").filter(|_| !pool.has("nfs")) {
        let help = "remove `version`: it belongs to `nfs`";
        let message = "only an NFS pool has a `version`";
        faults.error("inventory::bad_version", span, message, "", help);
    }
    if let [_, second, ..] = kinds.as_slice() {
        let message = format!("{} names two file systems", pool.what());
        let help = "keep one of `lustre`, `moosefs` and `nfs`";
        faults.error("inventory::several_pools", *second, message, "", help);
        return None;
    }
    if kinds.is_empty() {
        let message = format!("{} names no file system", pool.what());
        let help = "add one of `lustre`, `moosefs` and `nfs`, or write `image_pool: none`";
        faults.error("inventory::missing_key", pool.place(), message, "", help);
    }
    let nfs = nfs.map(|at| At {
        span: at.span,
        value: PoolKind::Nfs {
            server: at.value.0,
            path: at.value.1,
            version: version.map_or(NfsVersion::V4_2, |at| at.value),
        },
    });
    lustre.or(moosefs).or(nfs)
}

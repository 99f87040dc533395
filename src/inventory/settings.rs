//! What profiles and hosts can set, each value with its place, and one laid over another.

use std::sync::Arc;

use super::bridges::BridgeSettings;
use super::faults::Faults;
use super::fields::Fields;
use super::interfaces::{self, WrittenInterface};
use super::menu_settings::{self, WrittenMenu};
use super::model::{
    Boots, ImagePool, Loader, NfsVersion, OnFailure, Profile, Root, RootSource, Sourced,
};
use super::pci::{self, PciId};
use super::rescue::{self, PasswordHash};
use super::stack::Stack;
use super::storage::{self, NfsTarget};
use super::tree::{At, Kind, Scalar};
use super::{names, pools, scalars};

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

const DEFAULT_OVERLAY: u64 = 1 << 30;
/// Less can't hold a systemd's run-time changes, more is a slip of the unit.
const OVERLAY_BOUNDS: std::ops::RangeInclusive<u64> = 16 << 20..=4 << 40;

/// Settings of one layer, or of several laid over each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    loader: Option<Sourced<Loader>>,
    kernel: Option<Sourced<String>>,
    initrd: Option<Sourced<String>>,
    cmdline: Vec<Sourced<String>>,
    bridge: BridgeSettings,
    interfaces: Vec<WrittenInterface>,
    root: Option<Sourced<RootSource>>,
    overlay: Option<Sourced<u64>>,
    /// `Some(None)`: the layer says `none`.
    image_pool: Option<Sourced<Option<ImagePool>>>,
    files: Vec<Sourced<String>>,
    on_failure: Option<Sourced<OnFailure>>,
    rescue: Option<Sourced<PasswordHash>>,
    /// `Some(None)`: the layer says `none`.
    menu: Option<Option<WrittenMenu>>,
    pci: Vec<Sourced<PciId>>,
    /// A value was refused: what is missing then is no second fault.
    pub(super) broken: bool,
}

impl Settings {
    /// Takes the settings out of a profile's or a host's map.
    pub(super) fn read(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Self {
        let layer = fields.layer().clone();
        let loader = scalars::one_of("a loader", "inventory::unknown_loader", LOADERS);
        let mut settings = Self::read_bootable(fields, faults);
        settings.loader = source(fields.get("loader", faults, loader), &layer, faults);
        settings.bridge = BridgeSettings::read(fields, faults);
        settings.interfaces = interfaces::read(fields, faults);
        settings.menu = menu_settings::read(fields, faults);
        let pci = fields.list("pci", faults, pci::id).into_iter();
        settings.pci = pci.map(|at| faults.sourced(at, &layer)).collect();
        settings
    }

    /// Takes out what an entry of a menu can set, too.
    pub(super) fn read_bootable(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Self {
        let layer = fields.layer().clone();
        let failure = scalars::one_of("a way to fail", "inventory::bad_on_failure", ON_FAILURE);
        let mut settings = Self {
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
        settings.read_root(fields, faults);
        settings.image_pool = pools::read(fields, faults);
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

    /// These settings where they are set, the parent's elsewhere; arguments, trees of files and NICs
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
            bridge: self.bridge.over(&parent.bridge),
            interfaces: interfaces::over(&self.interfaces, &parent.interfaces),
            root: pick(&self.root, &parent.root),
            overlay: pick(&self.overlay, &parent.overlay),
            image_pool: pick(&self.image_pool, &parent.image_pool),
            files: [parent.files.as_slice(), self.files.as_slice()].concat(),
            on_failure: pick(&self.on_failure, &parent.on_failure),
            rescue: pick(&self.rescue, &parent.rescue),
            menu: match (&self.menu, &parent.menu) {
                (Some(Some(own)), Some(Some(parent))) => Some(Some(own.over(parent))),
                (own, parent) => pick(own, parent),
            },
            pci: [parent.pci.as_slice(), self.pci.as_slice()].concat(),
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
            bridge,
            interfaces,
            root,
            overlay,
            image_pool,
            files,
            on_failure,
            rescue,
            menu,
            pci,
            broken: _,
        } = self;
        cmdline.is_empty()
            && files.is_empty()
            && loader.is_none()
            && kernel.is_none()
            && initrd.is_none()
            && bridge.is_empty()
            && interfaces.is_empty()
            && root.is_none()
            && overlay.is_none()
            && image_pool.is_none()
            && on_failure.is_none()
            && rescue.is_none()
            && menu.is_none()
            && pci.is_empty()
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

    /// The menu that these settings make, as written.
    pub(super) fn menu(&self) -> Option<&WrittenMenu> {
        self.menu.as_ref().and_then(Option::as_ref)
    }

    /// Whether `initrd: none` is written, which stands for no file.
    pub(super) fn take_no_initrd(&mut self) -> bool {
        let none = self
            .initrd
            .as_ref()
            .is_some_and(|name| name.value == "none");
        self.initrd.take_if(|_| none).is_some()
    }

    /// What a menu's entry boots that has no initrd.
    pub(super) fn bare_kernel(&self) -> Option<Boots> {
        let (kernel, cmdline) = (self.kernel.clone()?, self.cmdline.clone());
        Some(Boots::Kernel { kernel, cmdline })
    }

    /// The profile that these settings make, without its menu; `None` while something is missing.
    pub(super) fn profile(&self, name: &str, extends: &[String]) -> Option<Profile> {
        Some(Profile {
            name: name.to_owned(),
            extends: extends.to_vec(),
            loader: or_default(&self.loader, Loader::Ipxe),
            kernel: self.kernel.clone()?,
            initrd: self.initrd.clone()?,
            cmdline: self.cmdline.clone(),
            bridge: self.bridge.bridge(),
            interfaces: self.stack().interfaces,
            root: self
                .root
                .as_ref()
                .map(|root| self.root_with_overlay(root))?,
            image_pool: self.image_pool.clone().and_then(written_pool),
            files: self.files.clone(),
            on_failure: or_default(&self.on_failure, OnFailure::Reboot),
            rescue: self.rescue.clone(),
            menu: None,
            pci: self.pci.clone(),
        })
    }

    fn stack(&self) -> Stack {
        Stack::arrange(&self.bridge, &self.interfaces)
    }

    /// Reports what of the interfaces can't be built, once for all who inherit it.
    pub(super) fn report_stack(&self, faults: &mut Faults) {
        let stack = self.stack();
        let pool = self.image_pool.as_ref().and_then(|at| at.value.as_ref());
        if let Some(pool) = pool {
            let bridge = self.bridge.bridge().value;
            pools::check_network(pool, &bridge, &stack.interfaces, faults);
        }
        stack.report(faults);
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

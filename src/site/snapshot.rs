//! One consistent state of everything that the operator edits or builds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use walkdir::WalkDir;

use super::ByAddress;
use crate::assets::{Assets, Fingerprint};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::inventory::model::{Host, Inventory, RootSource};
use crate::inventory::{self, Faulty, FileText, artefacts};
use crate::policy::enrol::FreeHosts;
use crate::regular;
use crate::render::Templates;
use crate::site::host_files::{self, HostFiles};
use crate::site::keep::{Keep, Kept};
use crate::site::rehearse;
use crate::site::tls::{self, Tls};

/// Host files looked at for a change; more than that need a SIGHUP.
const MAX_WATCHED: usize = 10_000;
/// What a root says of itself is a line or two, bytes.
const MAX_ID: u64 = 4096;

/// Where the operator's files lie.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `hosts.yaml`.
    pub inventory: PathBuf,
    /// Kernels, initrds, loaders, roots.
    pub data: PathBuf,
    /// The site's own templates; `None`: those that are built in.
    pub templates: Option<PathBuf>,
}

/// What is served: replaced whole, or not at all.
#[derive(Debug)]
pub struct Snapshot {
    /// Networks, profiles, hosts.
    pub inventory: Inventory,
    /// Kernels, initrds, loaders.
    pub assets: Assets,
    /// Loader configs and kernel command lines.
    pub templates: Templates,
    /// Files of their own that hosts get.
    pub files: HostFiles,
    /// What HTTPS is served with, if it is.
    pub tls: Option<Tls>,
    /// The images of the embedded roots, by the name that profiles use.
    pub roots: BTreeMap<String, RootImage>,
    /// Since when it is served, where it is not what the files say now: they had faults at the start.
    pub kept_since: Option<Timestamp>,
    texts: Vec<FileText>,
    by_address: ByAddress,
    /// Looked for where somebody asks.
    free: OnceLock<FreeHosts>,
    /// Of the inventory, and all that it includes.
    sources: BTreeSet<PathBuf>,
    fingerprints: Fingerprints,
}

/// What a snapshot is made of beside the data directory.
struct Parts {
    inventory: Inventory,
    texts: Vec<FileText>,
    /// `None`: there are faults, and they are told.
    templates: Option<Templates>,
    files: Option<HostFiles>,
    tls: Option<Tls>,
    sources: BTreeSet<PathBuf>,
    fingerprints: Fingerprints,
    kept_since: Option<Timestamp>,
}

/// A root image that this daemon exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootImage {
    /// Its export, `/roots/EXPORT`: one for each image, so that hosts keep the one they booted.
    pub export: String,
    /// Its directory, links followed.
    pub path: PathBuf,
    /// What it says of itself (`etc/bridgehead-image`); may be empty.
    pub id: String,
}

impl RootImage {
    fn of(name: &str, data: &Path) -> Option<Self> {
        let path = data.join("roots").join(name).canonicalize().ok()?;
        let directory = path.file_name()?.to_str()?;
        let export = if directory.starts_with(name) {
            directory.to_owned()
        } else {
            format!("{name}@{directory}")
        };
        let id = regular::text(&path.join("etc/bridgehead-image"), MAX_ID).unwrap_or_default();
        let id = id.trim().to_owned();
        Some(Self { export, path, id })
    }
}

impl Paths {
    /// Where trees of host files lie.
    pub fn files(&self) -> Option<PathBuf> {
        self.templates.as_ref().map(|path| path.join("files"))
    }
}

impl Snapshot {
    /// Reads and checks everything. This is all of what `serve` does before it binds a
    /// socket, and all of what `check` does.
    ///
    /// # Errors
    /// Every fault at once, each with its place and the next step.
    pub fn load(
        paths: &Paths,
        previous: Option<&Self>,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        // Before the files are read: a change while they are read is then seen as one.
        let mut fingerprints = watched(paths);
        let loaded = match previous {
            None => inventory::load_or_built(&paths.inventory),
            Some(_) => inventory::load_again(&paths.inventory),
        };
        let loaded = loaded.map_err(|faulty| with_artefacts(faulty, &paths.data))?;
        let sources = loaded.seen.iter().map(|seen| seen.path.clone());
        let sources = sources.chain([paths.inventory.clone()]).collect();
        let seen = loaded.seen.iter();
        let seen = seen.map(|seen| (seen.path.clone(), Some(Fingerprint::from(&seen.metadata))));
        fingerprints.extend(seen);
        let mut found = Diagnostics::new(loaded.sources);
        found.extend(loaded.warnings);
        let inventory = loaded.inventory;
        found.extend(artefacts::check(&inventory, &paths.data, found.sources()));
        let templates = Templates::load(paths.templates.as_deref());
        let templates = rehearse::sound(templates, &inventory, &mut found);
        fingerprints.extend(watched_of(paths, &inventory));
        let files = HostFiles::load(paths, &inventory, &mut found);
        let tls = tls::load(paths, &inventory, None, &mut found);
        let parts = Parts {
            inventory,
            texts: loaded.texts,
            templates,
            files,
            tls,
            sources,
            fingerprints,
            kept_since: None,
        };
        Self::make(paths, previous, parts, found)
    }

    /// What was served since then, and kept: all of it anew but for boot files and roots, which are those of now.
    ///
    /// # Errors
    /// As of [`Self::load`].
    pub fn again(
        paths: &Paths,
        kept: Kept,
        since: Timestamp,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let loaded = inventory::load_texts(kept.texts)?;
        let mut found = Diagnostics::new(loaded.sources);
        found.extend(loaded.warnings);
        let inventory = loaded.inventory;
        found.extend(artefacts::check(&inventory, &paths.data, found.sources()));
        let templates = Templates::with(kept.templates);
        let parts = Parts {
            templates: rehearse::sound(templates, &inventory, &mut found),
            files: kept.files.sound(&inventory, &mut found),
            tls: tls::load(paths, &inventory, kept.tls, &mut found),
            inventory,
            texts: loaded.texts,
            sources: BTreeSet::from([paths.inventory.clone()]),
            // It is none of those that are on the disk.
            fingerprints: Vec::new(),
            kept_since: Some(since),
        };
        Self::make(paths, None, parts, found)
    }

    /// What has to be kept to serve it again.
    pub fn keep(&self) -> Keep<'_> {
        Keep {
            texts: &self.texts,
            templates: self.templates.own(),
            files: &self.files,
            tls: self.tls.as_ref().map(|tls| &tls.pem),
        }
    }

    fn make(
        paths: &Paths,
        previous: Option<&Self>,
        parts: Parts,
        mut found: Diagnostics,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        if found.errors() > 0 {
            found.sort();
            return Err(found);
        }
        let none = Assets::default();
        let old = previous.map_or(&none, |previous| &previous.assets);
        let assets = match Assets::load(&paths.data, &parts.inventory, old) {
            Ok(assets) => Some(assets),
            Err(faults) => {
                found.extend(faults.iter().map(|fault| {
                    Diagnostic::error("data::unreadable", format!("{fault}: {}", fault.source))
                }));
                None
            }
        };
        let (Some(assets), Some(templates), Some(files)) = (assets, parts.templates, parts.files)
        else {
            return Err(found);
        };
        let snapshot = Self {
            roots: root_images(&paths.data, &parts.inventory),
            by_address: by_address(&parts.inventory),
            inventory: parts.inventory,
            assets,
            templates,
            files,
            tls: parts.tls,
            kept_since: parts.kept_since,
            texts: parts.texts,
            free: OnceLock::new(),
            sources: parts.sources,
            fingerprints: parts.fingerprints,
        };
        Ok((snapshot, found))
    }

    /// Whether all that hosts boot by beside the inventory is what it was in `old`: boot files, templates, roots,
    /// host files and secrets. More of them is nothing to who was sent for the others.
    pub fn boots_like(&self, old: &Self) -> bool {
        let mut roots = old.roots.iter();
        self.assets.has_all_of(&old.assets)
            && roots.all(|(name, root)| self.roots.get(name) == Some(root))
            && self.beside().eq(old.beside())
    }

    /// Of the files that are read beside the inventory.
    fn beside(&self) -> impl Iterator<Item = &(PathBuf, Option<Fingerprint>)> {
        let mine = self.fingerprints.iter();
        mine.filter(|(path, _)| !self.sources.contains(path))
    }

    /// Hosts that the next machines become.
    pub fn free_hosts(&self) -> &FreeHosts {
        self.free.get_or_init(|| FreeHosts::of(&self.inventory))
    }

    /// The listed host with this address.
    pub fn host_at(&self, address: Ipv4Addr) -> Option<Arc<Host>> {
        self.by_address.get(&address).cloned()
    }

    /// The files whose change makes a snapshot stale, beside those that it serves.
    pub fn watched_files(paths: &Paths) -> Vec<PathBuf> {
        let mut files = vec![paths.inventory.clone(), paths.data.join("loaders")];
        if let Some(directory) = &paths.templates {
            files.extend(Templates::names().map(|name| directory.join(name)));
            files.extend(host_files_below(&directory.join("files")));
        }
        files
    }

    /// What the files are now that it was made from, and those that it would be made from.
    pub fn fingerprints_now(&self, paths: &Paths) -> Vec<Option<Fingerprint>> {
        let mine = self.fingerprints.iter().map(|(path, _)| path.clone());
        Self::watched_files(paths)
            .into_iter()
            .chain(mine)
            .map(|path| Fingerprint::of(&path))
            .collect()
    }

    /// Whether a file that it was made from has changed since, or a root's link.
    pub fn stale(&self, paths: &Paths) -> bool {
        let moved = |name: &String, image: &RootImage| {
            RootImage::of(name, &paths.data).is_none_or(|now| now != *image)
        };
        if self.kept_since.is_some() || self.roots.iter().any(|(name, at)| moved(name, at)) {
            return true;
        }
        self.fingerprints
            .iter()
            .any(|(path, then)| Fingerprint::of(path) != *then)
            || self.assets.stale(&paths.data)
    }
}

/// Beside the faults of an inventory, what is not there of all that it names soundly: nobody wants to be told tomorrow.
fn with_artefacts(faulty: Faulty, data: &Path) -> Diagnostics {
    let Faulty { mut found, built } = faulty;
    if let Some(built) = built {
        let missing = artefacts::check_beside_faults(&built, data, found.sources());
        found.extend(missing);
        found.sort();
    }
    found
}

/// Directories too: theirs is the change where a file comes or goes.
fn host_files_below(files: &Path) -> impl Iterator<Item = PathBuf> {
    let walk = WalkDir::new(files).sort_by_file_name().into_iter();
    walk.filter_map(Result::ok)
        .map(walkdir::DirEntry::into_path)
        .take(MAX_WATCHED)
}

type Fingerprints = Vec<(PathBuf, Option<Fingerprint>)>;

fn fingerprints(files: impl IntoIterator<Item = PathBuf>) -> Fingerprints {
    let of = |path: PathBuf| {
        let fingerprint = Fingerprint::of(&path);
        (path, fingerprint)
    };
    files.into_iter().map(of).collect()
}

fn watched(paths: &Paths) -> Fingerprints {
    fingerprints(Snapshot::watched_files(paths))
}

/// Those that the inventory names.
fn watched_of(paths: &Paths, inventory: &Inventory) -> Fingerprints {
    let secrets = inventory.secrets.as_ref();
    let secrets = secrets.map(|secrets| host_files::beside(&paths.inventory, secrets));
    let tls = tls::files(paths, inventory);
    fingerprints(secrets.into_iter().chain(tls))
}

fn by_address(inventory: &Inventory) -> ByAddress {
    // The address of one that waits for its hardware is nobody's yet.
    let hosts = inventory.hosts.values();
    let hosts = hosts.filter(|host| !host.waits_for_hardware());
    let addresses = |host: &Arc<Host>| [*host.ip, host.home.address.addr()];
    hosts
        .flat_map(|host| addresses(host).map(|address| (address, host.clone())))
        .collect()
}

fn root_images(data: &Path, inventory: &Inventory) -> BTreeMap<String, RootImage> {
    let names = inventory
        .all_profiles()
        .filter_map(|profile| match &profile.root.source {
            RootSource::Embedded { name } => Some(name),
            RootSource::External { .. } => None,
        });
    let image = |name: &String| Some((name.clone(), RootImage::of(name, data)?));
    names.filter_map(image).collect()
}

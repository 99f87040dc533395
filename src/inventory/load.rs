//! From text to [`Inventory`], every fault at once.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::faults::Faults;
use super::include::{FileText, Seen, Texts, open_handed_over};
use super::layers::{Layer, Layers};
use super::merge::merge;
use super::model::{Inventory, Sourced};
use super::networks::Networks;
use super::profiles::Profiles;
use super::tree::At;
use super::written::{self, Written};
use super::{hosts, networks, profiles, tree};
use crate::diagnostic::{Diagnostic, Diagnostics, Sources};
use crate::regular;

/// A larger one is no inventory (10,000 hosts are 1 MiB); all files together.
pub const MAX_BYTES: u64 = 16 << 20;

/// An inventory that may be served, and what the operator should look at all the same.
#[derive(Debug)]
pub struct Loaded {
    /// The inventory.
    pub inventory: Inventory,
    /// Warnings only, sorted by place.
    pub warnings: Vec<Diagnostic>,
    /// The texts that warnings and origins point into.
    pub sources: Sources,
    /// Every file that was read, and every directory that was looked into, as it was before.
    pub seen: Vec<Seen>,
    /// The texts of all files, as [`load_texts`] takes them.
    pub texts: Vec<FileText>,
}

/// An inventory that may not be served.
#[derive(Debug)]
pub struct Faulty {
    /// All faults found, sorted by place, with the texts they point into: at least one error.
    pub found: Diagnostics,
    /// What could be understood all the same, where every file could be read.
    pub built: Option<Box<Inventory>>,
}

impl From<Faulty> for Diagnostics {
    fn from(faulty: Faulty) -> Self {
        faulty.found
    }
}

/// Reads and checks an inventory file and those that it includes. The first may be a pipe that a shell hands over.
///
/// # Errors
/// All faults found, sorted by place, with the texts they point into: at least one error.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    Ok(load_or_built(path)?)
}

/// As [`load`], and what was understood of one with faults.
///
/// # Errors
/// [`Faulty`].
pub fn load_or_built(path: &Path) -> Result<Loaded, Faulty> {
    let mut faults = Faults::default();
    let texts = Texts::read(path, open_handed_over, None, &mut faults);
    finish(texts, faults)
}

/// As [`load`], where it may have been read before: a pipe that was handed over would be waited for without end.
///
/// # Errors
/// [`Faulty`].
pub fn load_again(path: &Path) -> Result<Loaded, Faulty> {
    let mut faults = Faults::default();
    let texts = Texts::read(path, regular::open, None, &mut faults);
    finish(texts, faults)
}

/// Checks what was read and kept before, without a look at any file.
///
/// # Errors
/// As of [`load`]: another version may see faults that the one before did not.
pub fn load_texts(texts: Vec<FileText>) -> Result<Loaded, Diagnostics> {
    let mut faults = Faults::default();
    let texts = Texts::again(texts, &mut faults);
    Ok(finish(texts, faults)?)
}

/// Checks an inventory as it would be with another text in one of its files; `edited` is that
/// file's path without links.
pub(super) fn load_edited(path: &Path, edited: &Path, text: &str) -> Result<Loaded, Diagnostics> {
    let mut faults = Faults::default();
    let instead = Some((edited.to_owned(), text.to_owned()));
    let texts = Texts::read(path, regular::open, instead, &mut faults);
    Ok(finish(texts, faults)?)
}

/// Checks the text of an inventory; `name` is what messages call it. Does no I/O, so it refuses to
/// include anything.
///
/// # Errors
/// All faults found, sorted by place, with the text they point into: at least one error.
pub fn parse(name: &str, text: &str) -> Result<(Inventory, Vec<Diagnostic>), Diagnostics> {
    let mut faults = Faults::default();
    let texts = Texts::single(name, text, &mut faults);
    let loaded = finish(texts, faults)?;
    Ok((loaded.inventory, loaded.warnings))
}

fn finish(texts: Texts, mut faults: Faults) -> Result<Loaded, Faulty> {
    let inventory = build(&texts, &mut faults);
    let mut found = faults.into_diagnostics();
    found.sort();
    let (sources, texts, seen) = texts.into_sources();
    match inventory {
        Some(inventory) if found.errors() == 0 => Ok(Loaded {
            inventory,
            warnings: found.into_vec(),
            sources,
            seen,
            texts,
        }),
        built => {
            found.set_sources(sources);
            let built = built.map(Box::new);
            Err(Faulty { found, built })
        }
    }
}

fn build(texts: &Texts, faults: &mut Faults) -> Option<Inventory> {
    // What could not be read would be missed by what could.
    let incomplete = faults.has_errors();
    let mut roots = Vec::with_capacity(texts.texts.len());
    for text in texts.texts.iter().filter(|text| !text.broken) {
        if text.text.len() as u64 > MAX_BYTES {
            faults.push(too_large());
            return None;
        }
        roots.push(tree::parse(text.id, &text.text, faults));
    }
    if faults.has_errors() && roots.iter().any(Option::is_none) {
        return None;
    }
    let mut roots = roots.into_iter();
    let Some(first) = roots.next().flatten() else {
        if !incomplete {
            faults.push(empty());
        }
        return None;
    };
    let root = merge(first, roots.flatten().collect(), faults);
    let written = written::read(&root, faults);
    (!incomplete).then(|| resolve(written, faults))
}

fn empty() -> Diagnostic {
    Diagnostic::error("inventory::empty", "the inventory is empty")
        .with_help("write at least one network; hosts.yaml of the source tree shows how")
}

fn resolve(written: Written, faults: &mut Faults) -> Inventory {
    let networks = networks::build(&written.networks, &written.unknown, faults);
    let profiles = profiles::build(&written.profiles, faults);
    let of_networks = written.networks.iter().map(|network| &network.unknown);
    for unknown in of_networks.chain([&written.unknown]) {
        unknown.check(&profiles, faults);
    }
    let hosts = hosts::build(&written.hosts, &networks, &profiles, faults);
    // Beside errors these would be guesses about what the errors hide.
    if !faults.has_errors() {
        warn(&written, &networks, &profiles, faults);
        hosts.warn_unfilled(&written.hosts, faults);
    }
    Inventory {
        site: written.site,
        server: written.server,
        networks: networks.by_name,
        profiles: profiles.complete(),
        hosts: hosts.by_name,
        unknown: written.unknown.resolved(&Arc::from("unknown"), faults),
        written: Layers {
            top: written.top,
            networks: layers(written.networks.iter().map(|at| (&at.name, &at.written))),
            profiles: layers(written.profiles.iter().map(|at| (&at.name, &at.written))),
            hosts: hosts.written,
        },
        secrets: written.secrets.map(|at| secrets_file(at, faults)),
        by_mac: hosts.by_mac,
        by_nic: hosts.by_nic,
        by_serial: hosts.by_serial,
        by_plug: hosts.by_plug,
    }
}

fn layers<'w>(
    written: impl Iterator<Item = (&'w At<String>, &'w Layer)>,
) -> BTreeMap<String, Layer> {
    let owned = written.map(|(name, layer)| (name.value.clone(), layer.clone()));
    owned.collect()
}

fn secrets_file(at: At<String>, faults: &Faults) -> Sourced<PathBuf> {
    let value = PathBuf::from(at.value);
    let span = at.span;
    faults.sourced(At { value, span }, &Arc::from("secrets"))
}

fn warn(written: &Written, networks: &Networks, profiles: &Profiles, faults: &mut Faults) {
    for network in &written.networks {
        if let Some(built) = networks.by_name.get(&network.name.value) {
            networks::warn_about_pool(network, built, faults);
        }
    }
    let wanted = written
        .hosts
        .iter()
        .filter_map(|host| host.profile.as_ref());
    let mut used: HashSet<&str> = wanted.map(|at| at.value.as_str()).collect();
    let of_profiles = written.profiles.iter().map(|profile| &profile.settings);
    let settings = of_profiles.chain(written.hosts.iter().map(|host| &host.settings));
    let menus = settings.filter_map(|settings| settings.menu());
    used.extend(menus.flat_map(|menu| menu.profiles()));
    let unknown = written.networks.iter().map(|network| &network.unknown);
    let unknown = unknown.chain([&written.unknown]);
    used.extend(unknown.filter_map(|unknown| unknown.profile()));
    profiles.warn_unused(&used, faults);
}

/// How much larger is not known: no more is read.
pub(super) fn too_large() -> Diagnostic {
    let most = MAX_BYTES >> 20;
    let message = format!("the inventory has more than {most} MiB, and no more is read");
    Diagnostic::error("inventory::too_large", message).with_help("is this the right file?")
}

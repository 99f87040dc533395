//! From text to [`Inventory`], every fault at once; and the one door that touches the file.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::faults::Faults;
use super::model::{Inventory, Sourced};
use super::profiles::Profiles;
use super::tree::At;
use super::written::{self, Written};
use super::{hosts, networks, profiles, tree};
use crate::diagnostic::{Diagnostic, Diagnostics, Label, Sources};

/// A larger file is no inventory (10,000 hosts are 1 MiB).
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
}

/// Reads and checks an inventory file.
///
/// # Errors
/// All faults found, sorted by place, with the text they point into: at least one error.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    let name = path.display().to_string();
    let text = read(path, &name)?;
    let (inventory, warnings) = parse(&name, &text)?;
    Ok(Loaded {
        inventory,
        warnings,
        sources: sources(Arc::from(name), text),
    })
}

/// Checks the text of an inventory; `name` is what messages call it. Does no I/O.
///
/// # Errors
/// All faults found, sorted by place, with the text they point into: at least one error.
pub fn parse(name: &str, text: &str) -> Result<(Inventory, Vec<Diagnostic>), Diagnostics> {
    let file: Arc<str> = Arc::from(name);
    let mut faults = Faults::new(file.clone());
    let inventory = build(text, &mut faults);
    let mut found = faults.into_diagnostics();
    found.sort();
    match inventory {
        Some(inventory) if found.errors() == 0 => Ok((inventory, found.into_vec())),
        _ => {
            found.set_sources(sources(file, text.to_owned()));
            Err(found)
        }
    }
}

fn sources(file: Arc<str>, text: String) -> Sources {
    let mut sources = Sources::default();
    sources.insert(file, text);
    sources
}

fn build(text: &str, faults: &mut Faults) -> Option<Inventory> {
    if text.len() as u64 > MAX_BYTES {
        faults.push(too_large(text.len() as u64));
        return None;
    }
    match tree::parse(text, faults) {
        Some(root) => {
            let written = written::read(&root, faults);
            Some(resolve(written, faults))
        }
        None if faults.has_errors() => None,
        None => {
            let empty = Diagnostic::error("inventory::empty", "the inventory is empty")
                .with_help("write at least one network; hosts.yaml of the source tree shows how");
            faults.push(empty);
            None
        }
    }
}

fn resolve(written: Written, faults: &mut Faults) -> Inventory {
    let networks = networks::build(&written.networks, faults);
    let profiles = profiles::build(&written.profiles, faults);
    let hosts = hosts::build(&written.hosts, &networks, &profiles, faults);
    // Beside errors these would be guesses about what the errors hide.
    if !faults.has_errors() {
        warn(&written, &profiles, faults);
    }
    Inventory {
        site: written.site,
        server: written.server,
        networks: networks.by_name,
        profiles: profiles.complete(),
        hosts: hosts.by_name,
        unknown: written.unknown,
        secrets: written.secrets.map(|at| secrets_file(at, faults)),
        by_mac: hosts.by_mac,
    }
}

fn secrets_file(at: At<String>, faults: &Faults) -> Sourced<PathBuf> {
    let value = PathBuf::from(at.value);
    let span = at.span;
    faults.sourced(At { value, span }, &Arc::from("secrets"))
}

fn warn(written: &Written, profiles: &Profiles, faults: &mut Faults) {
    for network in &written.networks {
        networks::warn_about_pool(network, written.unknown, faults);
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
    profiles.warn_unused(&used, faults);
}

fn too_large(bytes: u64) -> Diagnostic {
    let message = format!("the inventory has {bytes} bytes, and at most {MAX_BYTES} are read");
    Diagnostic::error("inventory::too_large", message).with_help("is this the right file?")
}

fn read(path: &Path, name: &str) -> Result<String, Diagnostics> {
    let bytes = read_bytes(path).map_err(|error| {
        let message = format!("can't read {name}: {error}");
        let help = "name the inventory with --inventory FILE, and see that you may read it";
        single(Diagnostic::error("inventory::unreadable", message).with_help(help))
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(single(too_large(bytes.len() as u64)));
    }
    String::from_utf8(bytes).map_err(|error| not_utf8(name, &error))
}

/// One byte more than allowed is enough to know that it is too large.
fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn single(diagnostic: Diagnostic) -> Diagnostics {
    let mut found = Diagnostics::default();
    found.push(diagnostic);
    found
}

fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> Diagnostics {
    let bytes = error.as_bytes();
    let (valid, _) = bytes.split_at(error.utf8_error().valid_up_to());
    // Lines end as everywhere in the file: YAML knows the lone CR too.
    let before = String::from_utf8_lossy(valid);
    let before = before.replace("\r\n", "\n").replace('\r', "\n");
    let file: Arc<str> = Arc::from(name);
    let last_line = before.rsplit('\n').next().unwrap_or_default();
    let label = Label {
        file: file.clone(),
        line: before.matches('\n').count() + 1,
        column: last_line.chars().count() + 1,
        length: 1,
        text: String::from("the first byte that is not"),
        primary: true,
    };
    let diagnostic = Diagnostic::error("inventory::not_utf8", format!("{name} is not UTF-8 text"))
        .with_label(label)
        .with_help("save the file as UTF-8");
    let mut found = single(diagnostic);
    let text = String::from_utf8_lossy(bytes).into_owned();
    found.set_sources(sources(file, text));
    found
}

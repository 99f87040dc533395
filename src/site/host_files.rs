//! A host's own files: the trees that its profile names, rendered from memory into one archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tera::Context;

use super::secrets::Secrets;
use super::{Paths, links};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::inventory::artefacts::label;
use crate::inventory::model::{Host, Inventory, Sourced};
use crate::render::archive::{Member, archive};
use crate::render::files::{Tree, TreeFile};
use crate::render::{BridgeContext, RenderError};

/// An archive larger than this is no configuration any more, bytes.
const MAX_BUNDLE: usize = 32 << 20;
/// Hosts whose files are told not to render; they mostly share one cause.
const MAX_TOLD: usize = 20;

/// Trees and secrets, as they were when the snapshot was made.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct HostFiles {
    trees: BTreeMap<String, Tree>,
    secrets: Secrets,
}

/// One host's archive. Its `Debug` shows nothing of what is in it.
#[derive(Clone)]
pub struct Bundle {
    /// The tar archive.
    pub bytes: Bytes,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} bytes)", self.bytes.len())
    }
}

/// What templates of host files may ask for, beside `secrets`.
#[derive(Serialize)]
struct FileContext<'a> {
    site: &'a str,
    machine: &'a str,
    profile: &'a str,
    address: String,
    prefix: u8,
    domain: Option<&'a str>,
    rack: Option<&'a str>,
    unit: Option<u16>,
    bridge: BridgeContext,
    network: NetworkContext<'a>,
}

#[derive(Serialize)]
struct NetworkContext<'a> {
    name: &'a str,
    subnet: String,
    netmask: String,
    router: Option<String>,
    dns: Vec<String>,
    ntp: Vec<String>,
    domain: Option<&'a str>,
}

impl HostFiles {
    /// Reads what the inventory names and renders it for every host, so that no boot is the
    /// first to find a fault. `None`: there are faults, and they are in `found`.
    pub(super) fn load(
        paths: &Paths,
        inventory: &Inventory,
        found: &mut Diagnostics,
    ) -> Option<Self> {
        let before = found.errors();
        let files = Self {
            trees: load_trees(paths, inventory, found),
            secrets: load_secrets(paths, inventory, found),
        };
        (found.errors() == before).then_some(())?;
        files.sound(inventory, found)
    }

    /// The same of what was read before.
    pub(super) fn sound(self, inventory: &Inventory, found: &mut Diagnostics) -> Option<Self> {
        let before = found.errors();
        self.warn(inventory, found);
        self.rehearse(inventory, found);
        (found.errors() == before).then_some(self)
    }

    /// The archive for a host; `None` where it gets no files.
    ///
    /// # Errors
    /// [`RenderError`] names the file; secrets are struck out of what the engine says.
    pub fn bundle(
        &self,
        inventory: &Inventory,
        host: &Host,
    ) -> Result<Option<Bundle>, RenderError> {
        let files = self.files_of(host);
        if files.is_empty() {
            return Ok(None);
        }
        let context = self.context(inventory, host)?;
        let mut rendered = Vec::with_capacity(files.len());
        for (path, (tree, file)) in &files {
            check_parents(path, &files, host)?;
            let name = format!("files/{tree}/{path}");
            let bytes = file
                .render(&context)
                .map_err(|report| self.broken(&name, host, &report))?;
            rendered.push((path, file, bytes));
        }
        let members = rendered.iter().map(|(path, file, bytes)| Member {
            path,
            mode: file.permissions(),
            owner: file.owner,
            group: file.group,
            modified: file.modified,
            bytes: bytes.as_deref(),
        });
        let bytes =
            archive(members).map_err(|error| self.broken("files", host, &error.to_string()))?;
        if bytes.len() > MAX_BUNDLE {
            let report = format!(
                "all together have {} bytes, at most {MAX_BUNDLE}",
                bytes.len()
            );
            return Err(self.broken("files", host, &report));
        }
        let sha256 = Sha256::digest(&bytes);
        let sha256 = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = bytes.into();
        Ok(Some(Bundle { bytes, sha256 }))
    }

    /// By path; of several trees the later one wins.
    fn files_of(&self, host: &Host) -> BTreeMap<&str, (&str, &TreeFile)> {
        let trees = host.profile.files.iter();
        let trees = trees.filter_map(|name| self.trees.get_key_value(&name.value));
        trees
            .flat_map(|(name, tree)| {
                let files = tree.files.iter();
                files.map(|(path, file)| (path.as_str(), (name.as_str(), file)))
            })
            .collect()
    }

    fn context(&self, inventory: &Inventory, host: &Host) -> Result<Context, RenderError> {
        let network = &*host.home.network;
        let texts = |list: &[std::net::Ipv4Addr]| list.iter().map(ToString::to_string).collect();
        let values = FileContext {
            site: &inventory.site,
            machine: &host.name,
            profile: &host.profile.name,
            address: host.home.address.addr().to_string(),
            prefix: network.subnet.prefix_len(),
            domain: network.domain.as_deref(),
            rack: host.rack.as_deref(),
            unit: host.unit,
            bridge: links::bridge(host),
            network: NetworkContext {
                name: &network.name,
                subnet: network.subnet.to_string(),
                netmask: network.subnet.netmask().to_string(),
                router: network.router.map(|router| router.to_string()),
                dns: texts(&network.dns),
                ntp: texts(&network.ntp),
                domain: network.domain.as_deref(),
            },
        };
        let mut context = Context::from_serialize(&values)
            .map_err(|error| self.broken("files", host, &error.to_string()))?;
        context.insert("secrets", &self.secrets.of(host));
        Ok(context)
    }

    /// The engine's words may quote a value that it could not use.
    fn broken(&self, name: &str, host: &Host, report: &str) -> RenderError {
        let mut report = report.to_owned();
        for secret in self.secrets.of(host).into_values() {
            for line in secret.lines().filter(|line| line.len() > 2) {
                report = report.replace(line, "(secret)");
            }
        }
        RenderError::Broken {
            name: name.to_owned(),
            report: format!("for {}: {report}", host.name),
        }
    }

    fn rehearse(&self, inventory: &Inventory, found: &mut Diagnostics) {
        let failed = |host: Arc<Host>| self.bundle(inventory, &host).err();
        let hosts = inventory.hosts.values().flat_map(|host| host.variants());
        for fault in hosts.filter_map(failed).take(MAX_TOLD) {
            let help = "mend the file, or give what it asks for; a value that may be missing: {% if secrets.x is defined %}";
            found.push(Diagnostic::error("files::broken", fault.to_string()).with_help(help));
        }
    }

    fn warn(&self, inventory: &Inventory, found: &mut Diagnostics) {
        for (tree, path, file) in self.all_files() {
            let mode = file.permissions();
            if file.uses_secrets() && mode & 0o007 != 0 {
                let message = format!(
                    "files/{tree}/{path} asks for secrets, and mode {mode:04o} lets every user of the host at it"
                );
                let help = "write mode: \"0600\" for it in _files.yaml";
                found.push(Diagnostic::warning("files::open_secret", message).with_help(help));
            }
        }
        for stranger in self.secrets.strangers(inventory) {
            let message =
                format!("the secrets file names the {stranger}, which the inventory does not");
            let help = "correct the name, or remove it";
            found.push(Diagnostic::warning("secrets::stranger", message).with_help(help));
        }
    }

    fn all_files(&self) -> impl Iterator<Item = (&str, &str, &TreeFile)> {
        self.trees.iter().flat_map(|(tree, files)| {
            let files = files.files.iter();
            files.map(move |(path, file)| (tree.as_str(), path.as_str(), file))
        })
    }
}

/// One tree's file where another's directory would have to be.
fn check_parents(
    path: &str,
    files: &BTreeMap<&str, (&str, &TreeFile)>,
    host: &Host,
) -> Result<(), RenderError> {
    let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
    for parent in parents {
        if let Some((tree, file)) = files.get(parent)
            && !file.is_directory()
        {
            return Err(RenderError::Broken {
                name: format!("files/{tree}/{parent}"),
                report: format!(
                    "for {}: it is a file, and {path} of another tree needs a directory there",
                    host.name
                ),
            });
        }
    }
    Ok(())
}

fn load_trees(
    paths: &Paths,
    inventory: &Inventory,
    found: &mut Diagnostics,
) -> BTreeMap<String, Tree> {
    let mut trees = BTreeMap::new();
    for name in named(inventory) {
        let Some(directory) = paths
            .files()
            .filter(|files| files.join(&name.value).is_dir())
        else {
            let fault = missing(paths, name, found);
            found.push(fault);
            continue;
        };
        match Tree::load(&directory, &name.value) {
            Ok(tree) => {
                trees.insert(name.value.clone(), tree);
            }
            Err(faults) => found.extend(faults.iter().map(|fault| {
                let cause = std::error::Error::source(fault).map(|cause| format!(": {cause}"));
                let message = format!("{fault}{}", cause.unwrap_or_default());
                Diagnostic::error("files::unusable", message)
            })),
        }
    }
    trees
}

/// Every tree that is named, once, with the first place of it.
fn named(inventory: &Inventory) -> Vec<&Sourced<String>> {
    let mut seen = BTreeSet::new();
    inventory
        .all_profiles()
        .flat_map(|profile| &profile.files)
        .filter(|name| seen.insert(name.value.as_str()))
        .collect()
}

fn missing(paths: &Paths, name: &Sourced<String>, found: &Diagnostics) -> Diagnostic {
    let tree = &name.value;
    let (message, help) = match paths.files() {
        Some(files) => (
            format!(
                "there is no tree of files {tree}: no {}",
                files.join(tree).display()
            ),
            "make that directory; templates/files of the source tree has examples",
        ),
        None => (
            format!("there is no tree of files {tree}: no templates directory"),
            "put a templates directory beside hosts.yaml, or name one with --templates",
        ),
    };
    let mut fault = Diagnostic::error("files::missing_tree", message).with_help(help);
    let place = name.origin.as_ref();
    fault
        .labels
        .extend(place.map(|origin| label(origin, found.sources(), "")));
    fault
}

fn load_secrets(paths: &Paths, inventory: &Inventory, found: &mut Diagnostics) -> Secrets {
    let Some(file) = &inventory.secrets else {
        return Secrets::default();
    };
    Secrets::load(&beside(&paths.inventory, &file.value)).unwrap_or_else(|fault| {
        let cause = std::error::Error::source(&fault).map(|cause| format!(": {cause}"));
        let message = format!("{fault}{}", cause.unwrap_or_default());
        let mut told = Diagnostic::error("secrets::unusable", message).with_help(fault.help());
        let place = file.origin.as_ref();
        told.labels
            .extend(place.map(|origin| label(origin, found.sources(), "")));
        found.push(told);
        Secrets::default()
    })
}

/// A file that the inventory names: from where the inventory lies.
pub(super) fn beside(inventory: &Path, file: &Path) -> std::path::PathBuf {
    inventory.parent().unwrap_or(Path::new("")).join(file)
}

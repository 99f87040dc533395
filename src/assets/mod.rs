//! Kernels, initrds and loaders, held once in memory and shared by TFTP and HTTP.
//!
//! What is served is what was read at load time: no request opens a file, so no request
//! can reach one that is not served.

mod sealed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::inventory::model::Inventory;
use crate::policy::architecture::Architecture;
use crate::policy::event::Stage;
use crate::regular;

/// A loader directory larger than this is a mistake, bytes.
const MAX_LOADERS: u64 = 256 << 20;
/// A kernel or initrd larger than this is a mistake, bytes.
const MAX_FILE: u64 = 1 << 30;

/// From this size on the kernel sends a file by itself; a smaller one is copied as fast, and needs no descriptor, bytes.
const SEALED: u64 = 256 << 10;

/// What tells one version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Fingerprint {
    /// Of what is at the path now; `None` if there is nothing.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path)
            .ok()
            .map(|metadata| Self::from(&metadata))
    }
}

impl From<&fs::Metadata> for Fingerprint {
    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// One file, whole.
#[derive(Debug)]
pub struct Asset {
    /// Its bytes.
    pub bytes: Bytes,
    /// SHA-256, hexadecimal; also its entity tag.
    pub sha256: String,
    fingerprint: Fingerprint,
    memory: Option<File>,
}

impl Asset {
    /// The memory file that holds the same bytes, if the file is large: for sendfile(2).
    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.memory.as_ref().map(File::as_fd)
    }
}

/// A file that should be served and can't be.
#[derive(Debug, thiserror::Error)]
#[error("cannot load {} to serve it", path.display())]
pub struct AssetError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Every file that is served, by its path below the data directory.
#[derive(Debug, Clone, Default)]
pub struct Assets {
    files: BTreeMap<String, Arc<Asset>>,
    loaders: BTreeSet<String>,
    kernels: BTreeMap<String, Architecture>,
}

impl Assets {
    /// Reads what the inventory's profiles name, and every loader. Files that have not
    /// changed since `previous` are taken over from there.
    ///
    /// # Errors
    /// Every file that can't be read, or that lies outside the data directory.
    pub fn load(
        data: &Path,
        inventory: &Inventory,
        previous: &Self,
    ) -> Result<Self, Vec<AssetError>> {
        let mut files = BTreeMap::new();
        let mut faults = Vec::new();
        let wanted = wanted(data, inventory).unwrap_or_else(|fault| {
            faults.push(fault);
            Vec::new()
        });
        for name in wanted {
            match load_one(data, &name, previous.files.get(&name)) {
                Ok(asset) => {
                    files.insert(name, asset);
                }
                Err(source) => faults.push(AssetError {
                    path: data.join(&name),
                    source,
                }),
            }
        }
        if faults.is_empty() {
            let below = |name: &String| name.strip_prefix("loaders/").map(str::to_owned);
            let loaders = files.keys().filter_map(below).collect();
            let kernels = kernels(&files);
            Ok(Self {
                files,
                loaders,
                kernels,
            })
        } else {
            Err(faults)
        }
    }

    /// The file with this path below the data directory.
    pub fn get(&self, path: &str) -> Option<&Arc<Asset>> {
        self.files.get(path)
    }

    /// The file that a TFTP client means: loaders lie at the top there, as firmware and
    /// loaders expect (`pxelinux.0` looks for `ldlinux.c32` beside itself).
    pub fn get_by_tftp(&self, name: &str) -> Option<(&str, &Arc<Asset>)> {
        let exact = self.files.get_key_value(name);
        let found = exact.or_else(|| self.files.get_key_value(&format!("loaders/{name}")));
        found.map(|(path, asset)| (path.as_str(), asset))
    }

    /// The file that an HTTP client means: shim asks for `loaders//grubx64.efi`, beside itself.
    pub fn get_by_http(&self, path: &str) -> Option<(&str, &Arc<Asset>)> {
        let exact = self.files.get_key_value(path);
        let found = exact.or_else(|| self.files.get_key_value(&path.replace("//", "/")));
        found.map(|(path, asset)| (path.as_str(), asset))
    }

    /// What each kernel runs on, by its name, where its image says so.
    pub fn kernels(&self) -> &BTreeMap<String, Architecture> {
        &self.kernels
    }

    /// The names in `loaders/`.
    pub fn loaders(&self) -> &BTreeSet<String> {
        &self.loaders
    }

    /// Whether each file of `old` is the same here.
    pub fn has_all_of(&self, old: &Self) -> bool {
        old.files.iter().all(|(path, asset)| {
            let here = self.files.get(path);
            here.is_some_and(|here| here.sha256 == asset.sha256)
        })
    }

    /// Whether a served file has changed on disk, or has gone.
    pub fn stale(&self, data: &Path) -> bool {
        self.files
            .iter()
            .any(|(name, asset)| Fingerprint::of(&data.join(name)) != Some(asset.fingerprint))
    }

    /// Number of files and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let bytes = self.files.values().map(|asset| asset.bytes.len()).sum();
        (self.files.len(), bytes)
    }
}

/// The path of a profile's kernel below the data directory.
pub fn kernel_path(kernel: &str) -> String {
    format!("kernels/{kernel}/vmlinuz")
}

/// The path of a profile's initrd below the data directory.
pub fn initrd_path(initrd: &str) -> String {
    format!("initrds/{initrd}.img")
}

/// The stage of a boot that a file belongs to.
pub fn stage_of(path: &str) -> Stage {
    if path.starts_with("kernels/") {
        Stage::Kernel
    } else if path.starts_with("initrds/") {
        Stage::Initrd
    } else {
        Stage::Loader
    }
}

fn wanted(data: &Path, inventory: &Inventory) -> Result<Vec<String>, AssetError> {
    let mut names: Vec<String> = inventory
        .all_profiles()
        .flat_map(|profile| [kernel_path(&profile.kernel), initrd_path(&profile.initrd)])
        .collect();
    let bare = inventory
        .all_profiles()
        .flat_map(|profile| profile.bare_kernels());
    names.extend(bare.map(|kernel| kernel_path(kernel)));
    names.extend(loaders(data)?);
    names.sort();
    names.dedup();
    Ok(names)
}

fn loaders(data: &Path) -> Result<Vec<String>, AssetError> {
    let directory = data.join("loaders");
    let mut names = Vec::new();
    let mut total = 0;
    for entry in WalkDir::new(&directory).sort_by_file_name() {
        let entry = entry.map_err(|error| AssetError {
            path: directory.clone(),
            source: error.into(),
        })?;
        if entry.file_type().is_dir() {
            continue;
        }
        total += entry.metadata().map_or(0, |metadata| metadata.len());
        if total > MAX_LOADERS {
            let source = io::Error::other("more than 256 MiB: loaders alone belong there");
            return Err(AssetError {
                path: directory,
                source,
            });
        }
        let below = entry.path().strip_prefix(data).unwrap_or(entry.path());
        // A name that is not UTF-8 could not be asked for.
        names.extend(below.to_str().map(str::to_owned));
    }
    Ok(names)
}

fn kernels(files: &BTreeMap<String, Arc<Asset>>) -> BTreeMap<String, Architecture> {
    let named = files.iter().filter_map(|(path, asset)| {
        let name = path.strip_prefix("kernels/")?.strip_suffix("/vmlinuz")?;
        Some((name.to_owned(), Architecture::of_kernel(&asset.bytes)?))
    });
    named.collect()
}

fn load_one(data: &Path, name: &str, previous: Option<&Arc<Asset>>) -> io::Result<Arc<Asset>> {
    let root = data.canonicalize()?;
    let path = data.join(name).canonicalize()?;
    if !path.starts_with(&root) {
        let target = path.display();
        return Err(io::Error::other(format!(
            "it is a link out of the data directory, to {target}; put the file itself there"
        )));
    }
    let file = regular::open(&path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_FILE {
        return Err(io::Error::other("it has more than 1 GiB"));
    }
    let fingerprint = Fingerprint::from(&metadata);
    if let Some(previous) = previous.filter(|previous| previous.fingerprint == fingerprint) {
        return Ok(previous.clone());
    }
    let (memory, bytes) = read(file, metadata.len())?;
    let sha256 = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Arc::new(Asset {
        bytes,
        sha256,
        fingerprint,
        memory,
    }))
}

fn read(file: File, length: u64) -> io::Result<(Option<File>, Bytes)> {
    let mut file = file.take(MAX_FILE);
    if length >= SEALED {
        let (memory, bytes) = sealed::read(&mut file, length)?;
        return Ok((Some(memory), bytes));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((None, bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::model::{Layers, Server, Unknown};
    use std::collections::HashMap;

    fn inventory() -> Inventory {
        Inventory {
            site: String::new(),
            server: Server::default(),
            networks: BTreeMap::new(),
            profiles: BTreeMap::new(),
            hosts: BTreeMap::new(),
            unknown: Unknown::default(),
            secrets: None,
            by_mac: HashMap::new(),
            by_nic: HashMap::new(),
            by_serial: HashMap::new(),
            by_plug: HashMap::new(),
            written: Layers::default(),
        }
    }

    fn data() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("loaders/sub")).unwrap();
        fs::write(dir.path().join("loaders/a.efi"), "one").unwrap();
        fs::write(dir.path().join("loaders/sub/b"), "two").unwrap();
        dir
    }

    #[test]
    fn loaders_are_found_at_the_top_by_tftp_and_beside_shim_by_http() {
        let dir = data();
        let assets = Assets::load(dir.path(), &inventory(), &Assets::default()).unwrap();
        assert_eq!(assets.get_by_tftp("a.efi").unwrap().1.bytes, "one");
        assert_eq!(assets.get_by_tftp("sub/b").unwrap().0, "loaders/sub/b");
        assert!(assets.get_by_tftp("../loaders/a.efi").is_none());
        assert_eq!(
            assets.get_by_http("loaders//a.efi").unwrap().0,
            "loaders/a.efi"
        );
        assert!(assets.get_by_http("a.efi").is_none());
        assert!(assets.get("/etc/passwd").is_none());
    }

    #[test]
    fn a_link_out_of_the_data_directory_is_refused_and_one_within_is_served() {
        let dir = data();
        let link = dir.path().join("loaders/link");
        std::os::unix::fs::symlink("a.efi", &link).unwrap();
        assert!(Assets::load(dir.path(), &inventory(), &Assets::default()).is_ok());
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let faults = Assets::load(dir.path(), &inventory(), &Assets::default()).unwrap_err();
        assert!(faults[0].source.to_string().contains("/etc/passwd"));
    }

    #[test]
    fn what_has_not_changed_is_not_read_again() {
        let dir = data();
        let first = Assets::load(dir.path(), &inventory(), &Assets::default()).unwrap();
        assert!(!first.stale(dir.path()));
        fs::write(dir.path().join("loaders/a.efi"), "other").unwrap();
        assert!(first.stale(dir.path()));
        let second = Assets::load(dir.path(), &inventory(), &first).unwrap();
        assert!(Arc::ptr_eq(
            first.get("loaders/sub/b").unwrap(),
            second.get("loaders/sub/b").unwrap()
        ));
        assert_eq!(second.get("loaders/a.efi").unwrap().bytes, "other");
    }
}

//! The last good inventory in the state directory, for a start at which the operator's files have faults.
//!
//! One file: a line that says what it is, and JSON. It is written when something else comes to be served, in one piece;
//! where hosts went by that, the one before stays beside it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::JoinError;

use super::{Options, state};
use crate::diagnostic::Diagnostics;
use crate::regular;
use crate::site::keep::{Keep, Kept};
use crate::site::trouble::Part;
use crate::site::{Site, Snapshot};

/// The file in the state directory.
const NAME: &str = "inventory.kept";
/// The one before, where hosts went.
const OLD: &str = "inventory.kept.old";
/// What a change that an older daemon would misread adds one to.
const FORMAT: u32 = 1;
/// More is not kept, bytes: inventory and secrets have 16 MiB at most each, and a tree of host files as much.
const MOST: usize = 64 << 20;
/// How soon what the disk did not take is tried again, at first.
const RETRY: Duration = Duration::from_secs(5);
/// And at last.
const MOST_RETRY: Duration = Duration::from_secs(300);

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Of the rest.
    sha256: String,
    /// The inventory's path, so that one daemon does not serve what another one was given.
    inventory: String,
    since: Timestamp,
}

/// What of any version's first line can be read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// What was kept of this inventory.
pub(super) struct Found {
    pub(super) kept: Kept,
    /// Since when it was served.
    pub(super) since: Timestamp,
    /// Its checksum.
    pub(super) sha256: String,
}

/// What was kept can't be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeptError {
    #[error("cannot read the last good inventory, {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the last good inventory, {}, is damaged ({why}) and is not served", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(
        "the last good inventory, {}, was written by a newer bridgehead (format {format}, and this one knows {FORMAT}): start that one, or mend hosts.yaml", path.display()
    )]
    Newer { path: PathBuf, format: u32 },
    #[error("the last good inventory, {}, is that of {of} and not of {inventory}: it is not served", path.display())]
    Another {
        path: PathBuf,
        of: String,
        inventory: String,
    },
    #[error("the last good inventory, as it was on {since:.0}, can't be served either:\n{found}")]
    Unusable {
        since: Timestamp,
        found: Box<Diagnostics>,
    },
}

/// What was kept of this inventory.
///
/// # Errors
/// It is there, and can't be read; it is another's.
pub(super) fn read(options: &Options) -> Result<Option<Found>, KeptError> {
    let path = options.state.join(NAME);
    let Some((header, body)) = open(&path)? else {
        return Ok(None);
    };
    let inventory = &options.paths.inventory;
    if !is_same(Path::new(&header.inventory), inventory) {
        return Err(KeptError::Another {
            path,
            of: header.inventory,
            inventory: name_of(inventory).display().to_string(),
        });
    }
    let kept = serde_json::from_slice(&body).map_err(|error| misread(&path, &error, 2))?;
    Ok(Some(Found {
        kept,
        since: header.since,
        sha256: header.sha256,
    }))
}

fn damaged(path: &Path, why: impl Into<String>) -> KeptError {
    KeptError::Damaged {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// The parser's own words may show what it read, which may be a secret. `first` is the line that it read first.
fn misread(path: &Path, error: &serde_json::Error, first: usize) -> KeptError {
    let line = error.line().saturating_sub(1) + first;
    let column = error.column();
    damaged(
        path,
        format!("line {line}, column {column} is not as this version writes it"),
    )
}

/// Its name in the header.
fn name_of(inventory: &Path) -> PathBuf {
    std::path::absolute(inventory).unwrap_or_else(|_| inventory.to_owned())
}

/// The same name, or the same file by whatever way a daemon is started.
fn is_same(kept: &Path, inventory: &Path) -> bool {
    let inventory = name_of(inventory);
    kept == inventory || resolved(kept) == resolved(&inventory)
}

/// Without links and `..`; where the file is not there, its directory is.
fn resolved(path: &Path) -> PathBuf {
    let beside = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    let whole = path.canonicalize().ok();
    whole.or_else(beside).unwrap_or_else(|| path.to_owned())
}

fn open(path: &Path) -> Result<Option<(Header, Vec<u8>)>, KeptError> {
    // The first line holds a path, which has 4 KiB at most.
    let mut bytes = match regular::bytes(path, MOST as u64 + 8192) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| KeptError::Unreadable {
            path: path.to_owned(),
            source,
        })?,
    };
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let body = bytes.split_off(end.map_or(bytes.len(), |end| end + 1));
    let header: Header = match serde_json::from_slice(&bytes) {
        Ok(Format { format }) if format > FORMAT => {
            let path = path.to_owned();
            return Err(KeptError::Newer { path, format });
        }
        Ok(_) => serde_json::from_slice(&bytes),
        Err(error) => Err(error),
    }
    .map_err(|error| misread(path, &error, 1))?;
    match header.sha256 == sum(&body) {
        true => Ok(Some((header, body))),
        false => Err(damaged(path, "its checksum is another")),
    }
}

fn sum(body: &[u8]) -> String {
    hexadecimal(Sha256::digest(body))
}

fn hexadecimal(sum: impl IntoIterator<Item = u8>) -> String {
    let bytes = sum.into_iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// What is served can't be kept.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(
        "the inventory that is served can't be kept for a restart, cannot write {}: {source}; a daemon that starts while hosts.yaml has a fault serves an older one, or none: make room on the disk, or look at it", path.display()
    )]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "the inventory that is served can't be kept for a restart: with its host files it has more than {} MiB; a daemon that starts while hosts.yaml has a fault serves an older one, or none: make the trees of host files smaller, what is large and the same for all hosts belongs into the root image", most >> 20
    )]
    TooLarge { most: usize },
    #[error(
        "the inventory that is served can't be kept for a restart, our own fault: {0}; a daemon that starts while hosts.yaml has a fault serves an older one, or none: restart it while the inventory is good"
    )]
    Ours(String),
}

/// Takes the length and checksum of what would be written, and holds nothing of it.
struct Measure {
    length: usize,
    most: usize,
    sha256: Sha256,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.length = self.length.saturating_add(bytes.len());
        if self.length > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.sha256.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who writes it.
pub(super) struct Keeper {
    state: PathBuf,
    inventory: PathBuf,
    most: usize,
    /// The checksum of what is there; `None`: something else has to be written.
    sha256: Option<String>,
    /// The hosts of what is there.
    hosts: BTreeSet<String>,
}

impl Keeper {
    /// `None` where nothing is kept: a pipe that a shell handed over has a name that means nothing tomorrow.
    pub(super) fn new(options: &Options) -> Option<Self> {
        let inventory = &options.paths.inventory;
        let passes = fs::metadata(inventory).is_ok_and(|metadata| !metadata.is_file());
        (!passes).then(|| Self {
            state: options.state.clone(),
            inventory: inventory.clone(),
            most: MOST,
            sha256: None,
            hosts: BTreeSet::new(),
        })
    }

    /// This is there, with these hosts.
    pub(super) fn follow(&mut self, sha256: String, hosts: BTreeSet<String>) {
        self.sha256 = Some(sha256);
        self.hosts = hosts;
    }

    /// Where the one before stays when hosts went.
    pub(super) fn old(&self) -> PathBuf {
        self.state.join(OLD)
    }

    /// Sees to it that this is what the file holds.
    fn keep(&mut self, snapshot: &Snapshot) -> Result<(), KeepError> {
        let keep = snapshot.keep();
        let (length, sha256) = self.measure(&keep)?;
        if self.sha256.as_ref() == Some(&sha256) {
            return Ok(());
        }
        let path = self.state.join(NAME);
        let hosts = snapshot.inventory.hosts.keys().cloned().collect();
        let unwritten = |path| move |source| KeepError::Write { path, source };
        // Whatever comes of it.
        self.sha256 = None;
        if !self.hosts.is_subset(&hosts)
            && let Ok(before) = regular::bytes(&path, self.most as u64 + 8192)
        {
            let old = self.old();
            state::replace(&old, &before).map_err(unwritten(old))?;
        }
        let bytes = self.bytes(&keep, length, &sha256);
        let written = bytes.and_then(|bytes| state::replace(&path, &bytes));
        written.map_err(unwritten(path))?;
        self.follow(sha256, hosts);
        Ok(())
    }

    fn measure(&self, keep: &Keep<'_>) -> Result<(usize, String), KeepError> {
        let most = self.most;
        let mut measure = Measure {
            length: 0,
            most,
            sha256: Sha256::new(),
        };
        match serde_json::to_writer(&mut measure, keep) {
            Ok(()) => Ok((measure.length, hexadecimal(measure.sha256.finalize()))),
            Err(_) if measure.length > most => Err(KeepError::TooLarge { most }),
            Err(error) => Err(KeepError::Ours(error.to_string())),
        }
    }

    fn bytes(&self, keep: &Keep<'_>, length: usize, sha256: &str) -> io::Result<Vec<u8>> {
        let header = Header {
            format: FORMAT,
            sha256: sha256.to_owned(),
            inventory: name_of(&self.inventory).display().to_string(),
            since: Timestamp::now(),
        };
        let mut bytes = serde_json::to_vec(&header)?;
        bytes.push(b'\n');
        bytes.reserve_exact(length);
        serde_json::to_writer(&mut bytes, keep)?;
        Ok(bytes)
    }
}

/// Keeps what is served, and tells what comes of it. Without it hosts boot all the same.
pub(super) struct Keeping {
    /// `None`: nothing is kept, or it writes.
    keeper: Option<Keeper>,
    /// When, after how long a wait, it is tried again.
    again: Option<(Instant, Duration)>,
}

impl Keeping {
    pub(super) fn new(keeper: Option<Keeper>) -> Self {
        Self {
            keeper,
            again: None,
        }
    }

    /// Whether what could not be kept is to be tried again.
    pub(super) fn is_due(&self) -> bool {
        self.again.is_some_and(|(at, _)| at <= Instant::now())
    }

    /// Keeps what is served for a start with files that have faults.
    pub(super) async fn keep(&mut self, site: &Site) {
        let snapshot = site.snapshot();
        // What was kept is on the disk.
        if snapshot.kept_since.is_some() {
            return;
        }
        let Some(mut keeper) = self.keeper.take() else {
            return;
        };
        let kept = tokio::task::spawn_blocking(move || {
            let kept = keeper.keep(&snapshot);
            (keeper, kept)
        });
        let fault = self.take_back(kept.await);
        self.note(site, fault);
    }

    /// Who wrote is lost by a panic, and that must be seen.
    fn take_back(
        &mut self,
        kept: Result<(Keeper, Result<(), KeepError>), JoinError>,
    ) -> Option<KeepError> {
        match kept {
            Ok((keeper, kept)) => {
                self.keeper = Some(keeper);
                kept.err()
            }
            Err(panic) => Some(KeepError::Ours(panic.to_string())),
        }
    }

    fn note(&mut self, site: &Site, fault: Option<KeepError>) {
        let wait = self.again.map_or(RETRY, |(_, wait)| wait * 2);
        let wait = wait.min(MOST_RETRY);
        // What is too large, and our own fault, stays so until something else is served.
        let passes = matches!(fault, Some(KeepError::Write { .. }));
        self.again = passes.then(|| (Instant::now() + wait, wait));
        let trouble = fault.map(|fault| fault.to_string());
        if site.troubles.set(Part::Kept, "", trouble.clone()) {
            match trouble {
                Some(trouble) => tracing::error!("{trouble}"),
                None => tracing::info!("the inventory that is served is kept again"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::testing;

    fn keeper(state: &Path) -> Keeper {
        Keeper {
            state: state.to_owned(),
            inventory: state.join("hosts.yaml"),
            most: MOST,
            sha256: None,
            hosts: BTreeSet::new(),
        }
    }

    #[test]
    fn an_inventory_is_the_same_by_links_and_dots_and_where_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let file = real.join("hosts.yaml");
        for there in [false, true] {
            if there {
                fs::write(&file, "").unwrap();
            }
            assert!(is_same(&file, &link.join("hosts.yaml")), "{there}");
            assert!(is_same(&real.join("../link/hosts.yaml"), &file), "{there}");
            assert!(!is_same(&file, &real.join("other.yaml")), "{there}");
        }
        let elsewhere = dir.path().join("hosts.yaml");
        std::os::unix::fs::symlink(&file, &elsewhere).unwrap();
        assert!(is_same(&elsewhere, &file));
        fs::remove_file(&file).unwrap();
        assert!(is_same(&elsewhere, &elsewhere));
    }

    #[test]
    fn what_is_wrong_with_what_was_kept_shows_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = serde_json::from_str::<BTreeSet<u8>>("[1, \"hunter2\"]").unwrap_err();
        assert!(error.to_string().contains("hunter2"));
        let said = misread(dir.path(), &error, 2).to_string();
        assert!(
            said.contains("line 2, column 13") && !said.contains("hunter2"),
            "{said}"
        );
    }

    #[test]
    fn what_is_too_large_is_not_built_and_not_tried_again_and_a_full_disk_ever_more_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let mut keeper = keeper(dir.path());
        keeper.most = 16;
        let large = keeper.keep(&site.snapshot()).unwrap_err();
        assert!(large.to_string().contains("trees of host files smaller"));
        keeper.most = MOST;
        // As root no mode would stop it.
        let beside = dir.path().join("inventory.new");
        fs::create_dir(&beside).unwrap();
        let mut keeping = Keeping::new(None);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let unwritten = keeper.keep(&site.snapshot()).unwrap_err();
            assert!(unwritten.to_string().contains("make room on the disk"));
            keeping.note(&site, Some(unwritten));
            waits.push(keeping.again.unwrap().1.as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        keeping.note(&site, Some(large));
        assert!(keeping.again.is_none() && site.troubles().len() == 1);
        fs::remove_dir(&beside).unwrap();
        // Whatever is at the inventory's path: an editor's rename has a gap.
        keeper.keep(&site.snapshot()).unwrap();
        keeping.note(&site, None);
        assert!(dir.path().join(NAME).exists() && site.troubles().is_empty());
    }

    #[tokio::test]
    async fn a_panic_while_it_writes_is_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let mut keeping = Keeping::new(None);
        let fault = keeping.take_back(tokio::spawn(async { panic!("full moon") }).await);
        keeping.note(&site, fault);
        let told = site.troubles().remove(0).message;
        assert!(
            told.contains("our own fault: ") && told.contains("full moon"),
            "{told}"
        );
        assert!(!keeping.is_due());
    }

    #[test]
    fn where_hosts_went_the_one_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        let site = testing::site(dir.path());
        let mut keeper = keeper(dir.path());
        keeper.keep(&site.snapshot()).unwrap();
        assert!(!keeper.old().exists());
        let before = fs::read(dir.path().join(NAME)).unwrap();
        keeper.hosts.insert("gone".into());
        keeper.sha256 = None;
        keeper.keep(&site.snapshot()).unwrap();
        assert_eq!(fs::read(keeper.old()).unwrap(), before);
    }
}

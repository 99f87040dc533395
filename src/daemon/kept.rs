//! The last good inventory in the state directory, for a start at which the operator's files have faults.
//!
//! One file: a line that says what it is, and JSON. It is written when something else comes to be served, in one piece.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Options, state};
use crate::regular;
use crate::site::Snapshot;
use crate::site::keep::Kept;

/// The file in the state directory.
const NAME: &str = "inventory.kept";
/// What a change that an older daemon would misread adds one to.
const FORMAT: u32 = 1;
/// More is not kept, bytes: inventory and secrets have 16 MiB at most each, and a tree of host files as much.
const MOST: usize = 64 << 20;

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
    #[error("the last good inventory, as it was on {since:.0}, can't be served either:\n{found}")]
    Unusable { since: Timestamp, found: String },
}

/// What was kept of this inventory, and since when it was served.
///
/// # Errors
/// It is there, and can't be read.
pub(super) fn read(options: &Options) -> Result<Option<(Kept, Timestamp)>, KeptError> {
    let path = options.state.join(NAME);
    let Some((header, body)) = open(&path)? else {
        return Ok(None);
    };
    let inventory = name_of(&options.paths.inventory);
    if header.inventory != inventory {
        tracing::warn!(
            "the last good inventory, {}, is that of {} and not of {inventory}: it is not served",
            path.display(),
            header.inventory
        );
        return Ok(None);
    }
    let kept = serde_json::from_slice(&body).map_err(|error| damaged(&path, &error))?;
    Ok(Some((kept, header.since)))
}

fn damaged(path: &Path, why: &impl ToString) -> KeptError {
    KeptError::Damaged {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// The same file by whatever way a daemon is started.
fn name_of(inventory: &Path) -> String {
    let whole = std::path::absolute(inventory);
    let whole = whole.as_deref().unwrap_or(inventory);
    whole.display().to_string()
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
    .map_err(|error| damaged(path, &error))?;
    match header.sha256 == sum(&body) {
        true => Ok(Some((header, body))),
        false => Err(damaged(path, &"its checksum is another")),
    }
}

fn sum(body: &[u8]) -> String {
    let sum = Sha256::digest(body);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who writes it.
pub(super) struct Keeper {
    path: PathBuf,
    inventory: PathBuf,
    /// The checksum of what is there; `None`: something else has to be written.
    there: Option<String>,
}

impl Keeper {
    pub(super) fn new(options: &Options) -> Self {
        let path = options.state.join(NAME);
        let inventory = options.paths.inventory.clone();
        let there = open(&path).unwrap_or_else(|error| {
            tracing::warn!("{error}; it is written anew when the inventory is good");
            None
        });
        let there = there.filter(|(header, _)| header.inventory == name_of(&inventory));
        Self {
            path,
            inventory,
            there: there.map(|(header, _)| header.sha256),
        }
    }

    /// Sees to it that this is what the file holds.
    ///
    /// # Errors
    /// In words, that it is not, and what comes of it.
    pub(super) fn keep(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        // A pipe that a shell handed over has a name that means nothing tomorrow.
        if !fs::metadata(&self.inventory).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(());
        }
        self.try_keep(snapshot).map_err(|error| {
            let path = self.path.display();
            format!(
                "the inventory that is served can't be kept for a restart, cannot write {path}: {error}; a daemon that starts while hosts.yaml has a fault serves an older one, or none: make room on the disk, or look at it"
            )
        })
    }

    fn try_keep(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let body = serde_json::to_vec(&snapshot.keep())?;
        if body.len() > MOST {
            let message = format!("it would have more than {} MiB", MOST >> 20);
            return Err(io::Error::other(message));
        }
        let sha256 = sum(&body);
        if self.there.as_ref() == Some(&sha256) {
            return Ok(());
        }
        let header = Header {
            format: FORMAT,
            sha256: sha256.clone(),
            inventory: name_of(&self.inventory),
            since: Timestamp::now(),
        };
        let mut bytes = serde_json::to_vec(&header)?;
        bytes.write_all(b"\n")?;
        bytes.write_all(&body)?;
        self.there = None;
        state::replace(&self.path, &bytes)?;
        self.there = Some(sha256);
        Ok(())
    }
}

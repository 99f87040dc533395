//! The journal's file: its lines, how they are read, and how the whole is replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::clock::Mark;
use super::{JournalError, failed};
use crate::policy::lease::{LeaseChange, LeaseTable};

/// A line is never longer, bytes: ours have some 150.
const MAX_LINE: u64 = 4096;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Record {
    /// What time it was, and what was written before is older.
    Clock(Mark),
    #[serde(untagged)]
    Change(LeaseChange),
}

/// All that a journal says.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub table: LeaseTable,
    pub mark: Option<Mark>,
    pub torn: Option<Torn>,
}

/// Where a crash cut off what was being written; what follows is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Torn {
    /// The last line has no end.
    Cut {
        /// 1-based.
        line: usize,
    },
    /// The file had grown on disk, and its data was not there yet: ext4 and XFS give NULs for
    /// it. Blocks reach the disk in any order, so whole lines may follow. They are of one group
    /// of changes that was never acknowledged, for what was is synced before the next is written.
    Hole {
        /// 1-based.
        line: usize,
    },
}

pub(super) fn push_change(bytes: &mut Vec<u8>, change: &LeaseChange) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, change)?;
    bytes.push(b'\n');
    Ok(())
}

pub(super) fn push_mark(bytes: &mut Vec<u8>, mark: Mark) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, &Record::Clock(mark))?;
    bytes.push(b'\n');
    Ok(())
}

/// Reads the journal up to where a crash cut it off, if one did.
pub(super) fn read(path: &Path) -> Result<Content, JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
        other => other.map_err(|e| failed("open", path, e))?,
    };
    let mut content = Content::default();
    let mut reader = BufReader::new(file);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
        let length = read.map_err(|e| failed("read", path, e))? as u64;
        content.torn = torn(&bytes, line);
        if length == 0 || content.torn.is_some() {
            break;
        }
        let record = serde_json::from_slice(&bytes).map_err(|source| JournalError::Damaged {
            path: path.to_owned(),
            line,
            source,
        })?;
        match record {
            Record::Clock(mark) => content.mark = Some(mark),
            Record::Change(change) => content.table.apply(&change),
        }
    }
    Ok(content)
}

/// Whether a line is the one that a crash cut off.
fn torn(bytes: &[u8], line: usize) -> Option<Torn> {
    let ends = bytes.last() == Some(&b'\n') || bytes.len() as u64 >= MAX_LINE;
    match bytes {
        [] => None,
        // JSON writes no NUL as it is.
        _ if bytes.contains(&0) => Some(Torn::Hole { line }),
        _ if !ends => Some(Torn::Cut { line }),
        _ => None,
    }
}

/// Keeps the file as it was under another name, for whoever wants to look at it: a second name of
/// it, which takes no room. What was kept so before goes.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, JournalError> {
    let aside = path.with_extension("jsonl.damaged");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove an older copy of", &aside, error));
        }
        _ => {}
    }
    fs::hard_link(path, &aside).map_err(|e| failed("keep a copy, as it was, of", path, e))?;
    Ok(aside)
}

/// The living state as lines.
pub(super) fn snapshot(table: &LeaseTable, mark: Mark) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    push_mark(&mut bytes, mark)?;
    for rest in table.resting() {
        // It comes before any lease, so that it ends none.
        let change = LeaseChange::Decline {
            mac: rest.mac,
            address: rest.address,
            until: rest.until,
        };
        push_change(&mut bytes, &change)?;
    }
    for (mac, lease) in table.iter() {
        let change = LeaseChange::Bind {
            mac,
            address: lease.address,
            expires: lease.expires,
        };
        push_change(&mut bytes, &change)?;
    }
    Ok(bytes)
}

/// Writes `bytes` beside the journal, synced; the journal itself is not touched.
pub(super) fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let beside = beside(path);
    // A half of it would take the room that is missing.
    write_new(&beside, bytes).inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Puts what was written beside the journal in its place. After an error either may stand
/// there, and nothing may be appended to it.
pub(super) fn take_place(path: &Path) -> io::Result<()> {
    fs::rename(beside(path), path)?;
    match path.parent() {
        Some(directory) => sync(&File::open(directory)?),
        None => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("jsonl.new")
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    sync(&file)?;
    Ok(file)
}

/// On disk, contents and length.
pub(super) fn sync(file: &File) -> io::Result<()> {
    #[cfg(test)]
    super::tests::fail_when_told()?;
    file.sync_data()
}

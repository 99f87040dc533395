//! The journal's file: its lines, how they are read, and how the whole is replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::clock::Mark;
use super::{JournalError, failed};
use crate::policy::lease::{LeaseChange, LeaseTable};

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

/// Reads the journal. A last line without its newline was cut off by a crash before its
/// ACK left, and is left out.
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
        reader
            .read_until(b'\n', &mut bytes)
            .map_err(|e| failed("read", path, e))?;
        if bytes.last() != Some(&b'\n') {
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

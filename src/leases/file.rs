//! The journal's file: its lines, how they are read, and how the whole is replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clock::Mark;
use super::{JournalError, failed};
use crate::policy::lease::{LeaseChange, LeaseTable};

/// A line is never longer, bytes: ours have some 150, and not 2000 with two switch ports.
const MAX_LINE: u64 = 4096;

/// What a change that an older daemon would misread adds one to. Each mark of the clock says it, and the first line is
/// one.
pub(super) const FORMAT: u32 = 1;

/// One line, read.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Record {
    /// What time it was, and what was written before is older.
    Clock(Mark),
    #[serde(untagged)]
    Change(LeaseChange),
}

/// A mark of the clock, written.
#[derive(Serialize)]
struct Marked {
    op: &'static str,
    format: u32,
    #[serde(flatten)]
    mark: Mark,
}

/// What of any version's mark can be read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// All that a journal says.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub table: LeaseTable,
    pub mark: Option<Mark>,
    pub torn: Option<Torn>,
}

/// What a crash did to what was being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Torn {
    /// The last line has no end.
    Cut {
        /// 1-based.
        line: usize,
    },
    /// The file had grown on disk, and its data was not there yet: ext4 and XFS give NULs for
    /// it. Blocks reach the disk in any order, so whole lines may follow. Those are taken: of a
    /// group that was never acknowledged they hold addresses for a while, and if what was
    /// acknowledged is what the disk lost, they are all that is left.
    Hole {
        /// 1-based.
        line: usize,
        /// How many are left out.
        lines: usize,
    },
}

pub(super) fn push_change(bytes: &mut Vec<u8>, change: &LeaseChange) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, change)?;
    bytes.push(b'\n');
    Ok(())
}

pub(super) fn push_mark(bytes: &mut Vec<u8>, mark: Mark) -> io::Result<()> {
    let marked = Marked {
        op: "clock",
        format: FORMAT,
        mark,
    };
    serde_json::to_writer(&mut *bytes, &marked)?;
    bytes.push(b'\n');
    Ok(())
}

/// Reads the journal without what a crash tore, if one did.
pub(super) fn read(path: &Path) -> Result<Content, JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
        other => other.map_err(|e| failed("open", path, e))?,
    };
    let mut content = Content::default();
    let mut reader = BufReader::new(file);
    let mut bytes = Vec::new();
    for line in 1.. {
        let length = read_line(&mut reader, &mut bytes).map_err(|e| failed("read", path, e))?;
        if let Some(format) = newer(&bytes) {
            let path = path.to_owned();
            return Err(JournalError::Newer { path, format });
        }
        let damaged = match Line::of(&bytes, length) {
            Line::None => break,
            Line::Whole => match serde_json::from_slice(&bytes) {
                Ok(record) => {
                    content.take(record);
                    continue;
                }
                Err(source) => Some(source),
            },
            Line::Cut if content.torn.is_none() => {
                content.torn = Some(Torn::Cut { line });
                break;
            }
            Line::Cut | Line::Nuls => None,
        };
        match (&mut content.torn, damaged) {
            (Some(Torn::Hole { lines, .. }), _) => *lines += 1,
            (_, None) => content.torn = Some(Torn::Hole { line, lines: 1 }),
            (_, Some(source)) => {
                let path = path.to_owned();
                return Err(JournalError::Damaged { path, line, source });
            }
        }
    }
    Ok(content)
}

/// The format that a line says, if it is a newer one.
fn newer(line: &[u8]) -> Option<u32> {
    const KEY: &[u8] = b"\"format\"";
    // Few lines say one, and there may be ten thousand.
    if !line.windows(KEY.len()).any(|part| part == KEY) {
        return None;
    }
    let said = serde_json::from_slice(line);
    said.ok()
        .map(|Format { format }| format)
        .filter(|format| *format > FORMAT)
}

impl Content {
    fn take(&mut self, record: Record) {
        match record {
            Record::Clock(mark) => self.mark = Some(mark),
            Record::Change(change) => self.table.apply(&change),
        }
    }
}

/// What a line is.
enum Line {
    /// The file is at its end.
    None,
    /// To be read.
    Whole,
    /// The last, without an end.
    Cut,
    /// A hole, or at one.
    Nuls,
}

impl Line {
    fn of(bytes: &[u8], length: u64) -> Self {
        match bytes {
            [] => Self::None,
            // JSON writes no NUL as it is.
            _ if bytes.contains(&0) => Self::Nuls,
            [.., b'\n'] => Self::Whole,
            _ if length >= MAX_LINE => Self::Whole,
            _ => Self::Cut,
        }
    }
}

/// Reads a line, or as much as one may have. Of one with NULs the rest is read too, and not kept:
/// a hole can be long, and what stands between it and the line's end is none by itself.
fn read_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<u64> {
    bytes.clear();
    let mut piece = |bytes: &mut Vec<u8>| reader.take(MAX_LINE).read_until(b'\n', bytes);
    let length = piece(bytes)?;
    if bytes.contains(&0) {
        let mut rest = bytes.clone();
        while !rest.is_empty() && !rest.ends_with(b"\n") {
            rest.clear();
            piece(&mut rest)?;
        }
    }
    Ok(length as u64)
}

/// How many journals as they were are kept beside it.
pub(super) const KEPT_ASIDE: usize = 3;

/// Keeps the file as it was under another name, for whoever wants to look at it: a second name of
/// it, which takes no room, or a copy where the file system knows none (vfat, many a network's).
/// Of those that were kept so before, the oldest goes.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let at = Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ");
    let aside = path.with_extension(format!("{ASIDE}{at}"));
    link(path, &aside).or_else(|_| {
        let copied = copy(path, &aside);
        copied.inspect_err(|_| drop(fs::remove_file(&aside)))
    })?;
    // One too many does no harm.
    let before = kept_aside(path).unwrap_or_default();
    for old in before.iter().rev().skip(KEPT_ASIDE) {
        let _ = fs::remove_file(old);
    }
    Ok(aside)
}

const ASIDE: &str = "jsonl.damaged-";

/// What was kept so, the oldest first.
pub(super) fn kept_aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = path.with_extension(ASIDE);
    let prefix = prefix.as_os_str().as_encoded_bytes();
    let directory = path.parent().unwrap_or(Path::new("."));
    let entries = fs::read_dir(directory)?.filter_map(Result::ok);
    let paths = entries.map(|entry| entry.path());
    let mut kept: Vec<_> = paths
        .filter(|path| path.as_os_str().as_encoded_bytes().starts_with(prefix))
        .collect();
    kept.sort();
    Ok(kept)
}

fn link(path: &Path, aside: &Path) -> io::Result<()> {
    #[cfg(test)]
    super::tests::refuse_when_told()?;
    fs::hard_link(path, aside)
}

fn copy(path: &Path, aside: &Path) -> io::Result<()> {
    #[cfg(test)]
    super::tests::refuse_when_told()?;
    fs::copy(path, aside).map(drop)
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
            found: rest.found,
            until: rest.until,
        };
        push_change(&mut bytes, &change)?;
    }
    for (mac, lease) in table.iter() {
        let change = LeaseChange::Bind {
            mac,
            address: lease.address,
            expires: lease.expires,
            port: table.last_plugged_in(mac).cloned().map(Box::new),
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

//! The durable lease journal.
//!
//! One file of JSON lines, `leases.jsonl`. A change is on disk before its ACK leaves;
//! changes that arrive together are written and synced together (group commit), so a
//! thousand hosts at once cost a handful of syncs. When the file has grown, the living
//! state is written beside it and renamed over it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::policy::lease::{LeaseChange, LeaseTable};

/// Changes that may wait for the disk; beyond, requests go unanswered and the client asks again.
const QUEUE: usize = 4096;
/// Changes per sync.
const GROUP: usize = 512;
/// The file is rewritten when it has grown beyond this, bytes.
const REWRITE_AT: u64 = 4 << 20;

/// The journal failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file can't be used.
    #[error("cannot {operation} the lease journal {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line in the middle can't be read; a torn last line is repaired instead.
    #[error(
        "line {line} of the lease journal {} is damaged; move the file away to start without leases (addresses in use may then be given again)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// The cause.
        source: serde_json::Error,
    },
    /// More changes at once than the disk takes.
    #[error("the lease journal is {QUEUE} changes behind: the disk is too slow")]
    Behind,
    /// The disk did not take the change; the client gets no ACK and asks again.
    #[error("the lease journal did not take the change: {0}")]
    NotWritten(String),
}

/// How long a change may wait for the disk; well below [`OFFER_HOLD`](crate::policy::lease::OFFER_HOLD).
const PATIENCE: Duration = Duration::from_secs(10);

struct Job {
    change: LeaseChange,
    done: oneshot::Sender<Result<(), String>>,
}

/// Where lease changes are made durable.
#[derive(Debug, Clone)]
pub struct Journal {
    jobs: SyncSender<Job>,
}

impl Journal {
    /// Opens `leases.jsonl` in the state directory, repairs a torn end, and starts the writer.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read or written, or is damaged in the middle.
    pub fn open(state: &Path) -> Result<(Self, LeaseTable), JournalError> {
        let path = state.join("leases.jsonl");
        let (file, table) = load(&path)?;
        let writer = Writer {
            length: file.metadata().map_err(|e| failed("read", &path, e))?.len(),
            file,
            path,
            table: table.clone(),
            rewrite_at: REWRITE_AT,
        };
        let (jobs, queue) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("leases".into())
            .spawn(move || writer.run(&queue))
            .map_err(|e| failed("start the writer of", state, e))?;
        Ok((Self { jobs }, table))
    }

    /// Returns when the change is on disk.
    ///
    /// # Errors
    /// [`JournalError::Behind`] or [`JournalError::NotWritten`]; the change may then not be acknowledged.
    pub async fn commit(&self, change: LeaseChange) -> Result<(), JournalError> {
        let (done, written) = oneshot::channel();
        self.jobs
            .try_send(Job { change, done })
            .map_err(|error| match error {
                TrySendError::Full(_) => JournalError::Behind,
                TrySendError::Disconnected(_) => {
                    JournalError::NotWritten("its writer ended".into())
                }
            })?;
        // Before the address that is held in memory meanwhile may be offered to another.
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(cause))) => Err(JournalError::NotWritten(cause)),
            Ok(Err(_)) => Err(JournalError::NotWritten("its writer ended".into())),
            Err(_) => Err(JournalError::NotWritten(format!(
                "the disk did not answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Reads the journal; a last line without its newline was cut off by a crash before its
/// ACK left, and is dropped.
fn load(path: &Path) -> Result<(File, LeaseTable), JournalError> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(|e| failed("open", path, e))?;
    let mut table = LeaseTable::default();
    let mut good = 0;
    let mut reader = BufReader::new(&file);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader
            .read_until(b'\n', &mut bytes)
            .map_err(|e| failed("read", path, e))?;
        if bytes.last() != Some(&b'\n') {
            break;
        }
        let change = serde_json::from_slice(&bytes).map_err(|source| JournalError::Damaged {
            path: path.to_owned(),
            line,
            source,
        })?;
        table.apply(&change);
        good += read as u64;
    }
    file.set_len(good).map_err(|e| failed("repair", path, e))?;
    file.seek(io::SeekFrom::End(0))
        .map_err(|e| failed("read", path, e))?;
    Ok((file, table))
}

struct Writer {
    file: File,
    path: PathBuf,
    length: u64,
    table: LeaseTable,
    rewrite_at: u64,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut group = vec![first];
            group.extend(queue.try_iter().take(GROUP - 1));
            let outcome = self.write(&group).map_err(|error| error.to_string());
            for job in group {
                if outcome.is_ok() {
                    self.table.apply(&job.change);
                }
                // Whoever asked may have gone; the change is durable all the same.
                let _ = job.done.send(outcome.clone());
            }
            if self.length > self.rewrite_at
                && let Err(error) = self.rewrite()
            {
                tracing::error!(
                    "cannot rewrite the lease journal {}: {error}; it goes on growing",
                    self.path.display()
                );
                self.rewrite_at = self.rewrite_at.saturating_mul(2);
            }
        }
    }

    /// Writes and syncs a group; on failure the file ends where it ended before, so that
    /// no half line stands in front of the next group.
    fn write(&mut self, group: &[Job]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for job in group {
            push_line(&mut bytes, &job.change)?;
        }
        let written = self
            .file
            .write_all(&bytes)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (mac, lease) in self.table.iter() {
            let change = LeaseChange::Bind {
                mac,
                address: lease.address,
                expires: lease.expires,
            };
            push_line(&mut bytes, &change)?;
        }
        for (address, until) in self.table.resting() {
            let mac = crate::inventory::model::MacAddr([0; 6]);
            push_line(
                &mut bytes,
                &LeaseChange::Decline {
                    mac,
                    address,
                    until,
                },
            )?;
        }
        let beside = self.path.with_extension("jsonl.new");
        let mut file = OpenOptions::new().append(true).create(true).open(&beside)?;
        file.set_len(0)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        // From here on the old file has no name: nothing may be written to it any more.
        self.file = file;
        self.length = bytes.len() as u64;
        self.rewrite_at = REWRITE_AT.max(self.length * 4);
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn push_line(bytes: &mut Vec<u8>, change: &LeaseChange) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, change)?;
    bytes.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::model::MacAddr;
    use jiff::Timestamp;
    use std::net::Ipv4Addr;

    fn bind(last: u8, expires: i64) -> LeaseChange {
        LeaseChange::Bind {
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            address: Ipv4Addr::new(10, 0, 0, last),
            expires: Timestamp::from_second(expires).unwrap(),
        }
    }

    fn addresses(table: &LeaseTable) -> Vec<Ipv4Addr> {
        let mut all: Vec<_> = table.iter().map(|(_, lease)| lease.address).collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn what_was_committed_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, table) = Journal::open(dir.path()).unwrap();
        assert_eq!(table.iter().count(), 0);
        let commits = (1..=50).map(|last| journal.commit(bind(last, 100)));
        for commit in commits {
            commit.await.unwrap();
        }
        let (_, again) = Journal::open(dir.path()).unwrap();
        assert_eq!(again.iter().count(), 50);
    }

    /// A crash can cut the file at any byte: all whole lines are kept, and writing goes on.
    #[tokio::test]
    async fn a_cut_at_any_byte_loses_only_the_line_it_cuts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases.jsonl");
        let mut whole = Vec::new();
        let mut ends = vec![0];
        for last in 1..=3 {
            push_line(&mut whole, &bind(last, 100)).unwrap();
            ends.push(whole.len());
        }
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (journal, table) = Journal::open(dir.path()).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(table.iter().count(), kept, "cut at {cut}");
            journal.commit(bind(9, 100)).await.unwrap();
            let (_, again) = Journal::open(dir.path()).unwrap();
            assert_eq!(again.iter().count(), kept + 1, "after a cut at {cut}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_named_and_not_skipped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("leases.jsonl"), "{}\n").unwrap();
        let error = Journal::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, JournalError::Damaged { line: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn rewriting_keeps_the_living_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases.jsonl");
        let (file, table) = load(&path).unwrap();
        let mut writer = Writer {
            file,
            path,
            length: 0,
            table,
            rewrite_at: 1,
        };
        let (jobs, queue) = sync_channel(QUEUE);
        for round in 0..100 {
            let (done, _) = oneshot::channel();
            let change = bind(u8::try_from(round % 3 + 1).unwrap(), round);
            jobs.send(Job { change, done }).unwrap();
        }
        drop(jobs);
        writer.rewrite_at = 1;
        writer.run(&queue);
        let (_, again) = Journal::open(dir.path()).unwrap();
        assert_eq!(
            addresses(&again),
            [1, 2, 3].map(|last| Ipv4Addr::new(10, 0, 0, last))
        );
        assert!(!dir.path().join("leases.jsonl.new").exists());
    }
}

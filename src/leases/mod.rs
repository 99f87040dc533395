//! The durable lease journal.
//!
//! One file of JSON lines, `leases.jsonl`. A change is on disk before its ACK leaves;
//! changes that arrive together are written and synced together (group commit), so a
//! thousand hosts at once cost a handful of syncs. At every start, when the file has grown,
//! and after a failed sync the living state is written beside it and renamed over it.
//!
//! While the disk is full or broken, nothing is acknowledged; that is said once, and ends by
//! itself.

mod clock;
mod file;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::policy::lease::{LeaseChange, LeaseTable};
pub use clock::LeaseClock;
use clock::Reading;

/// Batches of changes that may wait for the disk; beyond, requests go unanswered and the
/// client asks again.
const QUEUE: usize = 1024;

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
    #[error("the lease journal is {QUEUE} batches behind: the disk is too slow")]
    Behind,
    /// The disk did not take the change; the client gets no ACK and asks again.
    #[error("the lease journal did not take the change: {0}")]
    NotWritten(String),
}

/// How long a change may wait for the disk; well below [`OFFER_HOLD`](crate::policy::lease::OFFER_HOLD).
const PATIENCE: Duration = Duration::from_secs(10);

struct Job {
    changes: Vec<LeaseChange>,
    done: oneshot::Sender<Result<(), String>>,
}

/// Where lease changes are made durable.
#[derive(Debug, Clone)]
pub struct Journal {
    jobs: SyncSender<Job>,
    clock: LeaseClock,
}

impl Journal {
    /// Opens `leases.jsonl` in the state directory, repairs a torn end, and starts the writer.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read, or is damaged in the middle.
    pub fn open(state: &Path) -> Result<(Self, LeaseTable), JournalError> {
        Self::open_at(state, Reading::now())
    }

    fn open_at(state: &Path, reading: Reading) -> Result<(Self, LeaseTable), JournalError> {
        let writer = writer::open(state.join("leases.jsonl"), reading)?;
        let (table, clock) = (writer.table(), writer.clock());
        let (jobs, queue) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("leases".into())
            .spawn(move || writer.run(&queue))
            .map_err(|e| failed("start the writer of", state, e))?;
        Ok((Self { jobs, clock }, table))
    }

    /// The clock by which its leases run out.
    pub fn clock(&self) -> &LeaseClock {
        &self.clock
    }

    /// Returns when the changes are on disk, all of them; there must be one at least.
    ///
    /// # Errors
    /// [`JournalError::Behind`] or [`JournalError::NotWritten`]; none of the changes may then be
    /// acknowledged.
    pub async fn commit(&self, changes: Vec<LeaseChange>) -> Result<(), JournalError> {
        let (done, written) = oneshot::channel();
        self.jobs
            .try_send(Job { changes, done })
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

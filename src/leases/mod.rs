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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

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
    /// A line can't be read, and is not what a crash leaves: that is repaired instead.
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
    /// A later version wrote it, in a way that this one does not know.
    #[error(
        "the lease journal {} was written by a newer bridgehead (format {format}, and this one knows {}): start that one again, or move the file away to start without leases (listed hosts keep their addresses; those of others that are in use may then be given again)",
        path.display(), file::FORMAT
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        format: u32,
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
    leases: Arc<Mutex<LeaseTable>>,
    ended: CancellationToken,
    health: Arc<Mutex<Health>>,
}

/// How its writer fares.
#[derive(Debug, Default)]
struct Health {
    /// What failed last; nothing once something was written again.
    failing: Option<String>,
    /// Since when it has waited for the disk.
    writing_since: Option<Instant>,
}

/// Changes on their way to the disk.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<(), String>>);

impl Journal {
    /// Opens `leases.jsonl` in the state directory, repairs what a crash tore, and starts the writer.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read, or is damaged otherwise.
    pub fn open(state: &Path) -> Result<Self, JournalError> {
        Self::open_at(state, Reading::now())
    }

    fn open_at(state: &Path, reading: Reading) -> Result<Self, JournalError> {
        let writer = writer::open(state.join("leases.jsonl"), reading)?;
        let clock = writer.clock();
        let health = writer.health();
        let leases = Arc::new(Mutex::new(writer.table()));
        let shared = leases.clone();
        let (jobs, queue) = sync_channel(QUEUE);
        let ended = CancellationToken::new();
        let ends = ended.clone().drop_guard();
        let write = move || {
            // Dropped at the end, a panic's too.
            let _ends = ends;
            writer.run(&queue, &shared);
        };
        thread::Builder::new()
            .name("leases".into())
            .spawn(write)
            .map_err(|e| failed("start the writer of", state, e))?;
        Ok(Self {
            jobs,
            clock,
            leases,
            ended,
            health,
        })
    }

    /// Returns when its writer has ended, which it does by a fault of ours alone: nothing is taken any more.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Why no lease is given now, and what to do; nothing while they can be written.
    pub fn unwritten(&self) -> Option<String> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = health.writing_since.map(|since| since.elapsed());
        let stuck = stuck.filter(|waited| *waited >= PATIENCE);
        let stuck =
            stuck.map(|waited| format!("the disk has not answered for {} s", waited.as_secs()));
        let why = stuck.or_else(|| health.failing.clone())?;
        Some(format!(
            "no lease is given, none can be written: {why}; make room on the disk of the state directory, or look at it"
        ))
    }

    /// The clock by which its leases run out.
    pub fn clock(&self) -> &LeaseClock {
        &self.clock
    }

    /// The lease table, for the length of one decision. What is committed is in it, in the
    /// journal's order, before anybody hears that it is.
    pub fn leases(&self) -> MutexGuard<'_, LeaseTable> {
        lock(&self.leases)
    }

    /// Queues changes; there must be one at least. Who decides calls this before the lock of
    /// [`leases`](Self::leases) goes, so that they are written in the order of the decisions: of
    /// a RELEASE and the REQUEST after it, the later must win after a restart too.
    ///
    /// # Errors
    /// [`JournalError::Behind`], or the writer ended.
    pub fn submit(&self, changes: Vec<LeaseChange>) -> Result<Pending, JournalError> {
        let (done, written) = oneshot::channel();
        match self.jobs.try_send(Job { changes, done }) {
            Ok(()) => Ok(Pending(written)),
            Err(TrySendError::Full(_)) => Err(JournalError::Behind),
            Err(TrySendError::Disconnected(_)) => Err(ended()),
        }
    }

    /// Queues changes and waits until they are on disk.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`Pending::wait`].
    pub async fn commit(&self, changes: Vec<LeaseChange>) -> Result<(), JournalError> {
        self.submit(changes)?.wait().await
    }
}

impl Pending {
    /// Returns when the changes are on disk, all of them, and in the table.
    ///
    /// # Errors
    /// [`JournalError::NotWritten`]; none of the changes may then be acknowledged.
    pub async fn wait(self) -> Result<(), JournalError> {
        // Before the address that is held in memory meanwhile may be offered to another.
        match tokio::time::timeout(PATIENCE, self.0).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(cause))) => Err(JournalError::NotWritten(cause)),
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(JournalError::NotWritten(format!(
                "the disk did not answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }
}

fn ended() -> JournalError {
    JournalError::NotWritten("its writer ended".into())
}

fn lock(leases: &Mutex<LeaseTable>) -> MutexGuard<'_, LeaseTable> {
    // Every change of the table is whole before the lock goes.
    leases.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

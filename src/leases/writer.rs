//! The thread that writes the journal.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::clock::LeaseClock;
use super::file::{self, Torn};
use super::{Health, Job, JournalError};
use crate::policy::lease::{LeaseChange, LeaseTable};

/// Changes per sync, about.
const GROUP: usize = 4096;
/// The file is rewritten when it has grown beyond this, bytes.
const REWRITE_AT: u64 = 4 << 20;
/// How old the last mark of the lease clock may be when something is written.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// A file that failed is replaced at most so often.
const MEND_EVERY: Duration = Duration::from_millis(200);

/// How often a disk that failed is tried, whether somebody asks for a lease or not.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The file, and the table as it says.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    /// `None` after a failure that left it unknown what the file holds: then the table is
    /// written anew before anything else. (After a failed sync Linux takes the lost pages
    /// for clean, and the next sync would say that all is well.)
    file: Option<File>,
    length: u64,
    table: LeaseTable,
    clock: LeaseClock,
    marked: Timestamp,
    rewrite_at: u64,
    pub(super) mend_every: Duration,
    mended: Option<Instant>,
    failing_since: Option<Instant>,
    health: Arc<Mutex<Health>>,
}

impl Writer {
    /// Takes over what was read. Nothing is open yet: the first thing that is written is the
    /// whole, so that the file's end, its name and the directory are in a known state.
    pub(super) fn new(path: PathBuf, table: LeaseTable, clock: LeaseClock) -> Self {
        Self {
            path,
            file: None,
            length: 0,
            table,
            marked: clock.now(),
            clock,
            rewrite_at: REWRITE_AT,
            mend_every: MEND_EVERY,
            mended: None,
            failing_since: None,
            health: Arc::default(),
        }
    }

    /// Serves the queue until every [`Journal`](super::Journal) is gone. What is on disk goes
    /// into the table of those who decide before they hear of it: two who are told one after
    /// the other may wake in any order.
    pub(super) fn run(mut self, queue: &Receiver<Job>, shared: &Mutex<LeaseTable>) {
        loop {
            let first = match queue.recv_timeout(PROBE_EVERY) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.probe();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut size = first.changes.len();
            let mut group = vec![first];
            while size < GROUP
                && let Ok(job) = queue.try_recv()
            {
                size += job.changes.len();
                group.push(job);
            }
            let changes: Vec<_> = group.iter().flat_map(|job| &job.changes).cloned().collect();
            let outcome = self.commit(&changes).map_err(|error| error.to_string());
            if outcome.is_ok() {
                let mut leases = super::lock(shared);
                for change in &changes {
                    leases.apply(change);
                }
            }
            for job in group {
                // Whoever asked may have gone; the change is durable all the same.
                let _ = job.done.send(outcome.clone());
            }
            self.rewrite_when_grown();
        }
    }

    /// Makes the changes durable, or leaves the journal as it was.
    pub(super) fn commit(&mut self, changes: &[LeaseChange]) -> io::Result<()> {
        self.note(|health| health.writing_since = Some(Instant::now()));
        let done = self.open().and_then(|()| self.append(changes));
        self.note(|health| health.writing_since = None);
        match &done {
            Ok(()) => {
                self.mended = None;
                self.works_again();
                for change in changes {
                    self.table.apply(change);
                }
            }
            Err(error) => self.fails(error),
        }
        done
    }

    /// Where it failed, whether it does still: nobody may ask for a lease as long as it is said that none is given.
    pub(super) fn probe(&mut self) {
        if self.failing_since.is_some() {
            // What is appended to nothing is a mark of the clock.
            self.marked = Timestamp::MIN;
            let _ = self.commit(&[]);
        }
    }

    fn note(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Opens the file by writing it anew, where it is not open.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        if self.mended.is_some_and(|at| at.elapsed() < self.mend_every) {
            return Err(io::Error::other("it failed a moment ago"));
        }
        // Until something is appended, too: a disk may do the one and not the other.
        self.mended = Some(Instant::now());
        self.rewrite()
    }

    fn append(&mut self, changes: &[LeaseChange]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(changes.len() * 112);
        let mark = self.clock.mark();
        let stale = mark.at.duration_since(self.marked).unsigned_abs() >= MARK_EVERY;
        let marked = if stale { mark.at } else { self.marked };
        if stale {
            file::push_mark(&mut bytes, mark)?;
        }
        for change in changes {
            file::push_change(&mut bytes, change)?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("it is not open"));
        };
        if let Err(error) = file.write_all(&bytes) {
            // No half line may stand in front of the next group.
            if file.set_len(self.length).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        if let Err(error) = file::sync(file) {
            self.file = None;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.marked = marked;
        Ok(())
    }

    fn rewrite_when_grown(&mut self) {
        if self.file.is_some()
            && self.length > self.rewrite_at
            && let Err(error) = self.rewrite()
        {
            let next = match self.file {
                Some(_) => "it goes on growing",
                None => "it is tried again before the next lease is acknowledged",
            };
            tracing::warn!(
                "cannot rewrite the lease journal {}: {error}; {next}",
                self.path.display()
            );
            self.rewrite_at = self.rewrite_at.saturating_mul(2);
        }
    }

    /// Writes the living state in the file's place.
    fn rewrite(&mut self) -> io::Result<()> {
        let mark = self.clock.mark();
        let marked = mark.at;
        let bytes = file::snapshot(&self.table, mark)?;
        let file = file::write_beside(&self.path, &bytes)?;
        // From here on the old one may have no name any more.
        self.file = None;
        file::take_place(&self.path)?;
        self.file = Some(file);
        self.length = bytes.len() as u64;
        self.marked = marked;
        self.rewrite_at = REWRITE_AT.max(self.length * 4);
        Ok(())
    }

    /// Said once, not for every change that is refused.
    fn fails(&mut self, error: &io::Error) {
        let why = format!(
            "cannot write the lease journal {}: {error}",
            self.path.display()
        );
        // What keeps it from being opened again at once is no news.
        self.note(|health| _ = health.failing.get_or_insert(why));
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::error!(
                "cannot write the lease journal {}: {error}; no lease is acknowledged until it can be written: make room, or look at the disk",
                self.path.display()
            );
        }
    }

    fn works_again(&mut self) {
        if let Some(since) = self.failing_since.take() {
            self.note(|health| health.failing = None);
            tracing::info!(
                "the lease journal {} works again after {} s",
                self.path.display(),
                since.elapsed().as_secs()
            );
        }
    }
}

/// Reads the journal of a state directory and opens it for writing. Where the disk has no
/// room, the rest of the daemon serves all the same.
pub(super) fn open(path: PathBuf, reading: super::clock::Reading) -> Result<Writer, JournalError> {
    let content = file::read(&path)?;
    if let Some(torn) = content.torn {
        mend(&path, torn, content.table.iter().count());
    }
    let clock = LeaseClock::start(reading, content.mark.as_ref());
    let mut writer = Writer::new(path, content.table, clock);
    if let Err(error) = writer.open() {
        writer.fails(&error);
    }
    // It failed nowhere yet.
    writer.mended = None;
    Ok(writer)
}

/// Says what a crash cost. What is left out is kept where it may be more than half a line.
fn mend(path: &Path, torn: Torn, kept: usize) {
    let journal = path.display();
    match torn {
        Torn::Cut { line } => tracing::info!(
            "line {line} of the lease journal {journal} was cut off by a crash before its ACK left, and is left out"
        ),
        Torn::Hole { line, lines } => {
            let aside = match file::set_aside(path) {
                Ok(aside) => format!("the file as it was is {}", aside.display()),
                Err(error) => format!("the file as it was can't be kept: {error}"),
            };
            tracing::warn!(
                "the lease journal {journal} has NULs from line {line} on, where a crash cut off what was being written: {lines} lines are left out, and the {kept} leases of the others are kept. What is left out was not acknowledged, unless the disk lost what it had said is safe; {aside}"
            );
        }
    }
}

impl Writer {
    /// A copy of the table, for those who decide.
    pub(super) fn table(&self) -> LeaseTable {
        self.table.clone()
    }

    /// How it fares, for those who are asked.
    pub(super) fn health(&self) -> Arc<Mutex<Health>> {
        self.health.clone()
    }

    /// The clock of its leases.
    pub(super) fn clock(&self) -> LeaseClock {
        self.clock.clone()
    }
}

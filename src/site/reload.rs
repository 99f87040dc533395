//! What became of the last edit.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// What a refused edit means, wherever it is told.
pub const NOT_SERVED: &str = "the last edit of the inventory is not served; the one before it is";

/// Why the last edit is not served, if it is not: shown until it is mended.
#[derive(Debug)]
pub struct ReloadState {
    refused: Mutex<Option<String>>,
    served_since: AtomicI64,
    accepted: AtomicU64,
}

impl Default for ReloadState {
    /// As at the start, which serves what it has read.
    fn default() -> Self {
        Self {
            refused: Mutex::default(),
            served_since: AtomicI64::new(Timestamp::now().as_second()),
            accepted: AtomicU64::default(),
        }
    }
}

impl ReloadState {
    /// As at a start that serves what was kept since then, and says why.
    pub fn kept(since: Timestamp, why: String) -> Self {
        Self {
            refused: Mutex::new(Some(why)),
            served_since: AtomicI64::new(since.as_second()),
            ..Self::default()
        }
    }

    /// The edit is served.
    pub fn accept(&self) {
        self.undone();
        let now = Timestamp::now().as_second();
        self.served_since.store(now, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Release);
    }

    /// There is no such edit any more: what is served is what stands there.
    pub fn undone(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Since when what is served is served, Unix time.
    pub fn served_since(&self) -> i64 {
        self.served_since.load(Ordering::Relaxed)
    }

    /// How many edits were taken up since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    /// The edit is not served; what was served before goes on.
    pub fn refuse(&self, why: String) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Why not, if not.
    pub fn refused(&self) -> Option<String> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

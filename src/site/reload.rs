//! What became of the last edit.

use std::sync::{Mutex, PoisonError};

/// Why the last edit is not served, if it is not: shown until it is mended.
#[derive(Debug, Default)]
pub struct ReloadState {
    refused: Mutex<Option<String>>,
}

impl ReloadState {
    /// The edit is served.
    pub fn accept(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
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

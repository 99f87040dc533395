//! What can go wrong in the lab, told so that the reader can act on it.

use std::io;
use std::path::Path;
use std::time::Duration;

/// A lab operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The caller may not make network namespaces.
    #[error(
        "the lab needs root: it makes network namespaces, bridges and tap devices \
         (all its own, removed at the end); run it with sudo"
    )]
    NeedsRoot,
    /// Something that another step makes or installs is not there.
    #[error("{what} is missing: {help}")]
    Missing { what: String, help: String },
    /// A program could not be started, or said no.
    #[error("run `{command}`: {outcome}")]
    Command { command: String, outcome: String },
    /// The operating system said no.
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    /// An awaited event did not come.
    #[error("waited {} s for {what}, in vain\n{context}", after.as_secs())]
    Timeout {
        what: String,
        after: Duration,
        context: String,
    },
    /// A program that should go on serving ended.
    #[error("{name} ended by itself ({status})\n{context}")]
    Ended {
        name: String,
        status: String,
        context: String,
    },
    /// A peer (QEMU, guest agent, daemon) answered something unexpected.
    #[error("{peer} answered: {answer}")]
    Answer { peer: String, answer: String },
    /// SIGINT or SIGTERM arrived.
    #[error("interrupted")]
    Interrupted,
}

/// Result of a lab operation.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Names the operation and the object of an I/O error.
pub fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> LabError + use<> {
    let doing = format!("{doing} {}", path.display());
    move |source| LabError::Io {
        doing: format!("{doing}: {source}"),
        source,
    }
}

//! What the NFS server tells the daemon.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::NfsRefusal;

/// Called for every [`Event`], from the server's tasks: it must return at once.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that an operator may want to know.
#[derive(Debug)]
pub enum Event {
    /// A client got the handle of an export (MOUNTPROC3_MNT, RFC 1813 section 5.2.1).
    Mounted {
        /// The client.
        peer: SocketAddr,
        /// The export's name, without `/roots/`.
        export: String,
    },
    /// A client says that it has unmounted (MOUNTPROC3_UMNT); nothing depends on it.
    Unmounted {
        /// The client.
        peer: SocketAddr,
        /// The path that it named.
        path: String,
    },
    /// A client did not get what it asked for.
    Refused {
        /// The client.
        peer: SocketAddr,
        /// Why not.
        why: Refusal,
    },
    /// A file under an export is not the one that was indexed; clients get NFS3ERR_STALE for it. Told once
    /// per export until [`Exports::rescan`](super::Exports::rescan) has indexed it anew.
    Changed {
        /// The export's name.
        export: String,
        /// The file, relative to the export's root.
        path: String,
    },
    /// A file could not be opened or read; clients get NFS3ERR_IO, or are told to try again.
    ReadFailed {
        /// The export's name.
        export: String,
        /// The file, relative to the export's root.
        path: String,
        /// The cause.
        error: io::Error,
    },
    /// Our own fault: the server could not do its work for a moment and goes on.
    Faltered {
        /// What it was doing.
        operation: &'static str,
        /// The cause.
        error: io::Error,
    },
}

impl From<&Refusal> for NfsRefusal {
    fn from(why: &Refusal) -> Self {
        match why {
            Refusal::TooManyConnections { scope, .. } => match scope {
                Scope::All => Self::Connections,
                Scope::Address => Self::AddressConnections,
            },
            Refusal::UnknownExport { .. } => Self::Export,
            Refusal::NotAllowed { .. } => Self::Client,
            Refusal::Malformed(_) => Self::Malformed,
        }
    }
}

/// Which connections a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// Those of the client's address.
    Address,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => {
                "in all; for more hosts export the roots by the kernel's NFS server or nfs-ganesha (`root: {nfs: SERVER:PATH}`)"
            }
            Self::Address => {
                "from this address; a host needs one, or as many as its mount option `nconnect` says"
            }
        })
    }
}

/// Why a client was turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No export has this path; the client got MNT3ERR_NOENT.
    #[error("mount of `{path}`: no such export")]
    UnknownExport {
        /// The path as the client sent it.
        path: String,
    },
    /// [`Server::allow`](super::Server::allow) said no; the client got MNT3ERR_ACCES.
    #[error("mount of `{path}`: this client is not allowed")]
    NotAllowed {
        /// The path as the client sent it.
        path: String,
    },
    /// The connection was closed at once: too many are open. Told of the first, until there are few again.
    #[error("connection: {limit} are open already, {scope}")]
    TooManyConnections {
        /// The limit that was reached.
        limit: usize,
        /// Whose connections they are.
        scope: Scope,
    },
    /// The connection was closed: what came is not a call of ONC RPC (RFC 5531).
    #[error("malformed call: {0}")]
    Malformed(&'static str),
}

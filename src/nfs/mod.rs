//! The embedded read-only NFSv3 server for roots (RFC 1813).
//!
//! [`Exports`] indexes each root once; [`Server`] serves the index as `/roots/NAME`. The protocol engine is
//! the crate `nfs3_server`, on a loopback port of its own. In front of it stands the gate, which owns the
//! public port and gives the engine only calls that are whole, bounded and allowed:
//!
//! ```text
//! client --TCP--> gate --TCP, loopback--> nfs3_server --> view --> index (memory), files (pread)
//! ```
//!
//! Why a gate. The engine allocates what a length field asks for (2 GiB for four bytes of record mark, 4 GiB
//! for an opaque), ends its accept loop on the first error, hides the peer's address, answers SYSTEM_ERR
//! (EIO, fatal to a root) above 256 calls in flight, stays silent to a retransmitted call, grants ACCESS
//! without a look at the credential, and does not know MKNOD, LINK and NFS_ACL. None of it can be set through its API.
//!
//! File handles and file ids come from export name and path alone, so a client that has its root here
//! survives a restart of the daemon.

mod acl;
mod answers;
mod call;
mod connection;
mod event;
mod exports;
mod files;
mod gate;
mod handle;
mod index;
mod scan;
mod server;
mod view;

pub use event::{Event, Observer, Refusal, Scope};
pub use exports::{Export, Exports};
pub use gate::Connected;
pub use scan::{ScanError, ScanErrors};
pub use server::{BindError, Limits, Server, reserved_port};

/// Where exports stand in the server's name space: `NAME` is mounted as `/roots/NAME`.
pub const EXPORT_PREFIX: &str = "/roots/";

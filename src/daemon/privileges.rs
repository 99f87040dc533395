//! What of root's power the daemon keeps once its sockets are bound.

use std::collections::HashSet;
use std::io;

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Bind low ports again after a reload; frames to clients without an address; files of
/// the roots whatever their mode (a root image has files that only its own root may read).
const NEEDED: [Capability; 3] = [
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_DAC_READ_SEARCH,
];

/// What the scribe keeps: it writes a file that may belong to anybody, and leaves it to its owner.
const SCRIBES: [Capability; 3] = [
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_CHOWN,
    Capability::CAP_FOWNER,
];

/// Lets the daemon hold a descriptor for every client of a rack that boots together:
/// the soft limit of 1024 is for programs that use `select`.
pub(super) fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
    }
}

/// Gives up every capability but those needed, for good: the bounding set shrinks too.
///
/// Capabilities belong to threads, so this must run before the runtime starts its own.
pub(super) fn keep_only_needed() -> io::Result<()> {
    keep_only(&NEEDED)
}

/// The same for the scribe.
pub(super) fn keep_only_the_scribes() -> io::Result<()> {
    keep_only(&SCRIBES)
}

fn keep_only(needed: &[Capability]) -> io::Result<()> {
    let failed = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let keep: HashSet<_> = needed
        .iter()
        .copied()
        .filter(|c| permitted.contains(c))
        .collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)? {
        for capability in caps::all() {
            if !keep.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).map_err(failed)?
            {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
            }
        }
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &keep).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(failed)
}

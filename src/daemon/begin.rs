//! What a start serves: what the operator's files say, or what was served last where they have faults. After a power
//! cut a site must boot, whatever somebody was editing then.

use std::collections::BTreeSet;
use std::fs::File;

use nix::fcntl::Flock;

use super::kept::{self, Found, Keeper, KeptError};
use super::{Options, ServeError, reload};
use super::{interfaces, state};
use crate::dhcp::Interface;
use crate::diagnostic::{Diagnostics, Severity};
use crate::inventory::model::Inventory;
use crate::site::{ReloadState, Snapshot};

/// What to serve, and where.
pub(super) struct Beginning {
    pub(super) snapshot: Snapshot,
    pub(super) interfaces: Vec<Interface>,
    pub(super) reload: ReloadState,
    pub(super) keeper: Option<Keeper>,
    /// The state directory's.
    pub(super) lock: Flock<File>,
}

/// Takes the state directory, and reads everything that is needed before a socket is bound.
///
/// # Errors
/// What is wrong with the files where nothing that was kept can be served, with the state directory, or with the
/// interfaces: an address that comes late is no fault of the files, and nothing else is served for it.
pub(super) fn begin(options: &Options) -> Result<Beginning, ServeError> {
    let loaded = match Snapshot::load(&options.paths, None) {
        // What serves nothing makes no directory: it may lie where a disk is not mounted yet.
        Err(found) if !options.state.is_dir() => return Err(refused(found)),
        loaded => loaded,
    };
    let lock = state::prepare(&options.state)?;
    state::keep_private(&options.state);
    match loaded {
        Ok((snapshot, warnings)) => {
            if !warnings.is_empty() {
                reload::warn(&warnings);
            }
            of_files(options, lock, snapshot)
        }
        Err(found) => of_kept(options, lock, found),
    }
}

fn of_files(
    options: &Options,
    lock: Flock<File>,
    snapshot: Snapshot,
) -> Result<Beginning, ServeError> {
    let interfaces = interfaces::choose(&options.interfaces, &snapshot.inventory)?;
    let mut keeper = Keeper::new(options);
    if let Some(keeper) = &mut keeper {
        match kept::read(options) {
            Ok(Some(found)) => compare(keeper, found, &snapshot),
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}; it is written anew"),
        }
    }
    Ok(Beginning {
        snapshot,
        interfaces,
        reload: ReloadState::default(),
        keeper,
        lock,
    })
}

/// Tells what was edited since something was served as a reload does: a file may have been cut short, and be sound.
fn compare(keeper: &mut Keeper, found: Found, snapshot: &Snapshot) {
    let now = &snapshot.inventory;
    let before = found.kept.inventory_unless(&snapshot.keep());
    if let Some(before) = &before {
        let changes = before.outline().changes(&now.outline());
        reload::tell_of_start(&changes, &keeper.old());
    }
    keeper.follow(found.sha256, hosts(before.as_ref().unwrap_or(now)));
}

fn hosts(inventory: &Inventory) -> BTreeSet<String> {
    inventory.hosts.keys().cloned().collect()
}

/// What it has to warn of was said when it was an edit.
fn of_kept(
    options: &Options,
    lock: Flock<File>,
    found: Diagnostics,
) -> Result<Beginning, ServeError> {
    let (snapshot, sha256, since) = match again(options) {
        Ok(Some(kept)) => kept,
        Ok(None) => return Err(refused(found)),
        Err(why) => {
            tracing::error!("{why}");
            return Err(match why {
                KeptError::Unusable { found: why, .. } if is_of_data(&why) => late(found),
                _ => refused(found),
            });
        }
    };
    let interfaces =
        interfaces::choose(&options.interfaces, &snapshot.inventory).inspect_err(|_| {
            tracing::error!("what the inventory's files say can't be served:\n{found}")
        })?;
    tracing::error!(
        "what the inventory's files say can't be served: the last good inventory goes on serving, as it was on {since:.0}, until that is mended:\n{found}"
    );
    let mut keeper = Keeper::new(options);
    if let Some(keeper) = &mut keeper {
        keeper.follow(sha256, hosts(&snapshot.inventory));
    }
    Ok(Beginning {
        snapshot,
        interfaces,
        reload: ReloadState::kept(since, found.to_string()),
        keeper,
        lock,
    })
}

fn again(options: &Options) -> Result<Option<(Snapshot, String, jiff::Timestamp)>, KeptError> {
    let Some(Found {
        kept,
        since,
        sha256,
    }) = kept::read(options)?
    else {
        return Ok(None);
    };
    let again = Snapshot::again(&options.paths, kept, since);
    let (snapshot, _) = again.map_err(|found| {
        let found = Box::new(found);
        KeptError::Unusable { since, found }
    })?;
    Ok(Some((snapshot, sha256, since)))
}

fn refused(found: Diagnostics) -> ServeError {
    match is_of_data(&found) {
        true => late(found),
        false => ServeError::Inventory(Box::new(found)),
    }
}

fn late(found: Diagnostics) -> ServeError {
    ServeError::Data(Box::new(found))
}

/// Whether nothing is wrong but that the data directory lacks something: its disk may be mounted late.
fn is_of_data(found: &Diagnostics) -> bool {
    let mut errors = found.iter().filter(|one| one.severity == Severity::Error);
    errors.all(|one| one.code.starts_with("artefacts::") || one.code.starts_with("data::"))
}

//! What a start serves: what the operator's files say, or what was served last where they have faults. After a power
//! cut a site must boot, whatever somebody was editing then.

use super::interfaces;
use super::kept::{self, KeptError};
use super::{Options, ServeError, reload};
use crate::dhcp::Interface;
use crate::site::{ReloadState, Snapshot};

/// What to serve, and where.
pub(super) struct Beginning {
    pub(super) snapshot: Snapshot,
    pub(super) interfaces: Vec<Interface>,
    pub(super) reload: ReloadState,
}

/// Reads everything that is needed before a socket is bound.
///
/// # Errors
/// What is wrong with the files, or with the interfaces that they need, where nothing that was kept can be served.
pub(super) fn begin(options: &Options) -> Result<Beginning, ServeError> {
    let fault = match of_files(options) {
        Ok(beginning) => return Ok(beginning),
        Err(fault) => fault,
    };
    match of_kept(options, &fault) {
        Ok(Some(beginning)) => return Ok(beginning),
        Ok(None) => {}
        Err(why) => tracing::error!("{why}"),
    }
    Err(fault)
}

fn of_files(options: &Options) -> Result<Beginning, ServeError> {
    let (snapshot, warnings) = Snapshot::load(&options.paths, None)
        .map_err(|found| ServeError::Inventory(Box::new(found)))?;
    if !warnings.is_empty() {
        reload::warn(&warnings);
    }
    Ok(Beginning {
        interfaces: interfaces::choose(&options.interfaces, &snapshot.inventory)?,
        snapshot,
        reload: ReloadState::default(),
    })
}

/// `None` where there is none, or none of this inventory. What it has to warn of was said when it was an edit.
fn of_kept(options: &Options, fault: &ServeError) -> Result<Option<Beginning>, KeptError> {
    let Some((kept, since)) = kept::read(options)? else {
        return Ok(None);
    };
    let unusable = |found: String| KeptError::Unusable { since, found };
    let (snapshot, _) = Snapshot::again(&options.paths, kept, since)
        .map_err(|found| unusable(found.to_string()))?;
    let interfaces = match interfaces::choose(&options.interfaces, &snapshot.inventory) {
        Ok(interfaces) => interfaces,
        // It is no fault of the edit, and is told as the files' own.
        Err(_) if matches!(fault, ServeError::Interface(_)) => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    tracing::error!(
        "what the inventory's files say can't be served: the last good inventory goes on serving, as it was on {since:.0}, until that is mended:\n{fault}"
    );
    Ok(Some(Beginning {
        snapshot,
        interfaces,
        reload: ReloadState::kept(since, fault.to_string()),
    }))
}

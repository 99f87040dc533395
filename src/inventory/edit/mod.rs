//! Changes a host in the operator's file: comments, order and writing of the rest stay as they are.
//!
//! No crate does that for a host that stands on one line in braces: of those looked at, one rewrites the
//! whole map, the other has a list of known failures. So the edit is a stretch of bytes replaced, found
//! by the parser's spans; it counts only if the new text means the old one with that one change, and
//! if the inventory with it has no faults.

mod file;
mod pieces;
mod remove;
mod several;
mod splice;
mod target;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::load::{Loaded, load_again, load_edited};
use super::model::{Host, Inventory, Origin};
use super::outline::Changes;
use crate::diagnostic::{Diagnostic, Diagnostics, Sources};
use file::{Original, Turn};
use splice::Written;
use target::target;

pub use remove::remove;
pub use several::{Several, edit_several};

/// `KEY=VALUE`, or `KEY=` to take the key out. A key below another has a dot: `root.overlay=2G`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    path: Vec<String>,
    value: Option<String>,
}

/// A text is no assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no assignment: write KEY=VALUE, or KEY= to take the key out")]
pub struct BadAssignment(String);

impl FromStr for Assignment {
    type Err = BadAssignment;

    fn from_str(text: &str) -> Result<Self, BadAssignment> {
        let bad = || BadAssignment(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(bad)?;
        let path: Vec<String> = split_key(key);
        let legal = |key: &String| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            !key.is_empty() && key.chars().all(allowed)
        };
        let value = value.trim();
        if !path.iter().all(legal) || value.contains(['\n', '\r']) {
            return Err(bad());
        }
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        Ok(Self { path, value })
    }
}

/// Maps whose keys are interfaces, which have dots of their own: `addresses.br0.200`.
fn split_key(key: &str) -> Vec<String> {
    let parts = match key.split_once('.') {
        Some(("addresses" | "interfaces", _)) => 2,
        _ => usize::MAX,
    };
    key.splitn(parts, '.').map(str::to_owned).collect()
}

impl Assignment {
    /// The same of one host, said in the entry of its range; `None`: there it can't be said of one alone.
    fn of_one(self, host: &Host, inventory: &Inventory) -> Option<Self> {
        let key = match self.path.as_slice() {
            [key] if key == "mac" => "macs",
            [key] if key == "serial" => "serials",
            _ => return None,
        };
        let layer = inventory.written.hosts.get(&host.name)?;
        let written = layer.iter().find(|setting| setting.key == key);
        let is_list = written.is_some_and(|setting| setting.value.starts_with('['));
        let which = match is_list {
            true => place_in_range(host, inventory).to_string(),
            false => host.name.clone(),
        };
        let path = vec![key.to_owned(), which];
        Some(Self { path, ..self })
    }
}

/// How many hosts of its range come before it: addresses count up.
fn place_in_range(host: &Host, inventory: &Inventory) -> u32 {
    let range = inventory
        .hosts
        .values()
        .filter(|other| other.key == host.key);
    let first = range.map(|other| u32::from(*other.ip)).min();
    u32::from(*host.ip) - first.unwrap_or_default()
}

/// What is to be done with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is new.
    Add,
    /// It is there: a host, or a range by its name in the file.
    Set,
}

/// An edit that was made, or would be.
#[derive(Debug)]
pub struct Edited {
    /// The file.
    pub file: PathBuf,
    /// What it changes in the inventory.
    pub changes: Changes,
    /// Whether it changes the file; that may mean the same as before.
    pub rewritten: bool,
    /// What is to be known of an edit that was made.
    pub caution: Option<String>,
    /// What the operator should look at in the new inventory.
    pub warnings: Vec<Diagnostic>,
    /// The texts that warnings point into.
    pub sources: Sources,
}

/// An edit that was not made. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The inventory has faults before the edit.
    #[error("the inventory has faults; mend them first")]
    Faulty(Diagnostics),
    /// It would have faults after it.
    #[error("nothing was changed: the inventory would have faults")]
    Refused(Diagnostics),
    /// No such host.
    #[error("no host {name} in the inventory; {help}")]
    Unknown {
        /// The name.
        name: String,
        /// Which one may be meant.
        help: String,
    },
    /// It is one of a range.
    #[error(
        "{name} is one of {range} ({}:{}), where only `mac` and `serial` are its own: set them all by that name, or take it out of the range", origin.file, origin.line
    )]
    InRange {
        /// The name.
        name: String,
        /// The range's name in the file.
        range: String,
        /// Where the range stands.
        origin: Origin,
    },
    /// It is there already.
    #[error("host {name} is there already ({}:{}): `hosts set` changes it", origin.file, origin.line)]
    Exists {
        /// The name.
        name: String,
        /// Where it stands.
        origin: Origin,
    },
    /// A value is no YAML.
    #[error("`{value}` begins like a list, a map or a text in quotes, and does not end like one")]
    BadValue {
        /// The value.
        value: String,
    },
    /// The text is such that a person has to do it.
    #[error("this can't be done without touching more of {}: {why}; edit it by hand", file.display())]
    TooHard {
        /// The file.
        file: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// There are no values for this host.
    #[error("nothing was changed: {0}")]
    Unfit(String),
    /// It was not tried: there was no more time for it.
    #[error(
        "others of the same edit do not fit, and there was no time to try it without them; it comes again"
    )]
    Late,
    /// Somebody else edits.
    #[error("another edit is under way in {}; try again (`lslocks` shows who holds the lock of a directory)", .0.display())]
    Busy(PathBuf),
    /// Somebody else edited.
    #[error("{} was changed meanwhile; nothing was written, try again", .0.display())]
    Changed(PathBuf),
    /// A file can't be used.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl EditError {
    fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

/// Makes an edit, and writes it unless `dry_run`.
///
/// # Errors
/// [`EditError`]: then nothing was written.
pub fn edit(
    inventory: &Path,
    verb: Verb,
    host: &str,
    values: &[Assignment],
    dry_run: bool,
) -> Result<Edited, EditError> {
    edit_with(inventory, verb, host, |_| Ok(values.to_vec()), dry_run)
}

/// The same with values that depend on what the inventory says, while nobody else writes.
///
/// # Errors
/// [`EditError`], which may be that of `values`: then nothing was written.
pub fn edit_with(
    inventory: &Path,
    verb: Verb,
    host: &str,
    values: impl FnOnce(&Inventory) -> Result<Vec<Assignment>, EditError>,
    dry_run: bool,
) -> Result<Edited, EditError> {
    let _turn = Turn::take(inventory)?;
    let loaded = load_again(inventory).map_err(|faulty| EditError::Faulty(faulty.found))?;
    let old = loaded.inventory;
    let values = values(&old)?;
    let (target, values) = target(&old, inventory, verb, host, values)?;
    let original = Original::read(&target.file, &loaded.seen)?;
    let text = target.apply(&original.text, verb, &values)?;
    let edited = tried(inventory, &old, &original, target.file, &text)?;
    kept(edited, &original, &text, dry_run)
}

/// What a new text makes of the inventory; it is not written yet.
fn tried(
    inventory: &Path,
    old: &Inventory,
    original: &Original,
    file: PathBuf,
    text: &str,
) -> Result<Edited, EditError> {
    let edited = load_edited(inventory, &original.path, text).map_err(EditError::Refused)?;
    let Loaded {
        inventory: new,
        warnings,
        sources,
        ..
    } = edited;
    Ok(Edited {
        file,
        changes: old.outline().changes(&new.outline()),
        rewritten: text != original.text,
        caution: None,
        warnings,
        sources,
    })
}

/// Writes it. The last: what fails leaves the file as it was.
fn kept(
    mut edited: Edited,
    original: &Original,
    text: &str,
    dry_run: bool,
) -> Result<Edited, EditError> {
    if edited.rewritten && !dry_run {
        edited.caution = original.replace(text)?;
    }
    Ok(edited)
}

fn written(value: &str) -> Result<Written, EditError> {
    splice::written(value).ok_or_else(|| EditError::BadValue {
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests;

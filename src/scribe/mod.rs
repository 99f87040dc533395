//! The scribe: a process that edits the inventory's file for the daemon, and does nothing else.
//!
//! The daemon gives up the right to write what belongs to others before it hears its first packet, and the inventory is
//! an operator's. So it starts a child before that, which keeps the rights that an edit needs and has neither network
//! nor a word of what hosts say beyond a few short values. It knows one file, from its command line, and two requests,
//! a line of JSON each; what it does with them is what `bridgehead hosts add` and `hosts set` do. Who takes the daemon
//! over gets by it to edit the inventory and nothing more.

mod add;
mod desk;
mod work;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::inventory::edit::{Assignment, EditError, Edited, Verb, edit_with};
use crate::inventory::model::{Inventory, MacAddr};

pub use add::NewHost;
pub use desk::{Desk, Outcome, Scribe};
pub(crate) use work::{ORPHANED, work};

/// Longest request and longest reply, bytes.
const LONGEST: usize = 64 << 10;
/// Longest words in a reply, bytes: an inventory may have many faults, and each byte of a text may be six of JSON.
const WORDS: usize = 8 << 10;
/// Changes that a reply tells one by one.
const TOLD: usize = 20;

/// An edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// One host more.
    Add(NewHost),
    /// A host has another MAC from now on.
    SetMac {
        /// Its name.
        host: String,
        /// The MAC.
        mac: MacAddr,
        /// The one that it must have until then; none, if it must have none.
        replacing: Option<MacAddr>,
    },
}

/// What the scribe is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What is to be done.
    pub edit: Edit,
    /// Whether it is only to be said what would be done.
    pub dry_run: bool,
}

/// An edit that was made, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The host.
    pub host: String,
    /// The file.
    pub file: String,
    /// Whether it changed.
    pub rewritten: bool,
    /// What changes in the inventory, a line each.
    pub changes: String,
    /// Where a value is from that was not asked for.
    pub note: Option<String>,
    /// What the operator should look at in the new inventory; may be empty.
    pub warnings: String,
}

/// Why an edit was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The inventory has faults, or would have.
    Faulty,
    /// The request does not fit what the inventory says.
    Unfit,
    /// Somebody else edits: again later.
    Busy,
    /// The file can't be written.
    Unwritable,
    /// There is no scribe.
    Gone,
}

/// An edit that was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{words}")]
pub struct Refusal {
    /// Why.
    pub kind: Kind,
    /// Why, and what to do, for people.
    pub words: String,
}

impl Refusal {
    fn new(kind: Kind, words: impl Into<String>) -> Self {
        let words = words.into();
        Self { kind, words }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let kind = match &error {
            EditError::Faulty(_) | EditError::Refused(_) => Kind::Faulty,
            EditError::Busy(_) | EditError::Changed(_) => Kind::Busy,
            EditError::Io { .. } => Kind::Unwritable,
            _ => Kind::Unfit,
        };
        let words = match &error {
            EditError::Faulty(found) | EditError::Refused(found) => {
                format!("{error}\n{}\n{}", found.to_text(false), found.summary())
            }
            EditError::Io { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        Self::new(kind, bounded(words))
    }
}

/// The scribe's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Done(Done),
    Refused(Refusal),
}

/// Makes an edit, with what it needs to know chosen while nobody else writes.
///
/// # Errors
/// [`EditError`]: then nothing was written.
pub(crate) fn perform(
    inventory: &Path,
    request: &Request,
) -> Result<(Edited, Option<String>), EditError> {
    let mut note = None;
    let dry_run = request.dry_run;
    let edited = match &request.edit {
        Edit::Add(host) => {
            let values = |inventory: &Inventory| {
                let (values, words) = host.values(inventory)?;
                note = words;
                Ok(values)
            };
            edit_with(inventory, Verb::Add, &host.name, values, dry_run)
        }
        Edit::SetMac {
            host,
            mac,
            replacing,
        } => {
            let values = |inventory: &Inventory| mac_value(inventory, host, *mac, *replacing);
            edit_with(inventory, Verb::Set, host, values, dry_run)
        }
    };
    Ok((edited?, note))
}

fn mac_value(
    inventory: &Inventory,
    name: &str,
    mac: MacAddr,
    replacing: Option<MacAddr>,
) -> Result<Vec<Assignment>, EditError> {
    add::refuse_listed(inventory, mac)?;
    let host = inventory.hosts.get(name);
    let has: Vec<MacAddr> = host
        .iter()
        .flat_map(|host| host.macs.iter().map(|mac| **mac))
        .collect();
    if has != Vec::from_iter(replacing) {
        let has: Vec<String> = has.iter().map(MacAddr::to_string).collect();
        return Err(EditError::Unfit(format!(
            "{name} has another MAC by now: {}",
            has.join(", ")
        )));
    }
    Ok(vec![add::assignment(&format!("mac={mac}"))?])
}

impl Done {
    fn new(host: &str, edited: &Edited, note: Option<String>) -> Self {
        let warnings = crate::diagnostic::render(&edited.warnings, &edited.sources, false);
        let caution = edited.caution.clone();
        let notes: Vec<_> = note.into_iter().chain(caution).collect();
        Self {
            host: host.to_owned(),
            file: edited.file.display().to_string(),
            rewritten: edited.rewritten,
            changes: bounded(edited.changes.lines(TOLD)),
            note: (!notes.is_empty()).then(|| notes.join("\n")),
            warnings: bounded(warnings),
        }
    }
}

/// At most so much of it, with a word that it is not all.
fn bounded(mut text: String) -> String {
    if text.len() > WORDS {
        text.truncate(text.floor_char_boundary(WORDS));
        text += "…\n(more: `bridgehead check` shows all)";
    }
    text
}

#[cfg(test)]
mod tests;

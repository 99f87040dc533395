//! The scribe: a process that edits the inventory's file for the daemon, and does nothing else.
//!
//! The daemon gives up the right to write what belongs to others before it hears its first packet, and the inventory is
//! an operator's. So it starts a child before that, which keeps the rights that an edit needs and has neither network
//! nor a word of what hosts say beyond a few short values. It knows one file, from its command line, and three requests,
//! a line of JSON each; what it does with them is what `bridgehead hosts add` and `hosts set` do. Who takes the daemon
//! over gets by it to edit the inventory and nothing more.

mod add;
mod desk;
mod work;

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::inventory::edit::{
    Assignment, EditError, Edited, Several, Verb, edit_several, edit_with,
};
use crate::inventory::model::{Inventory, MacAddr};

pub use add::NewHost;
pub use desk::{Desk, Outcome, Scribe};
pub(crate) use work::{ORPHANED, work};

/// Longest request and longest reply, bytes: as many as are named at once have 200 in one, and 350 in the other.
const LONGEST: usize = 128 << 10;
/// Machines that one edit names at most.
pub const MOST_NAMED: usize = 256;
/// Longest words on one that an edit leaves out, bytes.
const WORDS_ON_ONE: usize = 200;
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
    SetMac(Naming),
    /// Several hosts of one file have other MACs from now on, all by one write; [`MOST_NAMED`] at most.
    SetMacs(Vec<Naming>),
}

/// A machine that is a host from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naming {
    /// Its name.
    pub host: String,
    /// The MAC.
    pub mac: MacAddr,
    /// The one that it must have until then; none, if it must have none.
    pub replacing: Option<MacAddr>,
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
    /// Of several, those that it leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// One machine of several that does not become a host, while the others do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Which.
    pub mac: MacAddr,
    /// Why.
    pub refusal: Refusal,
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

    /// In one line, as there may be many.
    fn short(mut self) -> Self {
        let line = self.words.lines().next().unwrap_or_default();
        let end = line.floor_char_boundary(WORDS_ON_ONE);
        self.words.truncate(end);
        self
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let kind = match &error {
            EditError::Faulty(_) | EditError::Refused(_) => Kind::Faulty,
            EditError::Busy(_) | EditError::Changed(_) | EditError::Late => Kind::Busy,
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
pub(crate) fn perform(inventory: &Path, request: &Request) -> Result<Done, EditError> {
    let mut note = None;
    let dry_run = request.dry_run;
    match &request.edit {
        Edit::Add(host) => {
            let values = |inventory: &Inventory| {
                let (values, words) = host.values(inventory)?;
                note = words;
                Ok(values)
            };
            let edited = edit_with(inventory, Verb::Add, &host.name, values, dry_run)?;
            Ok(Done::new(&host.name, &edited, note))
        }
        Edit::SetMac(naming) => {
            let values = |inventory: &Inventory| naming.value(inventory);
            let edited = edit_with(inventory, Verb::Set, &naming.host, values, dry_run)?;
            Ok(Done::new(&naming.host, &edited, note))
        }
        Edit::SetMacs(namings) => set_macs(inventory, namings, dry_run),
    }
}

/// Whoever does not fit is left out: all are named by machines, and one of them may say anything.
fn set_macs(inventory: &Path, namings: &[Naming], dry_run: bool) -> Result<Done, EditError> {
    if namings.len() > MOST_NAMED {
        let many = namings.len();
        let why = format!("one edit names {MOST_NAMED} machines at most, not {many}");
        return Err(EditError::Unfit(why));
    }
    let wanted = |inventory: &Inventory| values(inventory, namings);
    let Several { edited, left_out } = edit_several(inventory, wanted, dry_run)?;
    let left_out = left_out.into_iter().map(|(place, why)| LeftOut {
        mac: namings[place].mac,
        refusal: Refusal::from(why).short(),
    });
    let first = namings.first().map_or("", |naming| &naming.host);
    Ok(Done {
        left_out: left_out.collect(),
        ..Done::new(first, &edited, None)
    })
}

/// One host gets one of them, and one of them one host.
fn values(
    inventory: &Inventory,
    namings: &[Naming],
) -> Vec<(String, Result<Vec<Assignment>, EditError>)> {
    let (mut hosts, mut macs) = (HashMap::new(), HashMap::new());
    let mut value = |naming: &Naming| {
        let value = naming.value(inventory)?;
        let Naming { host, mac, .. } = naming;
        if let Some(other) = hosts.get(host) {
            return Err(has_another(host, [*other]));
        }
        if let Some(other) = macs.get(mac) {
            return Err(EditError::Unfit(format!("{mac} is {other} already")));
        }
        hosts.insert(host.clone(), *mac);
        macs.insert(*mac, host.clone());
        Ok(value)
    };
    let of_each = namings.iter();
    of_each
        .map(|naming| (naming.host.clone(), value(naming)))
        .collect()
}

impl Naming {
    fn value(&self, inventory: &Inventory) -> Result<Vec<Assignment>, EditError> {
        add::refuse_listed(inventory, self.mac)?;
        let host = inventory.hosts.get(&self.host);
        let has: Vec<MacAddr> = host
            .iter()
            .flat_map(|host| host.macs.iter().map(|mac| **mac))
            .collect();
        if has != Vec::from_iter(self.replacing) {
            return Err(has_another(&self.host, has));
        }
        Ok(vec![add::assignment(&format!("mac={}", self.mac))?])
    }
}

fn has_another(host: &str, has: impl IntoIterator<Item = MacAddr>) -> EditError {
    let has: Vec<_> = has.into_iter().map(|mac| mac.to_string()).collect();
    EditError::Unfit(format!("{host} has another MAC by now: {}", has.join(", ")))
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
            left_out: Vec::new(),
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

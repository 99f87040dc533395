//! `bridgehead hosts add` and `hosts set`.

use clap::Args;

use super::super::{Failure, colour, print};
use super::{File, faults};
use crate::diagnostic::render;
use crate::inventory::edit::{Assignment, EditError, Edited, Verb, edit};

/// Arguments of `hosts add` and `hosts set`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The host
    host: String,
    /// What it says, as in the file: mac=52:54:00:00:00:07, root.overlay=2G, 'cmdline=[quiet, nosmt]'; KEY= takes a key out
    #[arg(required = true, value_name = "KEY=VALUE")]
    values: Vec<Assignment>,
    #[command(flatten)]
    file: File,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments, verb: Verb) -> Result<(), Failure> {
    let path = &arguments.file.inventory;
    let (host, values) = (&arguments.host, &arguments.values);
    let edited = edit(path, verb, host, values, arguments.dry_run).map_err(failure)?;
    print(&text(&edited, arguments.dry_run))
}

pub(super) fn failure(error: EditError) -> Failure {
    match &error {
        EditError::Faulty(found) | EditError::Refused(found) => faults(&error, found),
        _ => Failure::of(&error),
    }
}

/// What an edit does to the file, and to the inventory: a line for each change.
pub(in crate::cli) fn words(file: &str, rewritten: bool, dry_run: bool, changes: &str) -> String {
    let means = match changes.is_empty() {
        true => "; it means the same as before",
        false => ":",
    };
    let said = match (rewritten, dry_run) {
        (false, _) => format!("{file}: nothing changes"),
        (true, true) => format!("{file} would change, and was not written{means}"),
        (true, false) => format!("{file} is written{means}"),
    };
    format!("{said}\n{changes}")
}

pub(super) fn text(edited: &Edited, dry_run: bool) -> String {
    let file = edited.file.display().to_string();
    let changes = edited.changes.lines(usize::MAX);
    let mut text = words(&file, edited.rewritten, dry_run, &changes);
    if let Some(caution) = &edited.caution {
        text += &format!("{caution}\n");
    }
    if !edited.warnings.is_empty() {
        let coloured = colour(&std::io::stdout());
        text += &render(&edited.warnings, &edited.sources, coloured);
        text += "\n";
    }
    text
}

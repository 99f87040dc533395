//! `bridgehead hosts`: what the inventory says of hosts, without a daemon.

mod edit;
mod list;
mod remove;
mod show;

pub(super) use edit::words as edit_words;
pub(super) use show::unknown;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, colour};
use crate::diagnostic::Diagnostics;
use crate::inventory::edit::{EditError, Verb as Edit};
use crate::inventory::model::Inventory;
use crate::inventory::{self, Loaded};

/// Verbs of `hosts`.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List hosts with address, MAC, profile and place
    #[command(
        after_help = "Examples:\n  bridgehead hosts list --rack r1 --profile kvm-host\n  bridgehead hosts list kvm[01-16]"
    )]
    List(list::Arguments),
    /// Show every value that holds for a host, the line that says so, and what it superseded
    #[command(
        after_help = "Examples:\n  bridgehead hosts show kvm01\n  bridgehead hosts show kvm01 kvm[03-04]"
    )]
    Show(show::Arguments),
    /// Add a host to the inventory's file; the rest of the file stays as it is written
    #[command(
        after_help = "Example:\n  bridgehead hosts add kvm07 mac=52:54:00:00:00:07 ip=10.77.0.17 profile=kvm-host rack=r1 unit=9"
    )]
    Add(edit::Arguments),
    /// Change what the inventory's file says of a host or range; the rest stays as it is written
    #[command(
        after_help = "Examples:\n  bridgehead hosts set kvm01 rack=r2 root.overlay=2G\n  bridgehead hosts set 'kvm[04-15]' kernel=   # takes the key out: the profile's holds again"
    )]
    Set(edit::Arguments),
    /// Take hosts out of the inventory's file; the rest stays as it is written, and the others of a range as they are
    #[command(
        after_help = "Examples:\n  bridgehead hosts remove kvm07\n  bridgehead hosts remove kvm[03-04] --dry-run"
    )]
    Remove(remove::Arguments),
}

/// The inventory, and nothing of what it names.
#[derive(Debug, Args)]
struct File {
    /// The inventory
    #[arg(long, value_name = "FILE", default_value = "hosts.yaml")]
    inventory: PathBuf,
}

pub(super) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments),
        Verb::Show(arguments) => show::run(arguments),
        Verb::Add(arguments) => edit::run(arguments, Edit::Add),
        Verb::Set(arguments) => edit::run(arguments, Edit::Set),
        Verb::Remove(arguments) => remove::run(arguments),
    }
}

/// The inventory of a file; faults are shown, and exit code 3.
fn load(path: &Path) -> Result<Inventory, Failure> {
    match inventory::load(path) {
        Ok(Loaded { inventory, .. }) => Ok(inventory),
        Err(found) => {
            let text = found.to_text(colour(&std::io::stderr()));
            Err(Failure::inventory(format!("{text}\n\n{}", found.summary())))
        }
    }
}

fn faults(error: &EditError, found: &Diagnostics) -> Failure {
    let text = found.to_text(colour(&std::io::stderr()));
    let summary = found.summary();
    Failure::inventory(format!("{text}\n\n{summary}\nbridgehead: {error}"))
}

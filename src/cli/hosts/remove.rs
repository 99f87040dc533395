//! `bridgehead hosts remove`.

use clap::Args;

use super::super::{Daemon, Failure, client, hosts_named, print};
use super::{File, edit};
use crate::inventory::edit::remove;
use crate::inventory::outline::Outline;

/// Arguments of `hosts remove`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The hosts, by name or a list as kvm[01-16]; those that stay of a range in the file keep what they have
    #[arg(required = true)]
    host: Vec<String>,
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    daemon: Daemon,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (path, dry_run) = (&arguments.file.inventory, arguments.dry_run);
    let names = hosts_named(&arguments.host)?;
    let mut edited = remove(path, &names, dry_run).map_err(edit::failure)?;
    // Where one serves, it knows who is booting; the file can be edited without.
    let served = client::get::<Outline>(&arguments.daemon.state, "/v1/inventory");
    if let Ok(served) = served {
        edited.changes.meet(&served.under_way);
    }
    print(&edit::text(&edited, dry_run))
}

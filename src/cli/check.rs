//! `bridgehead check`: the very code of `serve`, up to binding sockets.

mod live;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Daemon, Failure, Files, client, colour, print, print_json};
use crate::diagnostic::Report;
use crate::inventory;
use crate::inventory::outline::{Changes, Outline};
use crate::site::Snapshot;

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bridgehead check\n  bridgehead check --diff --inventory new.yaml    # what the daemon would change\n  bridgehead check --live --interface eno2        # and which other DHCP servers answer there"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Ask the networks, too: which other DHCP servers answer (needs CAP_NET_RAW)
    #[arg(long, conflicts_with = "json")]
    live: bool,
    /// With --live: only this interface; may be given several times [default: every interface with an address in a network of the inventory]
    #[arg(long, value_name = "IF", requires = "live")]
    interface: Vec<String>,
    /// Show what would change in what the daemon serves, or from another inventory (--diff=FILE)
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    diff: Option<Option<PathBuf>>,
    #[command(flatten)]
    daemon: Daemon,
    /// Print the faults as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: Report<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<Changes>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let paths = arguments.files.paths();
    let mut diff = None;
    let (found, hosts, live) = match Snapshot::load(&paths, None) {
        Ok((snapshot, warnings)) => {
            let live = arguments.live.then_some(&snapshot.inventory);
            let live = live.map(|inventory| live::look(inventory, &arguments.interface));
            let hosts = snapshot.inventory.hosts.len();
            if let Some(other) = &arguments.diff {
                let served = served(other.as_deref(), &arguments.daemon)?;
                diff = Some(served.changes(&snapshot.inventory.outline()));
            }
            (warnings, Some(hosts), live.transpose()?.unwrap_or_default())
        }
        Err(found) => (found, None, live::Live::default()),
    };
    if arguments.json {
        let report = found.report();
        print_json(&Answer { report, diff })?;
        return match hosts {
            Some(_) => Ok(()),
            None => Err(Failure::inventory(found.summary())),
        };
    }
    let text = |stream_colour| {
        if found.is_empty() {
            String::new()
        } else {
            found.to_text(stream_colour) + "\n\n"
        }
    };
    match hosts {
        None => Err(Failure::inventory(
            text(colour(&std::io::stderr())) + &found.summary(),
        )),
        Some(hosts) => {
            let file = paths.inventory.display();
            let plural = if hosts == 1 { "" } else { "s" };
            print(&format!(
                "{}{file}: {hosts} host{plural}, {}\n{}{}",
                text(colour(&std::io::stdout())),
                found.summary(),
                diff.map_or(String::new(), |changes| difference(&changes)),
                live.text
            ))?;
            live.failure.map_or(Ok(()), Err)
        }
    }
}

/// What the edit is compared with.
fn served(other: Option<&Path>, daemon: &Daemon) -> Result<Outline, Failure> {
    match other {
        None => client::get(&daemon.state, "/v1/inventory"),
        Some(path) => inventory::load(path)
            .map(|loaded| loaded.inventory.outline())
            .map_err(|found| Failure::inventory(found.to_string())),
    }
}

fn difference(changes: &Changes) -> String {
    format!("{}\n{}", changes.summary(), changes.lines(usize::MAX))
}

//! `bridgehead check`: the very code of `serve`, up to binding sockets.

mod live;

use clap::Args;

use super::{Failure, Files, colour, print, print_json};
use crate::site::Snapshot;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Ask the networks, too: which other DHCP servers answer (needs CAP_NET_RAW)
    #[arg(long, conflicts_with = "json")]
    live: bool,
    /// With --live: only this interface; may be given several times [default: every interface with an address in a network of the inventory]
    #[arg(long, value_name = "IF", requires = "live")]
    interface: Vec<String>,
    /// Print the faults as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let paths = arguments.files.paths();
    let (found, hosts, live) = match Snapshot::load(&paths, None) {
        Ok((snapshot, warnings)) => {
            let live = arguments.live.then_some(&snapshot.inventory);
            let live = live.map(|inventory| live::look(inventory, &arguments.interface));
            let hosts = snapshot.inventory.hosts.len();
            (warnings, Some(hosts), live.transpose()?.unwrap_or_default())
        }
        Err(found) => (found, None, live::Live::default()),
    };
    if arguments.json {
        print_json(&found.report())?;
    }
    let text = |stream_colour| {
        if found.is_empty() {
            String::new()
        } else {
            found.to_text(stream_colour) + "\n\n"
        }
    };
    match hosts {
        None if arguments.json => Err(Failure::inventory(found.summary())),
        None => Err(Failure::inventory(
            text(colour(&std::io::stderr())) + &found.summary(),
        )),
        Some(_) if arguments.json => Ok(()),
        Some(hosts) => {
            let file = paths.inventory.display();
            let plural = if hosts == 1 { "" } else { "s" };
            print(&format!(
                "{}{file}: {hosts} host{plural}, {}\n{}",
                text(colour(&std::io::stdout())),
                found.summary(),
                live.text
            ))?;
            live.failure.map_or(Ok(()), Err)
        }
    }
}

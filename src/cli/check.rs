//! `bridgehead check`: the very code of `serve`, up to binding sockets.

use clap::Args;

use super::{Failure, Files, colour, print, print_json};
use crate::site::Snapshot;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Print the faults as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let paths = arguments.files.paths();
    let (found, hosts) = match Snapshot::load(&paths, None) {
        Ok((snapshot, warnings)) => (warnings, Some(snapshot.inventory.hosts.len())),
        Err(found) => (found, None),
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
                "{}{file}: {hosts} host{plural}, {}\n",
                text(colour(&std::io::stdout())),
                found.summary()
            ))
        }
    }
}

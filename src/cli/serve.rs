//! `bridgehead serve`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Files, colour};
use crate::daemon::{self, Options, ServeError};
use crate::diagnostic::Diagnostics;

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bridgehead serve --interface eno2\n  bridgehead serve --inventory /etc/bridgehead/hosts.yaml --state /var/lib/bridgehead/state\n\nSIGHUP reads the inventory anew, SIGTERM lets transfers finish. RUST_LOG=bridgehead=debug says more."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Directory of leases, events and keys [default: state/ in the data directory]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Interface to serve; may be given several times [default: every interface with an address in a network of the inventory]
    #[arg(long, value_name = "IF")]
    interface: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    daemon::start_log(colour(&std::io::stderr()));
    let options = Options {
        paths: arguments.files.paths(),
        state: arguments
            .state
            .clone()
            .unwrap_or_else(|| arguments.files.data.join("state")),
        interfaces: arguments.interface.clone(),
    };
    let text = |found: &Diagnostics| {
        let text = found.to_text(colour(&std::io::stderr()));
        format!("{text}\n\n{}", found.summary())
    };
    daemon::run(&options).map_err(|error| match error {
        ServeError::Inventory(found) => Failure::inventory(text(&found)),
        ServeError::Data(found) => Failure::data(text(&found)),
        other => Failure::of(&other),
    })
}

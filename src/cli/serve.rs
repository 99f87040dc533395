//! `bridgehead serve`.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{Failure, Files, colour};
use crate::daemon::{self, Options, ServeError};

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
    start_log();
    let options = Options {
        paths: arguments.files.paths(),
        state: arguments
            .state
            .clone()
            .unwrap_or_else(|| arguments.files.data.join("state")),
        interfaces: arguments.interface.clone(),
    };
    daemon::run(&options).map_err(|error| match error {
        ServeError::Inventory(found) => {
            let text = found.to_text(colour(&std::io::stderr()));
            Failure::inventory(format!("{text}\n\n{}", found.summary()))
        }
        other => Failure::of(&other),
    })
}

/// Plain lines on stderr; `RUST_LOG=bridgehead=debug` shows more. The journal stamps its
/// own times, a terminal needs ours. What the NFS crate says of its peers' packets is told
/// by events of ours already.
fn start_log() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,nfs3_server=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colour(&std::io::stderr()));
    if std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}

//! `bridgehead man`: manual pages from the definitions that `--help` comes from.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, command, print};

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bridgehead man /usr/local/share/man/man1")]
pub(super) struct Arguments {
    /// The directory to write to; it is made where it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let failure = |error| {
        let what = format!("write manual pages to {}", directory.display());
        Failure::failed(&what, &error)
    };
    fs::create_dir_all(directory).map_err(failure)?;
    clap_mangen::generate_to(command(), directory).map_err(failure)?;
    print(&format!("{}: a page for each verb\n", directory.display()))
}

//! `bridgehead discover`: machines that boot from the network and are not listed.

mod approve;
mod list;

use clap::Subcommand;

use super::Failure;

/// The daemon's list of them.
const PATH: &str = "/v1/discovered";

/// Verbs of `discover`.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List machines that boot and are not in the inventory: who they are, where, and whether they wait
    #[command(after_help = "Example:\n  bridgehead discover list")]
    List(list::Arguments),
    /// Write a machine that waits into the inventory's file; it goes on by itself as that host
    #[command(
        after_help = "Example:\n  bridgehead discover approve 3c:ec:ef:00:00:07 --name kvm07 --profile kvm-host --rack r1 --unit 9"
    )]
    Approve(approve::Arguments),
}

pub(super) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments),
        Verb::Approve(arguments) => approve::run(arguments),
    }
}

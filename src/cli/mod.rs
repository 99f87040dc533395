//! The command line: one file per verb.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 failed, 2 usage,
//! 3 inventory invalid, 4 daemon unreachable, 5 wait timed out.

mod check;
mod client;
mod discover;
mod exit;
mod explain;
mod hosts;
mod initrd;
mod log;
mod man;
mod replay;
mod screen;
mod serve;
mod status;
mod table;
mod why;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, Parser, Subcommand};

pub use exit::{Exit, Failure};
pub use man::write as write_manual;

/// Network-boot provisioning: rack a bare server, power it on, and it is a diskless KVM host.
#[derive(Debug, Parser)]
#[command(name = "bridgehead", version, arg_required_else_help = true)]
#[command(
    after_help = "Examples:\n  bridgehead check\n  bridgehead status --watch\n  bridgehead why kvm07\n\nExit codes: 0 ok, 1 failed, 2 usage, 3 inventory invalid, 4 daemon unreachable, 5 wait timed out."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve DHCP, TFTP, HTTP and NFS in the foreground
    Serve(serve::Arguments),
    /// Show every fault of the inventory and of what it names, without serving
    Check(check::Arguments),
    /// List the inventory's hosts, show what holds for one and where that is written, add or change one
    #[command(
        subcommand,
        after_help = "Examples:\n  bridgehead hosts list\n  bridgehead hosts show kvm01\n  bridgehead hosts set kvm01 rack=r2"
    )]
    Hosts(hosts::Verb),
    /// List machines that boot and are not in the inventory, or make one of them a host
    #[command(
        subcommand,
        after_help = "Examples:\n  bridgehead discover list\n  bridgehead discover approve 3c:ec:ef:00:00:07 --name kvm07 --profile kvm-host"
    )]
    Discover(discover::Verb),
    /// Show where every machine stands on its way to joined
    Status(status::Arguments),
    /// Show the story of a machine's last boots
    Log(log::Arguments),
    /// Show why a machine is where it is: likely cause, last words, what to try
    Why(why::Arguments),
    /// Show what a machine would be answered, step by step, and why; no packet is sent
    Explain(explain::Arguments),
    /// Show what the daemon would answer to the requests of a packet capture, and why
    Replay(replay::Arguments),
    /// Build an initrd, or show what is in one
    #[command(
        subcommand,
        after_help = "Example:\n  bridgehead initrd list build/initrds/default.img"
    )]
    Initrd(initrd::Verb),
    /// Print the JSON Schema of the inventory, for editors
    #[command(
        after_help = "Example:\n  bridgehead schema > bridgehead.schema.json\nand as the first line of hosts.yaml:\n  # yaml-language-server: $schema=bridgehead.schema.json"
    )]
    Schema,
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  bridgehead completions bash > /etc/bash_completion.d/bridgehead"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of all verbs
    Man(man::Arguments),
    /// Edit the inventory's file for `serve`, which starts this by itself
    #[command(hide = true)]
    Scribe {
        /// The inventory
        inventory: PathBuf,
    },
}

/// Where the operator's files lie.
#[derive(Debug, Args)]
struct Files {
    /// The inventory
    #[arg(long, value_name = "FILE", default_value = "hosts.yaml")]
    inventory: PathBuf,
    /// Directory of kernels, initrds, loaders and roots
    #[arg(long, value_name = "DIR", default_value = "/var/lib/bridgehead")]
    data: PathBuf,
    /// Directory of the site's own templates [default: templates/ beside the inventory, if it is there, else those built in]
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
}

impl Files {
    fn paths(&self) -> crate::site::Paths {
        let beside = self.inventory.with_file_name("templates");
        let templates = self
            .templates
            .clone()
            .or_else(|| beside.is_dir().then_some(beside));
        crate::site::Paths {
            inventory: self.inventory.clone(),
            data: self.data.clone(),
            templates,
        }
    }
}

/// Where the daemon can be asked.
#[derive(Debug, Args)]
struct Daemon {
    /// The daemon's state directory, where its control socket is
    #[arg(long, value_name = "DIR", default_value = "/var/lib/bridgehead/state")]
    state: PathBuf,
}

/// The command line's definition: what help, completions, manual pages and the tests of the documentation are made from.
pub fn command() -> Command {
    Cli::command()
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Serve(arguments) => serve::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Hosts(verb) => hosts::run(&verb),
        Verb::Discover(verb) => discover::run(&verb),
        Verb::Status(arguments) => status::run(arguments),
        Verb::Log(arguments) => log::run(&arguments),
        Verb::Why(arguments) => why::run(&arguments),
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Replay(arguments) => replay::run(&arguments),
        Verb::Initrd(verb) => initrd::run(&verb),
        Verb::Schema => print(crate::inventory::schema::SCHEMA),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command(), "bridgehead", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Verb::Man(arguments) => man::run(&arguments),
        Verb::Scribe { inventory } => crate::daemon::run_scribe(&inventory)
            .map_err(|error| Failure::failed("go on as the scribe", &error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The hosts that an operator named, ranges written out.
fn hosts_named(words: &[String]) -> Result<Vec<String>, Failure> {
    crate::inventory::hostnames::named(words).map_err(Failure::said)
}

/// Whether to colour what goes to this stream (<https://no-color.org>).
fn colour(stream: &impl IsTerminal) -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && stream.is_terminal()
}

/// Prints data. A reader that has gone (`| head`) is not our failure.
fn print(text: &str) -> Result<(), Failure> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::failed("write to stdout", &error)),
    }
}

/// The same of what goes on for ever: it ends with its reader.
fn print_on(text: &str) -> Result<(), Failure> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::unread()),
        other => other.map_err(|error| Failure::failed("write to stdout", &error)),
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints JSON, one line.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    print(&json(value)?)
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value);
    let text = text.map_err(|error| Failure::failed("write JSON", &error))?;
    Ok(text + "\n")
}

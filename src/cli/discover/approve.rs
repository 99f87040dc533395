//! `bridgehead discover approve`.

use std::net::Ipv4Addr;

use clap::Args;

use super::super::hosts::edit_words;
use super::super::{Daemon, Failure, client, print};
use crate::inventory::model::MacAddr;
use crate::site::approval::{Approval, Approved};

/// Arguments of `discover approve`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The machine, as `discover list` shows it
    mac: MacAddr,
    /// Its name from now on: a new one, or that of a listed host that waits for its hardware
    #[arg(long)]
    name: String,
    /// What it boots; a listed host says that already
    #[arg(long)]
    profile: Option<String>,
    /// Its address [default: what is listed, or the next free one of the network that it asks on, outside the pool]
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Its rack
    #[arg(long)]
    rack: Option<String>,
    /// Its unit in the rack
    #[arg(long)]
    unit: Option<u16>,
    /// List it although it looks like a virtual machine
    #[arg(long)]
    r#virtual: bool,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// The daemon does it: it knows which file it serves, and who may ask it may edit that.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { mac, name, .. } = arguments;
    let path = format!("{}/{mac}/approve", super::PATH);
    let approval = Approval {
        name: name.clone(),
        profile: arguments.profile.clone(),
        ip: arguments.ip,
        rack: arguments.rack.clone(),
        unit: arguments.unit,
        r#virtual: arguments.r#virtual,
        dry_run: arguments.dry_run,
    };
    let approved: Approved = client::post(&arguments.daemon.state, &path, &approval)?;
    let done = &approved.done;
    print(&edit_words(
        &done.file,
        done.rewritten,
        arguments.dry_run,
        &done.changes,
    ))?;
    let more = done.note.iter().chain(Some(&done.warnings));
    for words in more.filter(|words| !words.is_empty()) {
        print(&format!("{words}\n"))?;
    }
    if arguments.dry_run {
        return Ok(());
    }
    if !approved.served {
        return Err(Failure::timed_out(format!(
            "{} is written, and the daemon does not serve it yet: `bridgehead status` says whether the edit was refused",
            done.file
        )));
    }
    let what = match approved.waiting {
        true => "goes on by itself, within a minute",
        false => "boots as that when it is switched on",
    };
    print(&format!(
        "{mac} is {name}, and {what}; `bridgehead status {name} --watch` shows it\n"
    ))
}

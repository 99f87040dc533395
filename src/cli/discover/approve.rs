//! `bridgehead discover approve`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::super::hosts::{edit_failure, edit_text};
use super::super::{Daemon, Failure, client, print};
use crate::inventory::model::MacAddr;
use crate::scribe::{Edit, NewHost, Request, perform};
use crate::site::discovery::{DiscoveredList, DiscoveredStatus};

/// The daemon looks at its files every second; ten thousand hosts take another.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
const ASK: Duration = Duration::from_millis(200);

/// Arguments of `discover approve`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The machine, as `discover list` shows it
    mac: MacAddr,
    /// Its name from now on
    #[arg(long)]
    name: String,
    /// What it boots
    #[arg(long)]
    profile: String,
    /// Its address [default: the next free one of the network that it asks on, outside the pool]
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
    /// The inventory that the daemon serves
    #[arg(long, value_name = "FILE", default_value = "hosts.yaml")]
    inventory: PathBuf,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let list: DiscoveredList = client::get(&arguments.daemon.state, super::PATH)?;
    let machine = find(arguments, &list)?;
    let request = Request {
        edit: Edit::Add(host(arguments, machine, &list.own)),
        dry_run: arguments.dry_run,
    };
    let (edited, note) = perform(&arguments.inventory, &request).map_err(edit_failure)?;
    print(&edit_text(&edited, arguments.dry_run))?;
    if let Some(words) = note {
        print(&(words + "\n"))?;
    }
    if arguments.dry_run {
        return Ok(());
    }
    wait_served(arguments)?;
    let Arguments { mac, name, .. } = arguments;
    let what = match machine.waiting {
        true => "goes on by itself, within a minute",
        false => "boots as that when it is switched on",
    };
    print(&format!(
        "{mac} is {name}, and {what}; `bridgehead status {name} --watch` shows it\n"
    ))
}

fn find<'a>(
    arguments: &Arguments,
    list: &'a DiscoveredList,
) -> Result<&'a DiscoveredStatus, Failure> {
    let mac = arguments.mac;
    let mut machines = list.machines.iter();
    let machine = machines.find(|machine| machine.seen.mac == mac);
    let machine = machine.ok_or_else(|| {
        Failure::said(format!(
            "{mac} has not asked since the daemon started, or is listed already; `bridgehead discover list` shows who \
             asks, `bridgehead hosts list` who is listed, and `bridgehead hosts add` lists a machine that is not here yet"
        ))
    })?;
    match &machine.r#virtual {
        Some(why) if !arguments.r#virtual => Err(Failure::said(format!(
            "{mac} looks like a virtual machine: {why}; nothing was written. If it is to be a host, say --virtual"
        ))),
        _ => Ok(machine),
    }
}

fn host(arguments: &Arguments, machine: &DiscoveredStatus, own: &[Ipv4Addr]) -> NewHost {
    NewHost {
        name: arguments.name.clone(),
        mac: arguments.mac,
        profile: arguments.profile.clone(),
        ip: arguments.ip,
        rack: arguments.rack.clone(),
        unit: arguments.unit,
        network: machine.seen.network.clone(),
        taken: own.to_vec(),
    }
}

/// Until the daemon knows the machine as a host.
fn wait_served(arguments: &Arguments) -> Result<(), Failure> {
    let deadline = Instant::now() + SERVED_WITHIN;
    loop {
        let list: DiscoveredList = client::get(&arguments.daemon.state, super::PATH)?;
        let mut machines = list.machines.iter();
        if !machines.any(|machine| machine.seen.mac == arguments.mac) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let (file, seconds) = (arguments.inventory.display(), SERVED_WITHIN.as_secs());
            return Err(Failure::timed_out(format!(
                "{file} is written, and the daemon does not serve it after {seconds} s: is it the file that the daemon \
                 was started with? `bridgehead status` says whether the edit was refused"
            )));
        }
        std::thread::sleep(ASK);
    }
}

//! `bridgehead discover approve`.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::super::hosts::{edit_failure, edit_text};
use super::super::{Daemon, Failure, client, print};
use crate::inventory::edit::{Assignment, EditError, Verb, edit_with};
use crate::inventory::model::{Inventory, MacAddr};
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
    let said = Cell::new(None);
    // Chosen under the writer's lock: of two that approve at once, the second sees the first's address.
    let values = |inventory: &Inventory| {
        let (values, words) = host(arguments, machine, inventory, &list.own)?;
        said.set(words);
        Ok(values)
    };
    let edited = edit_with(
        &arguments.inventory,
        Verb::Add,
        &arguments.name,
        values,
        arguments.dry_run,
    );
    let edited = edited.map_err(edit_failure)?;
    print(&edit_text(&edited, arguments.dry_run))?;
    if let Some(words) = said.take() {
        print(&words)?;
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

type Values = (Vec<Assignment>, Option<String>);

/// What the file is to say of it, and where its address is from, if it was not told.
fn host(
    arguments: &Arguments,
    machine: &DiscoveredStatus,
    inventory: &Inventory,
    own: &[Ipv4Addr],
) -> Result<Values, EditError> {
    let mac = arguments.mac;
    if let Some(host) = inventory.by_mac.get(&mac) {
        let (name, origin) = (&host.name, &host.origin);
        return Err(EditError::Unfit(format!(
            "{mac} is {name} already ({}:{})",
            origin.file, origin.line
        )));
    }
    let (ip, words) = match arguments.ip {
        Some(ip) => (ip, None),
        None => {
            let (ip, words) = next_free(machine, inventory, own).map_err(EditError::Unfit)?;
            (ip, Some(words))
        }
    };
    let rack = arguments.rack.iter().map(|rack| format!("rack={rack}"));
    let unit = arguments.unit.iter().map(|unit| format!("unit={unit}"));
    let fixed = [
        format!("mac={mac}"),
        format!("ip={ip}"),
        format!("profile={}", arguments.profile),
    ];
    let values = fixed.into_iter().chain(rack).chain(unit);
    let values = values.map(|text| text.parse::<Assignment>());
    let values = values.collect::<Result<_, _>>();
    let values = values.map_err(|bad| EditError::Unfit(bad.to_string()))?;
    Ok((values, words))
}

fn next_free(
    machine: &DiscoveredStatus,
    inventory: &Inventory,
    own: &[Ipv4Addr],
) -> Result<(Ipv4Addr, String), String> {
    let name = machine.seen.network.as_deref();
    let network = name.and_then(|name| inventory.networks.get(name));
    let network = network.ok_or("it asks on no network of the inventory; say --ip")?;
    let ip = inventory.next_free(network, own);
    let (name, subnet) = (&network.name, network.subnet);
    let ip = ip.ok_or_else(|| {
        format!("network {name} ({subnet}) has no free address outside its pool; make the pool smaller, or say --ip")
    })?;
    let pool = match network.pool {
        Some(pool) => format!(", outside its pool {}-{}", pool.first, pool.last),
        None => String::new(),
    };
    Ok((
        ip,
        format!("{ip} is the next free address of network {name}{pool}\n"),
    ))
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

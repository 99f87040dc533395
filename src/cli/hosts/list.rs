//! `bridgehead hosts list`.

use std::collections::HashSet;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::super::{Failure, print, print_json, screen};
use super::{File, load, show};
use crate::inventory::model::{Host, MacAddr, Origin};

/// Arguments of `hosts list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Only these, by name, MAC or a list as kvm[01-16]
    host: Vec<String>,
    #[command(flatten)]
    file: File,
    /// Only those of this rack
    #[arg(long)]
    rack: Option<String>,
    /// Only those with this profile, or one that extends it
    #[arg(long)]
    profile: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    schema: u32,
    hosts: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    host: &'a str,
    ip: String,
    macs: Vec<MacAddr>,
    network: &'a str,
    profile: &'a str,
    rack: Option<&'a str>,
    unit: Option<u16>,
    origin: &'a Origin,
}

impl<'a> Line<'a> {
    fn of(host: &'a Host) -> Self {
        Self {
            host: &host.name,
            ip: host.ip.to_string(),
            macs: host.macs.iter().map(|mac| **mac).collect(),
            network: &host.network.name,
            profile: &host.profile.name,
            rack: host.rack.as_deref(),
            unit: host.unit,
            origin: &host.origin,
        }
    }

    /// One line a host: of several MACs the first, and how many more.
    fn cells(&self) -> Vec<String> {
        let mac = match self.macs.as_slice() {
            [] => "-".into(),
            [mac] => mac.to_string(),
            [mac, more @ ..] => format!("{mac} +{}", more.len()),
        };
        vec![
            self.host.to_owned(),
            self.ip.clone(),
            mac,
            self.profile.to_owned(),
            self.rack.unwrap_or("-").to_owned(),
            self.unit.map_or("-".into(), |unit| unit.to_string()),
            format!("{}:{}", self.origin.file, self.origin.line),
        ]
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let inventory = load(&arguments.file.inventory)?;
    let named = show::meant(&inventory, &arguments.host)?;
    let named: HashSet<&str> = named.iter().map(|host| host.name.as_str()).collect();
    let wanted = |host: &&Arc<Host>| {
        let rack = arguments.rack.as_ref();
        let profile = arguments.profile.as_ref();
        (named.is_empty() || named.contains(host.name.as_str()))
            && rack.is_none_or(|rack| host.rack.as_ref() == Some(rack))
            && profile.is_none_or(|name| {
                host.profile.name == *name || host.profile.extends.contains(name)
            })
    };
    let hosts = inventory.hosts.values().filter(wanted);
    let hosts: Vec<_> = hosts.map(|host| Line::of(host)).collect();
    if arguments.json {
        return print_json(&Listed { schema: 1, hosts });
    }
    let heading = ["HOST", "ADDRESS", "MAC", "PROFILE", "RACK", "UNIT", "WHERE"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    rows.extend(hosts.iter().map(Line::cells));
    print(&screen::rows(&rows, screen::width()))
}

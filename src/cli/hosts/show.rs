//! `bridgehead hosts show`.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::super::{Failure, hosts_named, print, print_json, screen};
use super::{File, load};
use crate::inventory::model::{Host, Inventory, Origin, Value};
use crate::inventory::suggest::{did_you_mean, quote};
use crate::policy::enrol::awaits;
use crate::policy::near::near_misses;
use crate::site::whom::{Whom, mac_of, no_host};

/// Arguments of `hosts show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The host, by name or MAC; of several, or a list as kvm[01-16], one after another
    #[arg(required = true)]
    host: Vec<String>,
    #[command(flatten)]
    file: File,
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    schema: u32,
    host: &'a str,
    values: Vec<Value>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let inventory = load(&arguments.file.inventory)?;
    let hosts = meant(&inventory, &arguments.host)?;
    if arguments.json {
        let shown = |host: &Arc<Host>| {
            print_json(&Shown {
                schema: 1,
                host: &host.name,
                values: inventory.values_of(host),
            })
        };
        return hosts.iter().try_for_each(shown);
    }
    let told = |host: &Arc<Host>| {
        let name = (hosts.len() > 1).then(|| format!("{}\n", host.name));
        let waits = host.waits_for_hardware();
        let awaits = waits.then(|| format!("{}\n", awaits(host)));
        let values = text(&inventory.values_of(host));
        name.unwrap_or_default() + &values + &awaits.unwrap_or_default()
    };
    print(&hosts.iter().map(told).collect::<Vec<_>>().join("\n"))
}

/// The hosts that an operator named; nobody where one of them is none.
pub(super) fn meant(inventory: &Inventory, words: &[String]) -> Result<Vec<Arc<Host>>, Failure> {
    let names = hosts_named(words)?;
    let host = |name: &String| match Whom::of(inventory, name) {
        Some(Whom::Host(host)) => Ok(host),
        _ => Err(unknown(inventory, name)),
    };
    names.iter().map(host).collect()
}

/// No such host, and which one may be meant.
pub(in crate::cli) fn unknown(inventory: &Inventory, name: &str) -> Failure {
    if name.is_empty() {
        return Failure::said("the host's name is empty");
    }
    if let Some(what) = no_host(inventory, name) {
        return Failure::said(what);
    }
    let near = mac_of(name).map(|mac| near_misses(mac, &inventory.by_mac));
    if let Some(near) = near.as_ref().and_then(|near| near.first()) {
        return Failure::said(format!("no host of the inventory has {name}, {near}"));
    }
    let names = inventory.hosts.keys().map(String::as_str);
    let help = did_you_mean(name, names);
    Failure::said(format!("no host {} in the inventory; {help}", quote(name)))
}

/// A value a line, and below it what it superseded.
fn text(values: &[Value]) -> String {
    let mut rows = Vec::new();
    let mut last = "";
    for value in values {
        // The key of a list stands beside its first item.
        let key = if value.key == last { "" } else { &value.key };
        last = &value.key;
        rows.push(row(key, &value.value, value.origin.as_ref()));
        let superseded = value.superseded.iter();
        rows.extend(superseded.map(|old| {
            let text = match old.key == value.key {
                true => format!("  not {}", old.value),
                false => format!("  not {}: {}", old.key, old.value),
            };
            row("", &text, Some(&old.origin))
        }));
    }
    screen::rows(&rows, screen::width())
}

fn row(key: &str, value: &str, origin: Option<&Origin>) -> Vec<String> {
    let layer = origin.map_or("default", |origin| &*origin.layer);
    let place = origin.map(|origin| format!("{}:{}", origin.file, origin.line));
    vec![
        key.to_owned(),
        crate::wire::text::clean(value, 200),
        layer.to_owned(),
        place.unwrap_or_default(),
    ]
}

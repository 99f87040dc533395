//! `bridgehead hosts show`.

use clap::Args;
use serde::Serialize;

use super::super::{Failure, print, print_json, screen};
use super::{File, load};
use crate::inventory::model::{Inventory, Origin, Value};
use crate::inventory::suggest::{did_you_mean, quote};
use crate::policy::enrol::awaits;
use crate::policy::near::near_misses;
use crate::site::whom::{Whom, mac_of, no_host};

/// Arguments of `hosts show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The host
    host: String,
    #[command(flatten)]
    file: File,
    /// Print JSON
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
    let Some(Whom::Host(host)) = Whom::of(&inventory, &arguments.host) else {
        return Err(unknown(&inventory, &arguments.host));
    };
    let values = inventory.values_of(&host);
    if arguments.json {
        let host = &host.name;
        return print_json(&Shown {
            schema: 1,
            host,
            values,
        });
    }
    let awaits = host
        .waits_for_hardware()
        .then(|| format!("{}\n", awaits(&host)));
    print(&(text(&values) + &awaits.unwrap_or_default()))
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
        crate::timeline::clean(value, 200),
        layer.to_owned(),
        place.unwrap_or_default(),
    ]
}

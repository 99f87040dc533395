//! The page at `/`: what needs attention, the racks, and machines that are not listed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::card::{Card, Row};
use super::{PageError, Waiting, render};
use crate::policy::progress::Standing;
use crate::site::report::{FleetStatus, MachineStatus};

/// A rack is drawn to this unit at least, so that one server does not look like a rack that is full.
const LEAST_TOP: u16 = 8;
/// A unit beyond this is a mistake, which must not make a page of 65,535 lines.
const TALLEST: u16 = 60;

/// Everything on the page.
#[derive(Debug, Serialize)]
struct FleetView {
    site: String,
    version: String,
    now_ms: i64,
    counts: Vec<Count>,
    refused_edit: Option<String>,
    warnings: Vec<String>,
    /// Stalled, failed or degraded.
    attention: Vec<Row>,
    waiting: Waiting,
    racks: Vec<Rack>,
    /// Hosts without a rack.
    loose: Vec<Row>,
    unlisted: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Count {
    state: &'static str,
    words: &'static str,
    number: usize,
}

#[derive(Debug, Serialize)]
struct Rack {
    name: String,
    /// From the top down.
    units: Vec<Unit>,
    /// Hosts whose unit is not said, or higher than any rack.
    elsewhere: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Unit {
    number: u16,
    hosts: Vec<Row>,
}

/// The page at `/`. `version` is what its script goes on from.
///
/// # Errors
/// [`PageError`] where the template is broken.
pub fn fleet(
    fleet: &FleetStatus,
    waiting: Waiting,
    version: &str,
    now: Timestamp,
) -> Result<String, PageError> {
    let elsewhere = |machine: &&MachineStatus| !waiting.shows(&machine.host);
    let unlisted = fleet.unknown.iter().filter(elsewhere);
    let unlisted = unlisted.map(Row::new).collect();
    let all = || fleet.hosts.iter().chain(&fleet.unknown);
    let (racked, loose) = fleet.hosts.iter().partition(|host| host.rack.is_some());
    let view = FleetView {
        site: fleet.site.clone(),
        version: version.to_owned(),
        now_ms: now.as_millisecond(),
        counts: counts(&fleet.hosts),
        refused_edit: fleet.refused_edit.clone(),
        warnings: warnings(fleet),
        attention: all()
            .filter(|host| host.needs_a_look())
            .map(Row::new)
            .collect(),
        racks: racks(racked),
        loose: Vec::<&MachineStatus>::into_iter(loose)
            .map(Row::new)
            .collect(),
        unlisted,
        waiting,
    };
    render("fleet.html", &view)
}

/// How many stand how; what nobody does is left out.
fn counts(hosts: &[MachineStatus]) -> Vec<Count> {
    let count = |standing: &Standing| {
        let state = standing.name();
        Count {
            state,
            words: Card::state_words(*standing),
            number: hosts.iter().filter(|host| host.state == state).count(),
        }
    };
    let counts = Standing::ALL.iter().map(count);
    counts.filter(|count| count.number > 0).collect()
}

/// What somebody should know who looks at no host.
pub fn warnings(fleet: &FleetStatus) -> Vec<String> {
    let troubles = fleet.troubles.iter();
    let mut warnings: Vec<String> = troubles.map(|trouble| trouble.message.clone()).collect();
    let others = fleet.dhcp_servers.iter().filter(|other| !other.expected);
    warnings.extend(others.map(|other| {
        let (interface, network) = (&other.interface, &other.network);
        format!(
            "Another DHCP server is on {interface} (network {network}): {}",
            other.note
        )
    }));
    // Numbers would be old at once; `bridgehead status` has them.
    if fleet.transfers.waiting > 0 {
        warnings.push("Large transfers wait for their turn".to_owned());
    }
    warnings
}

fn racks(hosts: Vec<&MachineStatus>) -> Vec<Rack> {
    let mut racks: BTreeMap<&str, Vec<&MachineStatus>> = BTreeMap::new();
    for host in hosts {
        let name = host.rack.as_deref().unwrap_or_default();
        racks.entry(name).or_default().push(host);
    }
    racks
        .into_iter()
        .map(|(name, hosts)| rack(name, &hosts))
        .collect()
}

fn rack(name: &str, hosts: &[&MachineStatus]) -> Rack {
    let unit = |host: &MachineStatus| host.unit.filter(|unit| (1..=TALLEST).contains(unit));
    let top = hosts.iter().filter_map(|host| unit(host)).max();
    let at = |number: Option<u16>| {
        let here = hosts.iter().filter(|host| unit(host) == number);
        here.map(|host| Row::new(host)).collect::<Vec<_>>()
    };
    let units = (1..=top.unwrap_or(0).max(LEAST_TOP)).rev();
    Rack {
        name: name.to_owned(),
        units: match top {
            None => Vec::new(),
            Some(_) => units
                .map(|number| Unit {
                    number,
                    hosts: at(Some(number)),
                })
                .collect(),
        },
        elsewhere: at(None),
    }
}

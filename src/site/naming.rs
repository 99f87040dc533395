//! What a machine that somebody gives a name is to be: a new host, or one that is listed and waits for its hardware.

use std::net::Ipv4Addr;

use super::approval::Approval;
use crate::inventory::model::{Host, Inventory};
use crate::policy::discovered::Discovered;
use crate::policy::enrol::mismatch;
use crate::scribe::{Edit, Naming, NewHost};

/// The edit that makes it that, or why there is none.
pub(super) fn edit(
    inventory: &Inventory,
    approval: &Approval,
    machine: &Discovered,
    own: &[Ipv4Addr],
) -> Result<Edit, String> {
    let name = &approval.name;
    if name.contains(['[', ']']) {
        return Err(format!(
            "`{name}` is how a range is written, and one machine is one host: give it one name"
        ));
    }
    match inventory.hosts.get(name) {
        Some(host) if host.waits_for_hardware() => fill(host, approval, machine),
        Some(host) => Err(has_a_machine(host)),
        None => add(approval, machine, own),
    }
}

fn has_a_machine(host: &Host) -> String {
    let macs: Vec<_> = host.macs.iter().map(|mac| mac.to_string()).collect();
    let (name, origin, macs) = (&host.name, &host.origin, macs.join(", "));
    format!(
        "host {name} is there already ({}:{}), as {macs}; a machine in its place is for `bridgehead hosts set {name} mac=…`",
        origin.file, origin.line
    )
}

fn fill(host: &Host, approval: &Approval, machine: &Discovered) -> Result<Edit, String> {
    let Host { name, origin, .. } = host;
    if let Some(other) = other_than_listed(host, approval) {
        return Err(format!(
            "{name} is listed with {other} ({}:{}): leave that out, or change it there first",
            origin.file, origin.line
        ));
    }
    if let Some(why) = mismatch(host, machine) {
        return Err(format!(
            "{name} is another machine by the inventory: {why}; if it is this one all the same, change {}:{} first, or say `bridgehead hosts set {name} mac={}`",
            origin.file, origin.line, machine.mac
        ));
    }
    Ok(Edit::SetMac(Naming {
        host: name.clone(),
        mac: machine.mac,
        replacing: None,
    }))
}

/// What somebody says of a host, and the inventory says otherwise.
fn other_than_listed(host: &Host, approval: &Approval) -> Option<String> {
    let profile = approval.profile.as_ref();
    let profile = profile.filter(|profile| **profile != host.profile.name);
    let ip = approval.ip.filter(|ip| *ip != *host.ip);
    let rack = approval.rack.as_ref();
    let rack = rack.filter(|rack| Some(*rack) != host.rack.as_ref());
    let unit = approval.unit.filter(|unit| Some(*unit) != host.unit);
    let listed = |value: Option<String>| value.unwrap_or_else(|| "none".into());
    let profile = profile.map(|said| format!("profile {}, not {said}", host.profile.name));
    let ip = ip.map(|said| format!("address {}, not {said}", *host.ip));
    let rack = rack.map(|said| format!("rack {}, not {said}", listed(host.rack.clone())));
    let unit = unit.map(|said| {
        let unit = host.unit.map(|unit| unit.to_string());
        format!("unit {}, not {said}", listed(unit))
    });
    profile.or(ip).or(rack).or(unit)
}

fn add(approval: &Approval, machine: &Discovered, own: &[Ipv4Addr]) -> Result<Edit, String> {
    let name = &approval.name;
    let profile = approval.profile.clone().ok_or_else(|| {
        format!("no host {name} is listed; say what a new one boots (--profile, or `profile`)")
    })?;
    Ok(Edit::Add(NewHost {
        name: name.clone(),
        mac: machine.mac,
        profile,
        ip: approval.ip,
        rack: approval.rack.clone(),
        unit: approval.unit,
        network: machine.network.clone(),
        taken: own.to_vec(),
    }))
}

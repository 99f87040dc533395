//! `nics:` and `addresses:` of hosts, held against the interfaces of their profile.

use std::sync::Arc;

use ipnet::Ipv4Net;

use super::faults::Faults;
use super::fields::Fields;
use super::model::{BOOT_ROLE, Host, InterfaceKind, Inventory, MacAddr, Network, Profile};
use super::names;
use super::scalars::{self, Bad};
use super::suggest::{did_you_mean, quote};
use super::tree::{At, Scalar, Span};
use super::written::WrittenHost;
use crate::diagnostic::Diagnostic;

impl Inventory {
    /// The host that has a MAC in its `nics`, and the role of that NIC.
    pub fn nic(&self, mac: MacAddr) -> Option<(&Arc<Host>, &str)> {
        let host = self.by_nic.get(&mac)?;
        let (role, _) = host.nics.iter().find(|(_, nic)| nic.value == mac)?;
        Some((host, role))
    }
}

/// Values by a name that the operator chose.
pub(super) type Named<T> = Vec<(At<String>, At<T>)>;

/// Reads `nics: {ROLE: MAC}`.
pub(super) fn read_nics(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Named<MacAddr> {
    let Some(map) = fields.map("nics", faults) else {
        return Vec::new();
    };
    let nics = map.values(faults, names::interface, scalars::mac);
    let (boot, nics): (Vec<_>, Vec<_>) = nics
        .into_iter()
        .partition(|(role, _)| role.value == BOOT_ROLE);
    for (role, _) in boot {
        let message = "the NICs of the role `boot` stand in `mac` or `macs`";
        let help = "move its MAC there: firmware may boot from it";
        faults.error("inventory::boot_nic", role.span, message, "", help);
    }
    nics
}

/// Reads `addresses: {INTERFACE: ADDRESS/PREFIX}`.
pub(super) fn read_addresses(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Named<Ipv4Net> {
    let Some(map) = fields.map("addresses", faults) else {
        return Vec::new();
    };
    map.values(faults, names::interface, address)
}

/// An address that a machine can have, with its prefix length.
fn address(scalar: &Scalar<'_>) -> Result<Ipv4Net, Bad> {
    let shown = quote(&scalar.text);
    let bad = |message: String, help: &str| Bad::new("inventory::bad_ip", message, help);
    let help = "write address and prefix length: 10.88.0.11/24";
    let Some((ip, _)) = scalar.text.split_once('/') else {
        let message = format!("{shown} is not an address with its prefix length");
        return Err(bad(message, help));
    };
    let text = ip.into();
    scalars::ipv4(&Scalar { text, plain: true })?;
    let net: Ipv4Net = scalar.text.parse().map_err(|_| {
        let message = format!("{shown} is not an address with its prefix length");
        bad(message, help)
    })?;
    if !(1..=32).contains(&net.prefix_len()) {
        return Err(bad(format!("{shown} is in no subnet"), help));
    }
    match super::networks::unusable(net, net.addr()) {
        Some(why) if net.prefix_len() < 31 => Err(bad(format!("{shown} {why}"), help)),
        _ => Ok(net),
    }
}

/// Holds an entry of `hosts:` against the profile that it boots, once for all hosts of a range.
pub(super) fn check(written: &WrittenHost, profile: &Profile, faults: &mut Faults) {
    check_roles(written, profile, faults);
    for (name, _) in &written.addresses {
        check_interface(name, profile, faults);
    }
    check_pool(written, profile, faults);
}

/// Every role with who needs it.
fn needed(profile: &Profile) -> Vec<(&str, &str)> {
    let bond = profile.bridge.bond.as_ref();
    let of_bond = bond.into_iter().flat_map(|bond| {
        let ports = bond.ports.iter();
        ports.map(|role| (role.as_str(), bond.name.as_str()))
    });
    let of_others = profile.interfaces.iter().flat_map(|interface| {
        let roles = interface.kind.roles().iter();
        roles.map(|role| (role.as_str(), interface.name.as_str()))
    });
    let all = of_bond.chain(of_others);
    all.filter(|(role, _)| *role != BOOT_ROLE).collect()
}

/// Holds it against a profile that its menu offers: that one may use fewer NICs and interfaces, and
/// can't give the host another address.
pub(super) fn check_offered(
    written: &WrittenHost,
    profile: &Profile,
    offered: &Profile,
    faults: &mut Faults,
) {
    check_missing(written, offered, faults);
    let (own, other) = (&profile.bridge.name, &offered.bridge.name);
    let named = |(name, _): &&(At<String>, At<Ipv4Net>)| [own, other].contains(&&name.value);
    let Some((name, _)) = written
        .addresses
        .iter()
        .find(named)
        .filter(|_| own != other)
    else {
        return;
    };
    let message = format!(
        "{} has an address on its boot bridge, which is {own} in profile {} and {other} in profile {} of its menu",
        written.layer, profile.name, offered.name
    );
    let help = "give both bridges one name";
    faults.error("inventory::menu_bridge", name.span, message, "", help);
}

fn check_missing(written: &WrittenHost, profile: &Profile, faults: &mut Faults) {
    let needed = needed(profile);
    let has = |role: &str| written.nics.iter().any(|(at, _)| at.value == role);
    for (role, user) in needed.iter().filter(|(role, _)| !has(role)) {
        let whose = match role == user {
            true => format!("profile {}", profile.name),
            false => format!("interface {user} of profile {}", profile.name),
        };
        let message = format!(
            "{} gives no MAC for the NIC `{role}`, which {whose} needs",
            written.layer
        );
        let others = written.nics.iter().map(|(at, _)| at.value.as_str());
        let near = super::suggest::nearest(role, others)
            .map(|near| format!("rename `{near}`, or "))
            .unwrap_or_default();
        let help = format!("{near}add `nics: {{{role}: \"52:54:00:00:00:02\"}}`");
        let fault = Diagnostic::error("inventory::missing_nic", message)
            .with_label(faults.primary(written.span, ""))
            .with_help(help);
        faults.once(fault);
    }
}

fn check_roles(written: &WrittenHost, profile: &Profile, faults: &mut Faults) {
    check_missing(written, profile, faults);
    let needed = needed(profile);
    for (role, _) in &written.nics {
        if needed.iter().any(|(name, _)| *name == role.value) {
            continue;
        }
        let message = format!(
            "no interface of profile {} uses the NIC {}",
            profile.name,
            quote(&role.value)
        );
        let warning = Diagnostic::warning("inventory::unused_nic", message)
            .with_label(faults.primary(role.span, ""))
            .with_help(did_you_mean(
                &role.value,
                needed.iter().map(|(name, _)| *name),
            ));
        faults.push(warning);
    }
}

fn check_interface(name: &At<String>, profile: &Profile, faults: &mut Faults) {
    let bridge = profile.bridge.name.as_str();
    let interfaces = profile.interfaces.iter();
    let known = std::iter::once(bridge).chain(interfaces.map(|at| at.name.as_str()));
    if !known.clone().any(|known| known == name.value) {
        let message = format!(
            "profile {} has no interface {} to give an address",
            profile.name,
            quote(&name.value)
        );
        let help = did_you_mean(&name.value, known.collect::<Vec<_>>());
        faults.error("inventory::unknown_interface", name.span, message, "", help);
        return;
    }
    if let Some(owner) = owner_of(&name.value, profile) {
        let message = format!(
            "{} is a port of {owner}: an address on it reaches nobody",
            name.value
        );
        let help = format!("give the address to {owner}");
        faults.error("inventory::port_with_address", name.span, message, "", help);
    }
}

/// The bridge whose port the interface is.
fn owner_of<'p>(name: &str, profile: &'p Profile) -> Option<&'p str> {
    let owner = profile.interfaces.iter().find(|interface| {
        matches!(&interface.kind, InterfaceKind::Bridge { ports } if ports.iter().any(|port| port == name))
    });
    owner.map(|interface| interface.name.as_str())
}

/// LNet takes the interface's address for the host's name.
fn check_pool(written: &WrittenHost, profile: &Profile, faults: &mut Faults) {
    let pool = profile.image_pool.as_ref();
    let Some(network) = pool.and_then(|pool| pool.network.as_ref()) else {
        return;
    };
    let known = profile.interfaces.iter().any(|at| at.name == network.value);
    let has = |(name, _): &(At<String>, At<Ipv4Net>)| name.value == network.value;
    if !known || written.addresses.iter().any(has) {
        return;
    }
    let message = format!(
        "{} has no address on {}, where profile {} has its pool's network",
        written.layer, network.value, profile.name
    );
    let fault = Diagnostic::error("inventory::pool_without_address", message)
        .with_label(faults.primary(written.span, ""))
        .with_help(format!(
            "add `addresses: {{{}: 10.88.0.11/24}}`",
            network.value
        ));
    let wanted = faults
        .span_of(network)
        .map(|span| faults.context(span, "wanted here"));
    faults.push(match wanted {
        Some(label) => fault.with_label(label),
        None => fault,
    });
}

/// An address in a network of the inventory has that network's prefix.
pub(super) fn check_prefix(at: At<Ipv4Net>, network: &Network, faults: &mut Faults) {
    let (ours, theirs) = (at.value.prefix_len(), network.subnet.prefix_len());
    if ours != theirs {
        let message = format!(
            "{} lies in network {}, whose prefix length is {theirs}",
            at.value, network.name
        );
        let help = format!("write {}/{theirs}", at.value.addr());
        faults.error("inventory::bad_ip", at.span, message, "", help);
    }
}

/// A host that moves to another network must still find the daemon.
pub(super) fn check_way(name: &At<String>, home: &Network, place: Span, faults: &mut Faults) {
    if home.server.is_some() || home.router.is_some() {
        return;
    }
    let message = format!(
        "{} lies in network {}, from where nothing leads to the daemon",
        name.value, home.name
    );
    let help = format!(
        "add `server: ADDRESS` (the daemon's own there) or `router: ADDRESS` to network {}",
        home.name
    );
    faults.error("inventory::no_way_to_daemon", place, message, "", help);
}

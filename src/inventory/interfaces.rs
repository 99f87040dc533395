//! `interfaces:` of a profile or host: what stands beside the boot bridge.

use super::bonds::{self, WrittenBond};
use super::faults::Faults;
use super::fields::Fields;
use super::suggest::quote;
use super::tree::{At, Entry, Kind, Scalar, Span};
use super::{names, scalars};

const KINDS: [&str; 4] = ["nic", "vlan", "bridge", "bond"];

/// One entry, its values in range.
#[derive(Debug, Clone)]
pub(super) struct WrittenInterface {
    pub(super) name: At<String>,
    /// `None`: refused, which is reported.
    pub(super) kind: Option<WrittenKind>,
    pub(super) mtu: Option<At<u16>>,
    pub(super) required: bool,
}

/// What the entry is, as written.
#[derive(Debug, Clone)]
pub(super) enum WrittenKind {
    Nic(At<String>),
    Vlan { on: At<String>, id: At<u16> },
    Bridge(Vec<At<String>>),
    Bond(WrittenBond),
}

/// Reads the map at `interfaces`.
pub(super) fn read(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Vec<WrittenInterface> {
    let Some(map) = fields.map("interfaces", faults) else {
        return Vec::new();
    };
    let owner = fields.layer().to_string();
    let entries = map.entries().iter().filter(|entry| !entry.duplicate);
    entries
        .map(|entry| read_one(entry, &owner, faults))
        .collect()
}

fn read_one(entry: &Entry<'_>, owner: &str, faults: &mut Faults) -> WrittenInterface {
    let name = name(&entry.key, entry.key_span, faults);
    let shown = quote(&entry.key.text);
    let what = format!("interface {} of {owner}", shown.trim_matches('`'));
    let mut map = Fields::new(&entry.node, entry.key_span, what.into(), faults);
    let mtu = scalars::number("an MTU", 1280..=9216);
    let required = scalars::one_of("a yes or no", "inventory::bad_interface", scalars::BOOLEANS);
    let interface = WrittenInterface {
        kind: read_kind(&mut map, &name.value, faults),
        mtu: map.get("mtu", faults, mtu),
        required: map
            .get("required", faults, required)
            .is_none_or(|at| at.value),
        name,
    };
    map.finish(faults);
    interface
}

fn name(key: &Scalar<'_>, span: Span, faults: &mut Faults) -> At<String> {
    let value = names::interface(key).unwrap_or_else(|bad| {
        bad.report(span, "interfaces", faults);
        key.text.to_string()
    });
    At { value, span }
}

/// Exactly one of the kinds.
fn read_kind(map: &mut Fields<'_, '_>, name: &str, faults: &mut Faults) -> Option<WrittenKind> {
    let nic = map.get("nic", faults, names::interface);
    let id = map.get("vlan", faults, bonds::vlan_id);
    let on = map.get("on", faults, names::interface);
    let ports = map.list("bridge", faults, names::interface);
    let bond = bonds::read(map, faults, |_, _| name.to_owned());
    let kinds: Vec<_> = KINDS.into_iter().filter(|kind| map.has(kind)).collect();
    check_kinds(map, &kinds, faults);
    match kinds.as_slice() {
        ["nic"] => nic.map(WrittenKind::Nic),
        ["vlan"] => {
            map.require("on", "br0", faults);
            id.zip(on).map(|(id, on)| WrittenKind::Vlan { on, id })
        }
        ["bridge"] => {
            refuse_no_ports(map, faults);
            Some(WrittenKind::Bridge(ports))
        }
        ["bond"] => bond.map(WrittenKind::Bond),
        _ => None,
    }
}

fn refuse_no_ports(map: &mut Fields<'_, '_>, faults: &mut Faults) {
    let Some(node) = map.node("bridge") else {
        return;
    };
    if matches!(&node.kind, Kind::Sequence(items) if items.is_empty()) {
        let message = format!("{} is a bridge without ports", map.what());
        let help = "name its ports, NICs by their roles: bridge: [guest]";
        faults.error("inventory::bad_interface", node.span, message, "", help);
    }
}

fn check_kinds(map: &Fields<'_, '_>, kinds: &[&str], faults: &mut Faults) {
    if let Some(span) = map.key_span("on").filter(|_| !map.has("vlan")) {
        let message = format!("{} has `on`, but only a VLAN stands on another", map.what());
        let help = "add `vlan: ID`, or remove `on`";
        faults.error("inventory::bad_interface", span, message, "", help);
    }
    let (message, help) = match kinds {
        [] if !KINDS.iter().any(|kind| map.has_like(kind)) => (
            format!("{} does not say what it is", map.what()),
            "add one of `nic: ROLE`, `vlan: ID` with `on`, `bridge: [PORT]`, `bond: {...}`",
        ),
        [_, _, ..] => (
            format!("{} is two things: {}", map.what(), kinds.join(" and ")),
            "keep one of `nic`, `vlan`, `bridge` and `bond`; give the other a name of its own",
        ),
        _ => return,
    };
    faults.error("inventory::bad_interface", map.place(), message, "", help);
}

/// A layer's interfaces laid over its parent's: one of the same name takes its place.
pub(super) fn over(own: &[WrittenInterface], parent: &[WrittenInterface]) -> Vec<WrittenInterface> {
    let of_own: std::collections::HashSet<&str> =
        own.iter().map(|at| at.name.value.as_str()).collect();
    let kept = parent.iter();
    let kept = kept.filter(|interface| !of_own.contains(interface.name.value.as_str()));
    kept.chain(own).cloned().collect()
}

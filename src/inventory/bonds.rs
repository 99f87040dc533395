//! `bond: {...}`, below the boot bridge or as an interface.

use super::faults::Faults;
use super::fields::Fields;
use super::links::{Bond, BondMode};
use super::names;
use super::scalars::{self, Bad};
use super::tree::{At, Kind, Scalar, Span};

const MODES: &[(&str, BondMode)] = &[
    ("active-backup", BondMode::ActiveBackup),
    ("802.3ad", BondMode::Lacp),
    ("balance-rr", BondMode::BalanceRr),
    ("balance-xor", BondMode::BalanceXor),
    ("broadcast", BondMode::Broadcast),
    ("balance-tlb", BondMode::BalanceTlb),
    ("balance-alb", BondMode::BalanceAlb),
];
const LACP_RATES: &[(&str, &str)] = &[("slow", "slow"), ("fast", "fast")];
const HASHES: &[(&str, &str)] = &[
    ("layer2", "layer2"),
    ("layer2+3", "layer2+3"),
    ("layer3+4", "layer3+4"),
    ("encap2+3", "encap2+3"),
    ("encap3+4", "encap3+4"),
    ("vlan+srcmac", "vlan+srcmac"),
];

/// The kernel's own default is not to look at links at all, and then a bond never fails over.
const DEFAULT_MIIMON: u16 = 100;

/// A bond as written, its values in range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrittenBond {
    pub(super) bond: Bond,
    /// Where the roles of `bond.ports` stand.
    pub(super) ports: Vec<Span>,
    pub(super) mode: Span,
}

/// Reads the map at `bond`; `name` reads its name, or knows it. `None`: it is not there, or
/// refused and reported.
pub(super) fn read(
    fields: &mut Fields<'_, '_>,
    faults: &mut Faults,
    name: impl Fn(&mut Fields<'_, '_>, &mut Faults) -> String,
) -> Option<WrittenBond> {
    let mut map = fields.map("bond", faults)?;
    let place = map.place();
    let name = name(&mut map, faults);
    let mode = scalars::one_of("a bonding mode", "inventory::unknown_bond_mode", MODES);
    let mode = map.get("mode", faults, mode);
    let ports = map.list("ports", faults, names::interface);
    let options = Options::read(&mut map, faults);
    map.require("ports", "[boot, second]", faults);
    refuse_no_ports(&mut map, faults);
    let is_complete = mode.is_some() || !map.has("mode");
    map.finish(faults);
    let mode = mode.unwrap_or(At {
        value: BondMode::ActiveBackup,
        span: place,
    });
    if !is_complete || ports.is_empty() {
        return None;
    }
    options.check(mode.value, &ports, faults);
    Some(WrittenBond {
        mode: mode.span,
        ports: ports.iter().map(|at| at.span).collect(),
        bond: options.bond(name, mode.value, ports),
    })
}

/// What a mode may take beside its ports.
struct Options {
    miimon: Option<At<u16>>,
    lacp_rate: Option<At<&'static str>>,
    hash: Option<At<&'static str>>,
    primary: Option<At<String>>,
}

impl Options {
    fn read(map: &mut Fields<'_, '_>, faults: &mut Faults) -> Self {
        let rate = scalars::one_of("an LACP rate", "inventory::bad_bond", LACP_RATES);
        let hash = scalars::one_of("a hash policy", "inventory::bad_bond", HASHES);
        Self {
            miimon: map.get(
                "miimon",
                faults,
                scalars::number("a time in ms", 10..=10_000),
            ),
            lacp_rate: map.get("lacp_rate", faults, rate),
            hash: map.get("hash", faults, hash),
            primary: map.get("primary", faults, names::interface),
        }
    }

    /// The kernel refuses an option that the mode does not have, and the bond stays without it.
    fn check(&self, mode: BondMode, ports: &[At<String>], faults: &mut Faults) {
        let primary = self.primary.as_ref();
        let modes = [
            (
                "lacp_rate",
                self.lacp_rate.map(|at| at.span),
                mode == BondMode::Lacp,
            ),
            ("hash", self.hash.map(|at| at.span), mode.hashes()),
            ("primary", primary.map(|at| at.span), mode.has_primary()),
        ];
        for (key, span, fits) in modes {
            if let Some(span) = span.filter(|_| !fits) {
                let message = format!("a bond of mode {mode} takes no `{key}`");
                let help = format!("remove `{key}`, or choose another mode");
                faults.error("inventory::bad_bond", span, message, "", help);
            }
        }
        let is_port = |at: &At<String>| ports.iter().any(|port| port.value == at.value);
        if let Some(at) = primary.filter(|at| !is_port(at)) {
            let message = format!("the primary `{}` is no port of the bond", at.value);
            let names = ports.iter().map(|port| port.value.as_str());
            let help = super::suggest::did_you_mean(&at.value, names);
            faults.error("inventory::bad_bond", at.span, message, "", help);
        }
    }

    fn bond(self, name: String, mode: BondMode, ports: Vec<At<String>>) -> Bond {
        Bond {
            name,
            mode,
            ports: ports.into_iter().map(|at| at.value).collect(),
            miimon: self.miimon.map_or(DEFAULT_MIIMON, |at| at.value),
            lacp_rate: self.lacp_rate.map(|at| at.value),
            hash: self.hash.map(|at| at.value),
            primary: self.primary.map(|at| at.value),
        }
    }
}

fn refuse_no_ports(map: &mut Fields<'_, '_>, faults: &mut Faults) {
    let Some(node) = map.node("ports") else {
        return;
    };
    if matches!(&node.kind, Kind::Sequence(items) if items.is_empty()) {
        let message = format!("`ports` of {} is empty", map.what());
        let help = "name the NICs by their roles: ports: [boot, second]";
        faults.error("inventory::bad_bond", node.span, message, "", help);
    }
}

/// `none`, where a profile takes back what one that it extends has.
pub(super) fn is_none(scalar: &Scalar<'_>) -> bool {
    scalar.text == "none"
}

/// A VLAN id (IEEE 802.1Q); 0 means no VLAN and 4095 is reserved.
pub(super) fn vlan_id(scalar: &Scalar<'_>) -> Result<u16, Bad> {
    scalars::number("a VLAN id", 1..=4094)(scalar)
}

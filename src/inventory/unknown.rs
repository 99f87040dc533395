//! `unknown:`, at the top and in networks: how machines that are not listed are met.

use std::fmt;

use super::faults::Faults;
use super::fields::Fields;
use super::model::{Inventory, Sourced};
use super::names;
use super::profiles::{Profiles, keys};
use super::scalars;
use super::suggest::quote;
use super::tree::At;
use crate::diagnostic::Diagnostic;

/// What happens to a machine that is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownPolicy {
    /// It gets no answer; it is shown all the same.
    Ignore,
    /// It gets a pool address and a script that waits, and is shown to the operator.
    #[default]
    Hold,
    /// It waits, and may be approved over the network, too.
    Approve,
    /// It becomes the next listed host that has no MAC, serial or port.
    NextFree,
    /// It becomes the host that has its serial number.
    BySerial,
    /// It becomes the host that stands at its switch port.
    ByPort,
}

impl UnknownPolicy {
    /// Whether it gets an address and waits.
    pub fn holds(self) -> bool {
        self != Self::Ignore
    }

    /// Whether a machine that waits may be approved over the network.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Ignore | Self::Hold)
    }

    /// Whether machines become hosts by themselves.
    pub fn enrols(self) -> bool {
        matches!(self, Self::NextFree | Self::BySerial | Self::ByPort)
    }
}

const POLICIES: &[(&str, UnknownPolicy)] = &[
    ("hold", UnknownPolicy::Hold),
    ("ignore", UnknownPolicy::Ignore),
    ("approve", UnknownPolicy::Approve),
    ("next-free", UnknownPolicy::NextFree),
    ("by-serial", UnknownPolicy::BySerial),
    ("by-port", UnknownPolicy::ByPort),
];

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = POLICIES.iter().find(|(_, policy)| policy == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

/// How machines that are not listed are met.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unknown {
    /// What happens to them.
    pub policy: UnknownPolicy,
    /// Whether virtual machines become hosts by themselves, too.
    pub allows_virtual: bool,
    /// Whether what a machine heard by LLDP says where it is plugged in: a guest can forge it.
    pub believes_lldp: bool,
    /// The profile whose kernel and initrd they boot to tell what they are; it is there, and complete.
    pub inventory: Option<Sourced<String>>,
}

impl Inventory {
    /// How a machine is met that is not listed and asks on this network.
    pub fn unknown_on(&self, network: Option<&str>) -> &Unknown {
        let network = network.and_then(|name| self.networks.get(name));
        network.map_or(&self.unknown, |network| &network.unknown)
    }
}

/// One `unknown:` as written.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    policy: Option<UnknownPolicy>,
    allows_virtual: Option<bool>,
    believes_lldp: Option<bool>,
    inventory: Option<At<String>>,
}

/// Takes it out of the top's or a network's map.
pub(super) fn read(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Written {
    let Some(mut unknown) = fields.map("unknown", faults) else {
        return Written::default();
    };
    let policy = scalars::one_of("a policy", "inventory::unknown_policy", POLICIES);
    let boolean = || scalars::one_of("true or false", "inventory::bad_value", scalars::BOOLEANS);
    let policy = unknown.get("policy", faults, policy);
    let allows_virtual = unknown.get("virtual", faults, boolean());
    let believes_lldp = unknown.get("lldp", faults, boolean());
    let inventory = unknown.get("inventory", faults, names::key_name);
    unknown.finish(faults);
    Written {
        policy: policy.map(|at| at.value),
        allows_virtual: allows_virtual.map(|at| at.value),
        believes_lldp: believes_lldp.map(|at| at.value),
        inventory,
    }
}

impl Written {
    /// What holds where this stands in a network and `top` outside them.
    pub(super) fn over(&self, top: &Self) -> Self {
        Self {
            policy: self.policy.or(top.policy),
            allows_virtual: self.allows_virtual.or(top.allows_virtual),
            believes_lldp: self.believes_lldp.or(top.believes_lldp),
            inventory: self.inventory.as_ref().or(top.inventory.as_ref()).cloned(),
        }
    }

    pub(super) fn resolved(&self, layer: &std::sync::Arc<str>, faults: &Faults) -> Unknown {
        let inventory = self.inventory.clone();
        Unknown {
            policy: self.policy.unwrap_or_default(),
            allows_virtual: self.allows_virtual.unwrap_or_default(),
            believes_lldp: self.believes_lldp.unwrap_or_default(),
            inventory: inventory.map(|at| faults.sourced(at, layer)),
        }
    }

    /// The profile of the inventory boot.
    pub(super) fn profile(&self) -> Option<&str> {
        self.inventory.as_ref().map(|at| at.value.as_str())
    }

    /// Its profile must be one that boots.
    pub(super) fn check(&self, profiles: &Profiles, faults: &mut Faults) {
        let Some(at) = &self.inventory else { return };
        let name = quote(&at.value);
        let Some(resolved) = profiles.get(&at.value) else {
            let message = format!("`unknown` wants the profile {name}, which is not defined");
            let help = profiles.help_for(&at.value);
            faults.error("inventory::unknown_profile", at.span, message, "", help);
            return;
        };
        if resolved.complete.is_some() || resolved.settings.broken {
            return;
        }
        let missing = keys(&resolved.settings.missing());
        let message = format!("profile {name} has no {missing}, and nothing boots without");
        let fault = Diagnostic::error("inventory::incomplete_profile", message)
            .with_label(faults.primary(at.span, "needed here"))
            .with_label(faults.context(resolved.span, "defined here"))
            .with_help("add it to the profile, or to one that it extends");
        faults.push(fault);
    }
}

//! `bridge: {...}` of a profile or host: the boot bridge, and what it stands on.

use super::bonds::{self, WrittenBond};
use super::faults::Faults;
use super::fields::Fields;
use super::model::{Bridge, Sourced};
use super::tree::{At, Kind};
use super::{names, scalars};

const DEFAULT_BRIDGE: &str = "br0";
const DEFAULT_BOND: &str = "bond0";
const DEFAULT_MTU: u16 = 1500;

/// What one layer sets, or several laid over each other.
#[derive(Debug, Clone, Default)]
pub(super) struct BridgeSettings {
    name: Option<Sourced<String>>,
    mtu: Option<Sourced<u16>>,
    /// `Some(None)`: the layer says `none`.
    vlan: Option<Option<At<u16>>>,
    bond: Option<Option<WrittenBond>>,
}

impl BridgeSettings {
    pub(super) fn read(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Self {
        let Some(mut bridge) = fields.map("bridge", faults) else {
            return Self::default();
        };
        let layer = bridge.layer().clone();
        let mtu = scalars::number("an MTU that a bridge can have", 1280..=9216);
        let name = bridge.get("name", faults, names::interface);
        let mtu = bridge.get("mtu", faults, mtu);
        let settings = Self {
            name: name.map(|at| faults.sourced(at, &layer)),
            mtu: mtu.map(|at| faults.sourced(at, &layer)),
            vlan: read_vlan(&mut bridge, faults),
            bond: read_bond(&mut bridge, faults),
        };
        bridge.finish(faults);
        settings
    }

    /// These settings where they are set, the parent's elsewhere.
    pub(super) fn over(&self, parent: &Self) -> Self {
        Self {
            name: self.name.as_ref().or(parent.name.as_ref()).cloned(),
            mtu: self.mtu.as_ref().or(parent.mtu.as_ref()).cloned(),
            vlan: self.vlan.or(parent.vlan),
            bond: self.bond.as_ref().or(parent.bond.as_ref()).cloned(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.mtu.is_none() && self.vlan.is_none() && self.bond.is_none()
    }

    pub(super) fn vlan(&self) -> Option<At<u16>> {
        self.vlan.flatten()
    }

    pub(super) fn bond(&self) -> Option<&WrittenBond> {
        self.bond.as_ref().and_then(Option::as_ref)
    }

    /// The bridge that these settings make.
    pub(super) fn bridge(&self) -> Sourced<Bridge> {
        let origin = |origin: Option<&super::model::Origin>| origin.cloned();
        let name = self.name.as_ref();
        let mtu = self.mtu.as_ref();
        let from_name = origin(name.and_then(|at| at.origin.as_ref()));
        Sourced {
            origin: from_name.or_else(|| origin(mtu.and_then(|at| at.origin.as_ref()))),
            value: Bridge {
                name: name.map_or_else(|| DEFAULT_BRIDGE.to_owned(), |at| at.value.clone()),
                mtu: mtu.map_or(DEFAULT_MTU, |at| at.value),
                vlan: self.vlan().map(|at| at.value),
                bond: self.bond().map(|written| written.bond.clone()),
            },
        }
    }
}

fn says_none(bridge: &mut Fields<'_, '_>, key: &'static str) -> bool {
    let node = bridge.node(key);
    node.is_some_and(|node| matches!(&node.kind, Kind::Scalar(word) if bonds::is_none(word)))
}

fn read_vlan(bridge: &mut Fields<'_, '_>, faults: &mut Faults) -> Option<Option<At<u16>>> {
    if says_none(bridge, "vlan") {
        return Some(None);
    }
    bridge.get("vlan", faults, bonds::vlan_id).map(Some)
}

fn read_bond(bridge: &mut Fields<'_, '_>, faults: &mut Faults) -> Option<Option<WrittenBond>> {
    if says_none(bridge, "bond") {
        return Some(None);
    }
    let name = |map: &mut Fields<'_, '_>, faults: &mut Faults| {
        let name = map.get("name", faults, names::interface);
        name.map_or_else(|| DEFAULT_BOND.to_owned(), |at| at.value)
    };
    bonds::read(bridge, faults, name).map(Some)
}

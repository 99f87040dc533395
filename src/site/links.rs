//! Interfaces as the initrd is told of them: below the bridge on the kernel command line, the
//! others in the host's configuration.

use std::fmt::Write;

use crate::inventory::model::{Bond, Host, Interface, InterfaceKind, MacAddr};
use crate::render::BridgeContext;

/// What is needed to reach the daemon: the boot bridge and what it stands on.
pub(super) fn bridge(host: &Host) -> BridgeContext {
    let bridge = &host.profile.bridge;
    let bond = bridge.bond.as_ref();
    BridgeContext {
        name: bridge.name.clone(),
        mtu: bridge.mtu,
        vlan: bridge.vlan,
        bond: bond.map(|bond| format!("{},{}", bond.name, bond_options(host, bond))),
        ports: bond.map(|bond| bond_ports(host, bond)),
    }
}

/// `kind=vlan on=br0 id=200 mtu=1500 address=10.2.0.11/24 required=yes`.
pub(super) fn interface(host: &Host, interface: &Interface) -> String {
    let mut words = match &interface.kind {
        InterfaceKind::Nic { role } => format!("kind=nic mac={}", macs(&host.macs_of(role))),
        InterfaceKind::Vlan { on, id } => format!("kind=vlan on={on} id={id}"),
        InterfaceKind::Bridge { ports } => format!("kind=bridge ports={}", ports.join(",")),
        InterfaceKind::Bond(bond) => format!(
            "kind=bond ports={} {}",
            bond_ports(host, bond),
            bond_options(host, bond)
        ),
    };
    let address = host.addresses.get(&interface.name);
    // Writing to a String does not fail.
    let _ = write!(words, " mtu={}", interface.mtu);
    if let Some(address) = address {
        let _ = write!(words, " address={}", **address);
    }
    let required = if interface.required { "yes" } else { "no" };
    let _ = write!(words, " required={required}");
    words
}

fn macs(macs: &[MacAddr]) -> String {
    let texts: Vec<String> = macs.iter().map(MacAddr::to_string).collect();
    texts.join(",")
}

fn bond_ports(host: &Host, bond: &Bond) -> String {
    let ports = bond.ports.iter().flat_map(|role| host.macs_of(role));
    macs(&ports.collect::<Vec<_>>())
}

/// The options by their names in sysfs, in an order that the kernel takes: the mode before what
/// depends on it, the primary (a MAC here) once there are ports.
fn bond_options(host: &Host, bond: &Bond) -> String {
    let primary = bond.primary.as_ref();
    let primary = primary.and_then(|role| host.macs_of(role).first().copied());
    let mut options = format!("mode={},miimon={}", bond.mode, bond.miimon);
    let further = [
        ("lacp_rate", bond.lacp_rate.map(str::to_owned)),
        ("xmit_hash_policy", bond.hash.map(str::to_owned)),
        ("primary", primary.map(|mac| mac.to_string())),
    ];
    for (name, value) in further {
        if let Some(value) = value {
            let _ = write!(options, ",{name}={value}");
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::model::Inventory;

    fn inventory() -> Inventory {
        let text = include_str!("../../tests/inventories/valid/interfaces.yaml");
        crate::inventory::parse("interfaces.yaml", text).unwrap().0
    }

    fn told(name: &str) -> Vec<String> {
        let inventory = inventory();
        let host = &inventory.hosts[name];
        let interfaces = host.profile.interfaces.iter();
        interfaces
            .map(|built| format!("{} {}", built.name, interface(host, built)))
            .collect()
    }

    #[test]
    fn a_bond_below_the_bridge_is_told_by_its_macs() {
        let inventory = inventory();
        let told = bridge(&inventory.hosts["kvm02"]);
        assert_eq!(told.vlan, Some(100));
        assert_eq!(
            told.bond.unwrap(),
            "bond0,mode=802.3ad,miimon=100,lacp_rate=fast,xmit_hash_policy=layer3+4"
        );
        assert_eq!(told.ports.unwrap(), "52:54:00:00:00:02,52:54:00:00:02:02");
        let told = bridge(&inventory.hosts["kvm03"]);
        assert_eq!(told.ports.unwrap(), "52:54:00:00:00:03,52:54:00:00:00:13");
        let told = bridge(&inventory.hosts["kvm04"]);
        assert_eq!((told.vlan, told.bond, told.ports), (None, None, None));
    }

    #[test]
    fn interfaces_come_in_build_order_with_the_hosts_own_values() {
        assert_eq!(
            told("kvm02"),
            [
                "bond1 kind=bond ports=52:54:00:00:04:02,52:54:00:00:05:02 \
                 mode=active-backup,miimon=50,primary=52:54:00:00:04:02 mtu=1500 required=no",
                "bond1.30 kind=vlan on=bond1 id=30 mtu=1500 required=yes",
                "br0.200 kind=vlan on=br0 id=200 mtu=1500 address=10.2.0.12/16 required=yes",
                "storage kind=nic mac=52:54:00:00:01:02 mtu=9000 address=10.88.0.12/24 required=yes",
                "guest kind=nic mac=52:54:00:00:03:02 mtu=1500 required=yes",
                "br1 kind=bridge ports=guest,bond1.30 mtu=1500 required=yes",
            ]
        );
        assert!(told("kvm03").is_empty());
        let last = told("kvm04")
            .into_iter()
            .find(|line| line.starts_with("storage"));
        assert_eq!(
            last.unwrap(),
            "storage kind=nic mac=52:54:00:00:01:04 mtu=1500 address=10.88.0.14/24 required=no"
        );
    }
}

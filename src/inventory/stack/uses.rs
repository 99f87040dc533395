//! What can be used once only: a NIC, a port, a VLAN of an interface.

use std::collections::HashMap;

use super::super::interfaces::{WrittenInterface, WrittenKind};
use super::{At, BOOT_ROLE, BridgeSettings, Builder};

impl Builder<'_> {
    /// Each NIC has one use.
    pub(super) fn check_roles(&mut self, settings: &BridgeSettings) {
        let mut uses: HashMap<String, String> = HashMap::new();
        if let Some(bond) = settings.bond() {
            let user = format!("the boot bridge's {}", bond.bond.name);
            uses.extend(
                bond.bond
                    .ports
                    .iter()
                    .map(|role| (role.clone(), user.clone())),
            );
        }
        uses.insert(BOOT_ROLE.to_owned(), String::from("the boot bridge"));
        for (role, user) in self.roles() {
            if let Some(other) = uses.insert(role.value.clone(), user.clone()) {
                let message = format!(
                    "the NIC `{}` is used twice, by {other} and by {user}",
                    role.value
                );
                let help = "give each its own NIC; several networks on one NIC are VLANs";
                self.problem("inventory::nic_used_twice", role.span, message, help);
            }
        }
    }

    fn roles(&self) -> Vec<(At<String>, String)> {
        let of = |device: &WrittenInterface| -> Vec<At<String>> {
            match &device.kind {
                Some(WrittenKind::Nic(role)) => vec![role.clone()],
                Some(WrittenKind::Bond(bond)) => {
                    let ports = bond.bond.ports.iter().zip(&bond.ports);
                    let port = |(role, span): (&String, &_)| At {
                        value: role.clone(),
                        span: *span,
                    };
                    ports.map(port).collect()
                }
                _ => Vec::new(),
            }
        };
        // `boot` as a port that is implied is reported where it is implied.
        let is_implied_boot = |device: &WrittenInterface| device.name.value == BOOT_ROLE;
        let devices = self
            .devices
            .iter()
            .filter(|device| !is_implied_boot(device));
        devices
            .flat_map(|device| {
                let user = device.name.value.clone();
                of(device).into_iter().map(move |role| (role, user.clone()))
            })
            .collect()
    }

    /// A port belongs to one bridge, and a bridge can't be one (the kernel: ELOOP).
    pub(super) fn check_ports(&mut self) {
        let mut owners: HashMap<String, String> = HashMap::new();
        if let Some(bond) = &self.bridge.bond {
            let lowest = match self.bridge.vlan {
                Some(vlan) => format!("{}.{vlan}", bond.name),
                None => bond.name.clone(),
            };
            owners.insert(lowest, self.bridge.name.clone());
        }
        for device in self.devices.clone() {
            let Some(WrittenKind::Bridge(ports)) = device.kind else {
                continue;
            };
            for port in ports {
                self.check_port(&port);
                let owner = device.name.value.clone();
                if let Some(other) = owners.insert(port.value.clone(), owner.clone()) {
                    let message =
                        format!("{} is a port twice, of {other} and of {owner}", port.value);
                    let help = "an interface is a port of one bridge, once";
                    self.problem("inventory::port_used_twice", port.span, message, help);
                }
            }
        }
    }

    fn check_port(&mut self, port: &At<String>) {
        let kind = self.index.get(&port.value);
        let kind = kind.and_then(|index| self.devices[*index].kind.clone());
        match kind {
            Some(WrittenKind::Bond(bond)) => self.warn_about_mode(&bond),
            Some(WrittenKind::Bridge(_)) => self.bridge_as_port(port),
            _ if port.value == self.bridge.name => self.bridge_as_port(port),
            _ => {}
        }
    }

    fn bridge_as_port(&mut self, port: &At<String>) {
        let message = format!("{} is a bridge, and a bridge can't be a port", port.value);
        let help = "make a VLAN of it the port, or put both bridges' ports into one";
        self.problem("inventory::bridge_as_port", port.span, message, help);
    }

    /// One VLAN of one interface is one device.
    pub(super) fn check_vlans(&mut self) {
        let mut taken: HashMap<(String, u16), String> = HashMap::new();
        if let (Some(bond), Some(vlan)) = (&self.bridge.bond, self.bridge.vlan) {
            let below = format!("what {} stands on", self.bridge.name);
            taken.insert((bond.name.clone(), vlan), below);
        }
        for device in self.devices.clone() {
            let Some(WrittenKind::Vlan { on, id }) = device.kind else {
                continue;
            };
            let name = device.name.value;
            if let Some(other) = taken.insert((on.value.clone(), id.value), name.clone()) {
                let message = format!(
                    "VLAN {} of {} is there twice: {other} and {name}",
                    id.value, on.value
                );
                let help = "remove one of them, or correct its id";
                self.problem("inventory::duplicate_vlan", id.span, message, help);
            }
        }
    }
}

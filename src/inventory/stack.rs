//! The boot bridge and the interfaces beside it as one stack: who stands on whom, in which order
//! it is built, and what of it can't be.

mod uses;

use std::collections::HashMap;

use super::bridges::BridgeSettings;
use super::faults::Faults;
use super::interfaces::{WrittenInterface, WrittenKind};
use super::links::{Interface, InterfaceKind};
use super::model::{BOOT_ROLE, Bridge};
use super::order::{Order, order};
use super::tree::{At, Span};
use crate::diagnostic::{Diagnostic, Severity};

const DEFAULT_MTU: u16 = 1500;

/// Interfaces of one host and what they stand on, together. More is a slip, and a bound keeps a
/// hostile file cheap; the initrd takes 99 interfaces.
const MAX_INTERFACES: usize = 96;

/// The interfaces in build order, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Stack {
    pub(super) interfaces: Vec<Interface>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Problem {
    severity: Severity,
    code: &'static str,
    span: Span,
    message: String,
    help: String,
}

impl Stack {
    /// Puts in order what is below and beside the boot bridge.
    pub(super) fn arrange(settings: &BridgeSettings, written: &[WrittenInterface]) -> Self {
        let bridge = settings.bridge().value;
        let mut builder = Builder {
            bridge: &bridge,
            problems: Vec::new(),
            below: written.iter().map(below).collect(),
            devices: written.to_vec(),
            index: HashMap::new(),
        };
        if builder.are_too_many() {
            let problems = builder.problems;
            return Self {
                problems,
                ..Self::default()
            };
        }
        builder.check_boot(settings);
        builder.take_names();
        builder.imply_nics();
        builder.check_roles(settings);
        builder.check_ports();
        builder.check_vlans();
        let interfaces = builder.in_order();
        Self {
            interfaces,
            problems: builder.problems,
        }
    }

    /// Reports each problem; one that a parent has too is reported once.
    pub(super) fn report(self, faults: &mut Faults) {
        for problem in self.problems {
            let mut fault = Diagnostic::error(problem.code, problem.message)
                .with_label(faults.primary(problem.span, ""))
                .with_help(problem.help);
            fault.severity = problem.severity;
            faults.once(fault);
        }
    }
}

/// What must stand before the interface, as written.
fn below(written: &WrittenInterface) -> Vec<At<String>> {
    match &written.kind {
        Some(WrittenKind::Vlan { on, .. }) => vec![on.clone()],
        Some(WrittenKind::Bridge(ports)) => ports.clone(),
        _ => Vec::new(),
    }
}

struct Builder<'b> {
    bridge: &'b Bridge,
    devices: Vec<WrittenInterface>,
    /// For each device what it stands on.
    below: Vec<Vec<At<String>>>,
    index: HashMap<String, usize>,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn problem(
        &mut self,
        code: &'static str,
        span: Span,
        message: String,
        help: impl Into<String>,
    ) {
        self.problems.push(Problem {
            severity: Severity::Error,
            code,
            span,
            message,
            help: help.into(),
        });
    }

    fn are_too_many(&mut self) -> bool {
        let below: usize = self.below.iter().map(Vec::len).sum();
        let first = self.devices.first().map(|device| device.name.span);
        match first.filter(|_| below + self.devices.len() > MAX_INTERFACES) {
            Some(span) => {
                let message = format!("more than {MAX_INTERFACES} interfaces or ports");
                let help = "remove some";
                self.problem("inventory::too_many_interfaces", span, message, help);
                true
            }
            None => false,
        }
    }

    /// What the boot bridge itself stands on.
    fn check_boot(&mut self, settings: &BridgeSettings) {
        let Some(written) = settings.bond() else {
            return;
        };
        let (bond, place) = (&written.bond, written.mode);
        if bond.name == self.bridge.name {
            let message = format!("bridge and bond are both called {}", bond.name);
            let help = "give the bond another name: bond0";
            self.problem("inventory::duplicate_interface", place, message, help);
        }
        if !bond.ports.iter().any(|role| role == BOOT_ROLE) {
            let message = String::from("the bond under the boot bridge lacks the boot NIC");
            let help = "add `boot` to its ports: ports: [boot, second]";
            self.problem("inventory::bad_bond", place, message, help);
        }
        if let Some(vlan) = settings.vlan()
            && format!("{}.{}", bond.name, vlan.value).len() > 15
        {
            let message = format!(
                "the VLAN's device {}.{} has more than 15 bytes",
                bond.name, vlan.value
            );
            let help = "give the bond a shorter name: bond0";
            self.problem("inventory::bad_bridge", vlan.span, message, help);
        }
        self.warn_about_mode(&written.clone());
    }

    fn warn_about_mode(&mut self, written: &super::bonds::WrittenBond) {
        let mode = written.bond.mode;
        if !mode.rewrites_macs() {
            return;
        }
        self.problems.push(Problem {
            severity: Severity::Warning,
            code: "inventory::bond_under_bridge",
            span: written.mode,
            message: format!(
                "a bond of mode {mode} under a bridge loses frames of guests: it changes MACs"
            ),
            help: String::from("use active-backup, or 802.3ad if the switch does LACP"),
        });
    }

    /// The names that the boot bridge and what is below it have taken.
    fn boot_names(&self) -> Vec<String> {
        let mut names = vec![self.bridge.name.clone()];
        if let Some(bond) = &self.bridge.bond {
            names.push(bond.name.clone());
            names.extend(self.bridge.vlan.map(|vlan| format!("{}.{vlan}", bond.name)));
        }
        names
    }

    fn take_names(&mut self) {
        let taken = self.boot_names();
        for at in 0..self.devices.len() {
            let name = self.devices[at].name.clone();
            if taken.contains(&name.value) {
                let message = format!("two interfaces are called {}", name.value);
                let help = "the boot bridge or what it stands on has that name: choose another";
                self.problem("inventory::duplicate_interface", name.span, message, help);
            }
            self.index.entry(name.value).or_insert(at);
        }
    }

    /// A name that is no interface's is a NIC's role, and the NIC is called so.
    fn imply_nics(&mut self) {
        let taken = self.boot_names();
        let named: Vec<At<String>> = self.below.iter().flatten().cloned().collect();
        for name in named {
            if name.value == BOOT_ROLE {
                let message = String::from("the boot NIC belongs to the boot bridge");
                let help = format!("stand on the bridge: {}", self.bridge.name);
                self.problem("inventory::boot_nic", name.span, message, help);
            }
            if taken.contains(&name.value) || self.index.contains_key(&name.value) {
                continue;
            }
            self.index.insert(name.value.clone(), self.devices.len());
            self.below.push(Vec::new());
            self.devices.push(WrittenInterface {
                kind: Some(WrittenKind::Nic(name.clone())),
                mtu: self.mtu_above(&name),
                required: self.is_required_above(&name),
                name,
            });
        }
    }

    fn above<'s>(&'s self, name: &'s At<String>) -> impl Iterator<Item = &'s WrittenInterface> {
        let pairs = self.devices.iter().zip(&self.below);
        let stands = |names: &Vec<At<String>>| names.iter().any(|at| at.value == name.value);
        pairs
            .filter(move |(_, names)| stands(names))
            .map(|(device, _)| device)
    }

    /// An implied NIC takes frames as large as the largest of what stands on it.
    fn mtu_above(&self, name: &At<String>) -> Option<At<u16>> {
        let mtus = self.above(name).filter_map(|device| device.mtu);
        mtus.max_by_key(|at| at.value)
    }

    fn is_required_above(&self, name: &At<String>) -> bool {
        self.above(name).any(|device| device.required)
    }

    /// Those that stand on nothing that is not built yet come first, in the order of the file.
    fn in_order(&mut self) -> Vec<Interface> {
        let known = |names: &Vec<At<String>>| -> Vec<usize> {
            let known = names.iter().filter_map(|at| self.index.get(&at.value));
            known.copied().collect()
        };
        let below: Vec<Vec<usize>> = self.below.iter().map(known).collect();
        let Order { order, circle } = order(&below);
        if let Some(first) = circle.first() {
            let span = self.devices[*first].name.span;
            let names = circle.iter().chain([first]);
            let names: Vec<_> = names
                .map(|index| self.devices[*index].name.value.as_str())
                .collect();
            let message = format!(
                "interfaces stand on each other in a circle: {}",
                names.join(" -> ")
            );
            let help = "one of them must stand on a NIC, a bond or the boot bridge";
            self.problem("inventory::interface_cycle", span, message, help);
        }
        self.finish(&order)
    }

    /// Gives each its MTU, those below first.
    fn finish(&mut self, order: &[usize]) -> Vec<Interface> {
        let mut mtus: HashMap<String, u16> = HashMap::new();
        for name in self.boot_names() {
            mtus.insert(name, self.bridge.mtu);
        }
        let mut built = Vec::new();
        for index in order {
            let device = self.devices[*index].clone();
            let mtu = self.mtu(&device, &mtus);
            mtus.insert(device.name.value.clone(), mtu);
            let kind = device.kind.map(kind);
            built.extend(kind.map(|kind| Interface {
                name: device.name.value,
                kind,
                mtu,
                required: device.required,
            }));
        }
        built
    }

    fn mtu(&mut self, device: &WrittenInterface, mtus: &HashMap<String, u16>) -> u16 {
        let (names, what) = match &device.kind {
            Some(WrittenKind::Vlan { on, .. }) => (std::slice::from_ref(on), "VLAN"),
            Some(WrittenKind::Bridge(ports)) => (ports.as_slice(), "bridge"),
            _ => (&[][..], ""),
        };
        let of_below = |at: &At<String>| Some((*mtus.get(&at.value)?, at.value.clone()));
        let least = names.iter().filter_map(of_below).min();
        let Some((least, below)) = least else {
            return device.mtu.map_or(DEFAULT_MTU, |at| at.value);
        };
        let mtu = device.mtu.map_or(least, |at| at.value);
        if let Some(written) = device.mtu.filter(|at| at.value > least) {
            let name = &device.name.value;
            let message =
                format!("the {what} {name} has MTU {mtu}, more than {below} below it: {least}");
            let help = format!("write at most {least} here, or raise that of {below}");
            self.problem("inventory::mtu_too_large", written.span, message, help);
        }
        mtu
    }
}

fn kind(written: WrittenKind) -> InterfaceKind {
    let values = |ports: Vec<At<String>>| ports.into_iter().map(|at| at.value).collect();
    match written {
        WrittenKind::Nic(role) => InterfaceKind::Nic { role: role.value },
        WrittenKind::Vlan { on, id } => InterfaceKind::Vlan {
            on: on.value,
            id: id.value,
        },
        WrittenKind::Bridge(ports) => InterfaceKind::Bridge {
            ports: values(ports),
        },
        WrittenKind::Bond(written) => InterfaceKind::Bond(written.bond),
    }
}

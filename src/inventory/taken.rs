//! What is one host's alone, and who has it.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::faults::Faults;
use super::hardware::{PlugKey, serial_key};
use super::hostlist::Seed;
use super::model::MacAddr;
use super::tree::{At, Span};
use crate::diagnostic::Diagnostic;

/// The first host that has it, and where that is written.
type First = (String, Span);

/// What hosts have taken so far, in the order of the file.
#[derive(Default)]
pub(super) struct Taken {
    names: HashMap<String, Span>,
    macs: HashMap<MacAddr, First>,
    serials: HashMap<String, First>,
    plugs: HashMap<PlugKey, First>,
    ips: HashMap<Ipv4Addr, First>,
    slots: HashMap<(String, u16), First>,
}

impl Taken {
    /// DNS does not tell `KVM01` from `kvm01` (RFC 4343).
    pub(super) fn name(&mut self, name: &str, span: Span, faults: &mut Faults) -> bool {
        let Some(first) = self.names.insert(name.to_ascii_lowercase(), span) else {
            return true;
        };
        let fault = Diagnostic::error(
            "inventory::duplicate_host",
            format!("two entries are the host {name}"),
        )
        .with_label(faults.primary(span, ""))
        .with_label(faults.context(first, "first here"))
        .with_help("rename one of them; upper and lower case make no difference");
        faults.push(fault);
        false
    }

    pub(super) fn hardware(&mut self, seed: &Seed, faults: &mut Faults) {
        let serial = seed.serial.as_ref();
        if let Some((key, at)) = serial.and_then(|at| Some((serial_key(&at.value)?, at))) {
            let taken = (seed.name.clone(), at.span);
            if let Some(first) = self.serials.insert(key, taken) {
                let what = format!("serial number {}", at.value);
                let own = (seed.name.as_str(), at.span);
                let help = "a serial number belongs to one machine: correct one of the two";
                report_clash(
                    "inventory::duplicate_serial",
                    &what,
                    own,
                    first,
                    help,
                    faults,
                );
            }
        }
        if let Some((switch, port)) = &seed.plug {
            let key = PlugKey::new(&switch.value, &port.value);
            if let Some(first) = self.plugs.insert(key, (seed.name.clone(), port.span)) {
                let what = format!("port {} of {}", port.value, switch.value);
                let own = (seed.name.as_str(), port.span);
                let help = "one machine is plugged into a port: correct one of the two";
                report_clash("inventory::duplicate_port", &what, own, first, help, faults);
            }
        }
    }

    pub(super) fn mac(&mut self, name: &str, mac: At<MacAddr>, faults: &mut Faults) {
        let taken = (name.to_owned(), mac.span);
        if let Some(first) = self.macs.insert(mac.value, taken) {
            let what = format!("MAC {}", mac.value);
            let help = "a MAC belongs to one NIC: correct one of the two";
            let own = (name, mac.span);
            report_clash("inventory::duplicate_mac", &what, own, first, help, faults);
        }
    }

    /// Two hosts in one unit are likely a slip; blade chassis hold several, so it is a warning.
    pub(super) fn slot(&mut self, seed: &Seed, faults: &mut Faults) {
        let (Some(rack), Some(unit)) = (&seed.rack, seed.unit) else {
            return;
        };
        let slot = (rack.clone(), unit.value);
        let taken = (seed.name.clone(), unit.span);
        if let Some((other, first)) = self.slots.insert(slot, taken) {
            let message = format!(
                "{} and {other} are both in unit {} of rack {}",
                seed.name, unit.value, rack
            );
            let warning = Diagnostic::warning("inventory::rack_clash", message)
                .with_label(faults.primary(unit.span, ""))
                .with_label(faults.context(first, "first used here"))
                .with_help("correct one of them; for a chassis of several servers this is fine");
            faults.push(warning);
        }
    }

    pub(super) fn address(&mut self, name: &str, ip: At<Ipv4Addr>, faults: &mut Faults) {
        let taken = (name.to_owned(), ip.span);
        if let Some(first) = self.ips.insert(ip.value, taken) {
            let what = format!("address {}", ip.value);
            let (own, help) = ((name, ip.span), "give each host an address of its own");
            report_clash("inventory::duplicate_ip", &what, own, first, help, faults);
        }
    }
}

/// What should be a host's own, and is written twice.
fn report_clash(
    code: &'static str,
    what: &str,
    (name, place): (&str, Span),
    (other, first): First,
    help: &str,
    faults: &mut Faults,
) {
    let message = if other == name {
        format!("{name} has the {what} twice")
    } else {
        format!("{name} and {other} share the {what}")
    };
    let fault = Diagnostic::error(code, message)
        .with_label(faults.primary(place, ""))
        .with_label(faults.context(first, "first used here"))
        .with_help(help);
    faults.push(fault);
}

//! Names that a range spreads its hosts over: `rack: "r[1-4]"`, `switch: "sw[1-2]"`.

use super::faults::Faults;
use super::hostlist::Counted;
use super::suggest::quote;
use super::tree::{At, Span};
use crate::diagnostic::Diagnostic;

/// What such names name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// `rack`.
    pub(super) one: &'static str,
    /// `racks`.
    pub(super) several: &'static str,
    /// Of their faults.
    pub(super) code: &'static str,
    /// How such a range looks.
    pub(super) example: &'static str,
}

pub(super) const RACKS: Kind = Kind {
    one: "rack",
    several: "racks",
    code: "inventory::bad_rack_range",
    example: "r[1-4]",
};
pub(super) const SWITCHES: Kind = Kind {
    one: "switch",
    several: "switches",
    code: "inventory::bad_switch_range",
    example: "sw[1-2]",
};

/// The names of an entry, and how many hosts each has.
#[derive(Default)]
pub(super) struct Spread {
    one: Option<String>,
    several: Option<(Counted, u32)>,
}

impl Spread {
    /// `None`: they don't fit the hosts, and that is reported.
    pub(super) fn read(
        kind: Kind,
        name: Option<&At<String>>,
        (hosts, place): (u32, Span),
        faults: &mut Faults,
    ) -> Option<Self> {
        let Some(name) = name else {
            return Some(Self::default());
        };
        if !name.value.contains(['[', ']']) {
            let one = Some(name.value.clone());
            return Some(Self { one, several: None });
        }
        let fault = |message: String, help: String| {
            Diagnostic::error(kind.code, message)
                .with_label(faults.primary(name.span, ""))
                .with_label(faults.context(place, "its hosts"))
                .with_help(help)
        };
        let Kind { one, several, .. } = kind;
        let fault = match Counted::parse(&name.value) {
            None => fault(
                format!("{} is not a range of {several}", quote(&name.value)),
                format!("write first and last number in brackets: {}", kind.example),
            ),
            Some(_) if hosts == 1 => fault(
                format!("one host can't have several {several}"),
                format!("name its {one}, without a range"),
            ),
            Some(names) if !hosts.is_multiple_of(names.count) => fault(
                format!("{hosts} hosts don't fill {} {several} evenly", names.count),
                format!(
                    "each {one} takes as many hosts as the others; write an entry for the rest"
                ),
            ),
            Some(names) => {
                let each = hosts / names.count;
                let several = Some((names, each));
                return Some(Self { one: None, several });
            }
        };
        faults.push(fault);
        None
    }

    /// That of a host, and how many have it before.
    pub(super) fn of(&self, index: u32) -> (Option<String>, u32) {
        match &self.several {
            Some((names, each)) => (Some(names.name(index / each)), index % each),
            None => (self.one.clone(), index),
        }
    }

    /// How many hosts have one, of so many.
    pub(super) fn each(&self, hosts: u32) -> u32 {
        self.several.as_ref().map_or(hosts, |(_, each)| *each)
    }
}

/// The ports of an entry: they count up, anew at each switch.
#[derive(Default)]
pub(super) struct Ports {
    one: Option<String>,
    several: Option<Counted>,
}

impl Ports {
    /// `each` hosts are at one switch. `None`: they don't fit, and that is reported.
    pub(super) fn read(
        port: Option<&At<String>>,
        each: u32,
        place: Span,
        faults: &mut Faults,
    ) -> Option<Self> {
        let Some(port) = port else {
            return Some(Self::default());
        };
        let counted = Counted::parse(&port.value);
        let ranges = port.value.contains(['[', ']']);
        let (message, help) = match &counted {
            None if !ranges && each == 1 => {
                let one = Some(port.value.clone());
                return Some(Self { one, several: None });
            }
            None if ranges => (
                format!("{} is not a range of ports", quote(&port.value)),
                "write first and last number in brackets: Gi1/0/[1-16]".to_owned(),
            ),
            None => (
                format!("{each} hosts can't be at one port"),
                format!("let it count up: \"Gi1/0/[1-{each}]\""),
            ),
            Some(ports) if ports.count == each && each > 1 => {
                return Some(Self {
                    one: None,
                    several: counted,
                });
            }
            Some(ports) if each == 1 => (
                format!("one host at a switch has {} ports", ports.count),
                "name its port, without a range".to_owned(),
            ),
            Some(ports) => (
                format!("{each} hosts at each switch have {} ports", ports.count),
                "write one for each host; they count anew at each switch".to_owned(),
            ),
        };
        let fault = Diagnostic::error("inventory::bad_port_range", message)
            .with_label(faults.primary(port.span, ""))
            .with_label(faults.context(place, "its hosts"))
            .with_help(help);
        faults.push(fault);
        None
    }

    /// That of a host at its switch.
    pub(super) fn of(&self, below: u32) -> Option<String> {
        match &self.several {
            Some(ports) => Some(ports.name(below)),
            None => self.one.clone(),
        }
    }
}

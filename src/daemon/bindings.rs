//! Which sockets an inventory takes, and whether the start bound them: a reload binds none.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::interfaces::{self, Askers, InterfaceError};
use crate::dhcp::Interface;
use crate::inventory::model::Inventory;

/// What the start bound.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    addresses: BTreeSet<(String, Ipv4Addr)>,
    /// Interfaces with DHCP.
    dhcp: BTreeSet<String>,
}

/// A socket that an inventory takes, on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Address(Ipv4Addr),
    Dhcp(Askers),
}

/// All that an inventory takes.
pub(super) type Needs = BTreeSet<(String, Need)>;

impl Bound {
    pub(super) fn new(served: &[Interface], dhcp: impl Iterator<Item = String>) -> Self {
        let each = |one: &Interface| {
            let of = |address: &Ipv4Addr| (one.name.clone(), *address);
            one.addresses.iter().map(of).collect::<Vec<_>>()
        };
        Self {
            addresses: served.iter().flat_map(each).collect(),
            dhcp: dhcp.collect(),
        }
    }

    /// Relays can ask by any interface.
    fn has(&self, interface: &str, need: Need) -> bool {
        match need {
            Need::Address(address) => self.addresses.contains(&(interface.to_owned(), address)),
            Need::Dhcp(Askers::Clients) => self.dhcp.contains(interface),
            Need::Dhcp(Askers::Relays) => !self.dhcp.is_empty(),
        }
    }

    /// Why a reload can't serve an edit: it takes a socket that only a start binds. `before` and
    /// `after` are what was needed and is; an address that the machine got since the start is no
    /// fault of the edit.
    pub(super) fn lacks(&self, before: &Needs, after: &Needs) -> Option<String> {
        let mut new = after.difference(before);
        let (interface, need) = new.find(|(interface, need)| !self.has(interface, *need))?;
        let what = match need {
            Need::Address(address) => address.to_string(),
            Need::Dhcp(_) => "DHCP".to_owned(),
        };
        Some(format!(
            "{what} on {interface} is not served since the start: restart the daemon, a reload can't begin it"
        ))
    }
}

/// What an inventory takes now.
pub(super) fn needs(named: &[String], inventory: &Inventory) -> Result<Needs, InterfaceError> {
    interfaces::choose(named, inventory).map(|chosen| needs_of(&chosen, inventory))
}

fn needs_of(chosen: &[Interface], inventory: &Inventory) -> Needs {
    let each = chosen.iter().flat_map(|interface| {
        let dhcp = interfaces::askers(interface, chosen, inventory).map(Need::Dhcp);
        let addresses = interface.addresses.iter().copied().map(Need::Address);
        let of = |need| (interface.name.clone(), need);
        addresses.chain(dhcp).map(of)
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The interfaces `eth0`, `eth1`... with an address each, as far as they fit, and the needs.
    fn of(networks: &str, addresses: &[&str]) -> (Vec<Interface>, Needs) {
        let text = format!("networks: {{{networks}}}");
        let (inventory, _) = crate::inventory::parse("hosts.yaml", &text).unwrap();
        let fit = |(number, address): (usize, &&str)| {
            let address = address.parse().unwrap();
            interfaces::fit(&format!("eth{number}"), &[address], &inventory)
        };
        let chosen: Vec<_> = addresses.iter().enumerate().filter_map(fit).collect();
        let needs = needs_of(&chosen, &inventory);
        (chosen, needs)
    }

    fn bound(networks: &str, addresses: &[&str], dhcp: &[&str]) -> Bound {
        let (chosen, _) = of(networks, addresses);
        Bound::new(&chosen, dhcp.iter().map(|name| (*name).to_owned()))
    }

    const OFF: &str = "boot: {subnet: 10.77.0.0/24, dhcp: \"off\"}";
    const ON: &str = "boot: {subnet: 10.77.0.0/24}";
    const TWO: &str = "boot: {subnet: 10.77.0.0/24}, more: {subnet: 10.66.0.0/24}";
    const BOTH: [&str; 2] = ["10.77.0.1", "10.66.0.1"];

    #[test]
    fn an_edit_that_needs_another_socket_needs_a_restart() {
        let needs = |networks| of(networks, &BOTH).1;
        let silent = bound(OFF, &BOTH, &[]);
        let told = silent.lacks(&needs(OFF), &needs(ON)).unwrap();
        assert!(told.contains("DHCP on eth0"), "{told}");
        let one = bound(ON, &BOTH, &["eth0"]);
        let told = one.lacks(&needs(ON), &needs(TWO)).unwrap();
        assert!(told.contains("10.66.0.1 on eth1"), "{told}");
        // Switched off and on again, what the start bound is still there.
        assert_eq!(one.lacks(&needs(OFF), &needs(ON)), None);
        // The machine has its second address since the start, whatever is edited.
        assert_eq!(one.lacks(&needs(TWO), &needs(TWO)), None);
    }

    #[test]
    fn relays_need_one_interface_and_clients_their_own() {
        let with_far = |mode: &str| {
            let far = format!("{ON}, far: {{subnet: 10.88.0.0/24}}");
            let networks = format!("{far}, quiet: {{subnet: 10.66.0.0/24, dhcp: \"{mode}\"}}");
            of(&networks, &BOTH).1
        };
        let quiet = format!("{ON}, quiet: {{subnet: 10.66.0.0/24, dhcp: \"off\"}}");
        let before = of(&quiet, &BOTH).1;
        let start = bound(&quiet, &BOTH, &["eth0"]);
        assert_eq!(start.lacks(&before, &with_far("off")), None, "by eth0");
        let told = start.lacks(&with_far("off"), &with_far("server")).unwrap();
        assert!(told.contains("DHCP on eth1"), "{told}");
        let silent = bound(&quiet, &BOTH, &[]);
        assert!(silent.lacks(&before, &with_far("off")).is_some());
    }
}

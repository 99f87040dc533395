//! Which interfaces to serve.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::dhcp::Interface;
use crate::inventory::model::{DhcpMode, Inventory, Network};

/// No interface to serve.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The system did not say which there are.
    #[error("cannot list the network interfaces")]
    List(#[source] nix::Error),
    /// No such interface.
    #[error("there is no interface {name}; {}", there_are(known))]
    Missing {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The interface is in no network of the inventory.
    #[error(
        "interface {name} has no address in a network of the inventory (it has {}); give it one, or correct `subnet` in hosts.yaml",
        list(addresses)
    )]
    NoAddress {
        /// Which.
        name: String,
        /// Its addresses.
        addresses: Vec<Ipv4Addr>,
    },
    /// None was named and none fits.
    #[error(
        "no interface has an address in a network of the inventory ({}): give one an address (`ip address add`), or correct `subnet` in hosts.yaml",
        there_are(known)
    )]
    NoneFits {
        /// What there is.
        known: Vec<String>,
    },
}

fn there_are(known: &[String]) -> String {
    match known {
        [] => "there is none but loopback".to_owned(),
        [one] => format!("there is {one}"),
        more => format!("there are {}", more.join(", ")),
    }
}

pub(super) fn list(addresses: &[Ipv4Addr]) -> String {
    if addresses.is_empty() {
        return "none".into();
    }
    addresses
        .iter()
        .map(Ipv4Addr::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Addresses of every interface but loopback.
fn addresses() -> Result<Vec<(String, Option<Ipv4Addr>)>, InterfaceError> {
    let all = getifaddrs().map_err(InterfaceError::List)?;
    let real = all.filter(|entry| !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK));
    let address = |entry: &nix::ifaddrs::InterfaceAddress| {
        entry.address.as_ref()?.as_sockaddr_in().map(|v4| v4.ip())
    };
    Ok(real
        .map(|entry| (entry.interface_name.clone(), address(&entry)))
        .collect())
}

/// The interfaces that were named, or every one that fits a network; each with its addresses
/// there.
///
/// # Errors
/// [`InterfaceError`] says which can't be served, or that none can.
pub fn choose(named: &[String], inventory: &Inventory) -> Result<Vec<Interface>, InterfaceError> {
    let there = addresses()?;
    let known = || {
        let mut names: Vec<_> = there.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    };
    let on = |name: &str| {
        there
            .iter()
            .filter(|(n, _)| n == name)
            .filter_map(|(_, a)| *a)
            .collect::<Vec<_>>()
    };
    if named.is_empty() {
        let fitting: Vec<_> = known()
            .into_iter()
            .filter_map(|name| fit(&name, &on(&name), inventory))
            .collect();
        return if fitting.is_empty() {
            Err(InterfaceError::NoneFits { known: known() })
        } else {
            Ok(fitting)
        };
    }
    named
        .iter()
        .map(|name| {
            if !known().contains(name) {
                return Err(InterfaceError::Missing {
                    name: name.clone(),
                    known: known(),
                });
            }
            let addresses = on(name);
            fit(name, &addresses, inventory).ok_or_else(|| InterfaceError::NoAddress {
                name: name.clone(),
                addresses,
            })
        })
        .collect()
}

/// The other interfaces, but for loopback.
///
/// # Errors
/// The system does not say which there are.
pub fn strangers(chosen: &[Interface]) -> Result<BTreeSet<String>, InterfaceError> {
    let there = addresses()?.into_iter().map(|(name, _)| name);
    Ok(there
        .filter(|name| chosen.iter().all(|one| one.name != *name))
        .collect())
}

/// The interface with its addresses in networks: first those that networks name as ours, last
/// those where no DHCP is served.
pub(super) fn fit(name: &str, addresses: &[Ipv4Addr], inventory: &Inventory) -> Option<Interface> {
    let rank = |address: &Ipv4Addr| {
        let mut networks = inventory.networks.values();
        let network = networks.find(|network| network.subnet.contains(address))?;
        let named = network.server == Some(*address);
        Some(match network.dhcp {
            DhcpMode::Off => 2,
            DhcpMode::Server | DhcpMode::Proxy => u8::from(!named),
        })
    };
    let ranked = addresses
        .iter()
        .filter_map(|address| Some((rank(address)?, *address)));
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let addresses: Vec<_> = ranked.into_iter().map(|(_, address)| address).collect();
    let name = name.to_owned();
    (!addresses.is_empty()).then_some(Interface { name, addresses })
}

/// Who may ask for DHCP on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Askers {
    /// Clients on its link.
    Clients,
    /// Relays of a network that lies on no interface.
    Relays,
}

/// Whether DHCP is answered on an interface, and for whom.
pub(super) fn askers(
    interface: &Interface,
    all: &[Interface],
    inventory: &Inventory,
) -> Option<Askers> {
    let on = |interface: &Interface, network: &Network| {
        let mut addresses = interface.addresses.iter();
        addresses.any(|address| network.subnet.contains(address))
    };
    let networks = inventory.networks.values();
    let served: Vec<_> = networks
        .filter(|network| network.dhcp != DhcpMode::Off)
        .collect();
    let beyond = |network: &Network| !all.iter().any(|other| on(other, network));
    if served.iter().any(|network| on(interface, network)) {
        Some(Askers::Clients)
    } else {
        let relayed = served.iter().any(|network| beyond(network));
        relayed.then_some(Askers::Relays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVENTORY: &str = "
networks:
  boot: {subnet: 10.77.0.0/24, server: 10.77.0.2}
  quiet: {subnet: 10.44.0.0/24, dhcp: \"off\"}
  beside: {subnet: 10.66.0.0/24, dhcp: proxy}
";

    #[test]
    fn an_interface_has_all_its_addresses_in_networks_the_preferred_first() {
        let (inventory, _) = crate::inventory::parse("hosts.yaml", INVENTORY).unwrap();
        let all = ["192.0.2.1", "10.44.0.1", "10.66.0.1", "10.77.0.2"];
        let found = fit("eth0", &all.map(|a| a.parse().unwrap()), &inventory).unwrap();
        let found: Vec<_> = found.addresses.iter().map(Ipv4Addr::to_string).collect();
        assert_eq!(found, ["10.77.0.2", "10.66.0.1", "10.44.0.1"]);
        assert!(fit("eth1", &["192.0.2.1".parse().unwrap()], &inventory).is_none());
    }

    #[test]
    fn dhcp_is_silent_where_it_is_off_unless_relays_may_ask() {
        let (inventory, _) = crate::inventory::parse("hosts.yaml", INVENTORY).unwrap();
        let on = |name: &str, addresses: &[&str]| Interface {
            name: name.into(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        let (boot, quiet) = (
            on("eth0", &["10.77.0.2", "10.66.0.1"]),
            on("eth1", &["10.44.0.1"]),
        );
        let all = [boot.clone(), quiet.clone()];
        assert_eq!(askers(&boot, &all, &inventory), Some(Askers::Clients));
        assert_eq!(askers(&quiet, &all, &inventory), None);
        // Nobody is in the network `beside` but behind a relay.
        let alone = [on("eth0", &["10.77.0.2"]), quiet.clone()];
        assert_eq!(askers(&quiet, &alone, &inventory), Some(Askers::Relays));
    }
}

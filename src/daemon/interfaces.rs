//! Which interfaces to serve.

use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::dhcp::Interface;
use crate::inventory::model::{DhcpMode, Inventory};

/// No interface to serve.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The system did not say which there are.
    #[error("cannot list the network interfaces")]
    List(#[source] nix::Error),
    /// No such interface.
    #[error("there is no interface {name}; there are {}", known.join(", "))]
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
    #[error("no interface has an address in a network of the inventory; there are {}: give one an address, or correct `subnet` in hosts.yaml", known.join(", "))]
    NoneFits {
        /// What there is.
        known: Vec<String>,
    },
}

fn list(addresses: &[Ipv4Addr]) -> String {
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

/// The interfaces that were named, or every one that fits a network with DHCP; each with
/// its address there.
pub(super) fn choose(
    named: &[String],
    inventory: &Inventory,
) -> Result<Vec<Interface>, InterfaceError> {
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

/// The interface with the address that the inventory prefers, if it has one in a network.
fn fit(name: &str, addresses: &[Ipv4Addr], inventory: &Inventory) -> Option<Interface> {
    let networks = || {
        inventory
            .networks
            .values()
            .filter(|network| network.dhcp != DhcpMode::Off)
    };
    let preferred = networks()
        .filter_map(|network| network.server)
        .find(|server| addresses.contains(server));
    let inside = || {
        addresses
            .iter()
            .copied()
            .find(|address| networks().any(|network| network.subnet.contains(address)))
    };
    preferred.or_else(inside).map(|address| Interface {
        name: name.to_owned(),
        address,
    })
}

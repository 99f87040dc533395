//! Where an invented packet comes in, and what is in it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::posing::architecture;
use crate::inventory::model::{DhcpMode, Firmware, Inventory, MacAddr, Network};
use crate::policy::client::Asker;
use crate::policy::dhcp::OwnAddresses;
use crate::site::own;
use crate::wire::dhcp::{Hardware, MessageType, Request};

/// The daemon's address in a network, and how we come by it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stand {
    /// The address.
    pub address: Ipv4Addr,
    /// The network's name.
    pub network: String,
    /// Why this one, in words.
    pub why: &'static str,
    /// The relay that brings the network's requests, where it does not stand there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<Ipv4Addr>,
}

/// Where the daemon stands in a network: as told, as written, as this machine stands there, else as is usual.
pub(super) fn stand(network: &Network, told: Option<Ipv4Addr>) -> Stand {
    let subnet = network.subnet;
    let inside = |address: Ipv4Addr| subnet.contains(&address);
    let first = subnet.hosts().next().unwrap_or(subnet.addr());
    // The first is the router's in most networks, and the daemon's on none.
    let mut others = subnet.hosts().take(2);
    let free = others.find(|address| Some(*address) != network.router);
    let (address, why) = if let Some(told) = told {
        (told, "as --server says")
    } else if let Some(server) = network.server {
        (server, "`server` of the network")
    } else if let Some(own) = own_address(inside) {
        (own, "this machine's address there")
    } else {
        (
            free.unwrap_or(first),
            "assumed: the network's first; --server names another",
        )
    };
    let name = network.name.clone();
    Stand {
        address,
        network: name,
        why,
        relay: (!inside(address)).then(|| network.router.unwrap_or(first)),
    }
}

fn own_address(wanted: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let all = own::of_machine().ok()?;
    let mut all = all.into_iter().map(|(_, address)| address);
    all.find(|address| wanted(*address))
}

/// What the daemon would have, standing at these addresses.
pub(super) fn owning(addresses: &[Ipv4Addr], inventory: &Inventory) -> OwnAddresses {
    OwnAddresses {
        all: addresses.to_vec(),
        served: addresses.to_vec(),
        syslog: match inventory.server.hears_ipxe() {
            true => addresses.to_vec(),
            false => Vec::new(),
        },
    }
}

/// The network that a machine without a reservation most likely asks in: the first with a pool.
pub(super) fn usual_network(inventory: &Inventory) -> Option<&Network> {
    let served = || {
        let networks = inventory.networks.values();
        networks.filter(|network| network.dhcp != DhcpMode::Off)
    };
    let first = served().find(|network| network.pool.is_some());
    first.or_else(|| served().next()).map(AsRef::as_ref)
}

/// A DISCOVER as such a program sends it (RFC 4578; UEFI 2.10 §24.7 for HTTP).
pub(super) fn discover(mac: MacAddr, asker: Asker, firmware: Firmware) -> Request {
    let code = architecture(firmware, asker);
    let class = match asker {
        Asker::HttpBoot => "HTTPClient",
        _ => "PXEClient",
    };
    let mut options = BTreeMap::from([
        (53, vec![1]),
        (
            60,
            format!("{class}:Arch:{code:05}:UNDI:003016").into_bytes(),
        ),
        (93, code.to_be_bytes().to_vec()),
    ]);
    if asker == Asker::Ipxe {
        options.insert(77, b"iPXE".to_vec());
    }
    // Room for every option, as EDK2 and iPXE offer it: none is to be missing here.
    options.insert(57, 1472_u16.to_be_bytes().to_vec());
    Request {
        message_type: MessageType::Discover,
        xid: 0,
        secs: 0,
        broadcast: false,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        hardware: Hardware::ethernet(mac),
        mac,
        options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_not_assumed_where_the_router_is() {
        // TEST-NET-1 and -2 (RFC 5737): no machine of ours stands there.
        let text = "networks: {a: {subnet: 192.0.2.0/24, router: 192.0.2.1}, b: {subnet: 198.51.100.0/24, router: 198.51.100.254}}";
        let (inventory, _) = crate::inventory::parse("hosts.yaml", text).unwrap();
        let of = |name: &str| stand(&inventory.networks[name], None).address.to_string();
        assert_eq!(of("a"), "192.0.2.2");
        assert_eq!(of("b"), "198.51.100.1");
    }
}

//! Networks: addresses that must lie in their subnet, and subnets that must not overlap.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::faults::Faults;
use super::firmware;
use super::model::{AddressRange, DhcpMode, Network};
use super::tree::{At, Span};
use super::unknown;
use super::written::WrittenNetwork;
use crate::diagnostic::Diagnostic;

/// The networks, and which one an address lies in.
#[derive(Debug, Default)]
pub(super) struct Networks {
    pub(super) by_name: BTreeMap<String, Arc<Network>>,
    /// By network address; disjoint unless that is reported.
    sorted: Vec<Placed>,
    /// A subnet is unknown because it was refused or forgotten, which is reported.
    pub(super) incomplete: bool,
}

/// A network with the places that messages about its addresses point at.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) network: Arc<Network>,
    pub(super) subnet: Span,
    pub(super) pool: Option<Span>,
    /// Addresses that are taken: whose, which, where.
    pub(super) taken: Vec<(&'static str, At<Ipv4Addr>)>,
}

impl Networks {
    /// The network whose subnet holds the address.
    pub(super) fn of(&self, address: Ipv4Addr) -> Option<&Placed> {
        let after = self
            .sorted
            .partition_point(|placed| placed.network.subnet.network() <= address);
        let placed = self.sorted.get(after.checked_sub(1)?)?;
        placed.network.subnet.contains(&address).then_some(placed)
    }
}

/// Checks each network by itself, then all against each other.
pub(super) fn build(
    written: &[WrittenNetwork],
    unknown: &unknown::Written,
    faults: &mut Faults,
) -> Networks {
    let placed: Vec<_> = written
        .iter()
        .filter_map(|network| build_one(network, unknown, faults))
        .collect();
    let mut networks = Networks {
        incomplete: placed.len() < written.len() || written.is_empty(),
        by_name: placed
            .iter()
            .map(|placed| (placed.network.name.clone(), placed.network.clone()))
            .collect(),
        sorted: placed,
    };
    networks
        .sorted
        .sort_by_key(|placed| placed.network.subnet.network());
    report_overlaps(&networks.sorted, faults);
    networks
}

fn build_one(
    written: &WrittenNetwork,
    unknown: &unknown::Written,
    faults: &mut Faults,
) -> Option<Placed> {
    let subnet = written.subnet?;
    check_addresses(written, subnet.value, faults);
    check_pool(written, subnet.value, faults);
    let values = |list: &[At<Ipv4Addr>]| list.iter().map(|at| at.value).collect();
    let network = Network {
        name: written.name.value.clone(),
        subnet: subnet.value,
        router: written.router.map(|at| at.value),
        server: written.server.map(|at| at.value),
        dns: values(&written.dns),
        domain: written.domain.as_ref().map(|at| at.value.clone()),
        ntp: values(&written.ntp),
        mtu: written.mtu.map(|at| at.value),
        dhcp: written.dhcp.map_or(DhcpMode::Server, |at| at.value),
        pool: written.pool.map(|at| at.value),
        probe: written.probe,
        lease_time: written.lease_time,
        search: written.dhcp_options.search.clone(),
        routes: routes(written),
        options: written.dhcp_options.options.clone(),
        authoritative: written.dhcp_options.authoritative,
        ipxe_ipv6: written.dhcp_options.ipxe_ipv6,
        reply_delay: written.dhcp_options.reply_delay.clone(),
        loaders: firmware::sourced(&written.loaders, &written.layer, faults),
        unknown: written
            .unknown
            .over(unknown)
            .resolved(&written.layer, faults),
    };
    Some(Placed {
        network: Arc::new(network),
        subnet: subnet.span,
        pool: written.pool.map(|at| at.span),
        taken: taken(written),
    })
}

fn routes(written: &WrittenNetwork) -> Vec<(ipnet::Ipv4Net, Ipv4Addr)> {
    let routes = written.dhcp_options.routes.iter();
    routes.map(|(to, by)| (*to, by.value)).collect()
}

/// The addresses that the network's own machines have.
fn taken(written: &WrittenNetwork) -> Vec<(&'static str, At<Ipv4Addr>)> {
    let router = written.router.map(|at| ("the router", at));
    let server = written.server.map(|at| ("this server", at));
    let dns = written.dns.iter().map(|at| ("a name server", *at));
    let ntp = written.ntp.iter().map(|at| ("an NTP server", *at));
    let routes = written.dhcp_options.routes.iter();
    let routers = routes.map(|(_, by)| ("a router of `routes`", *by));
    router
        .into_iter()
        .chain(server)
        .chain(dns)
        .chain(ntp)
        .chain(routers)
        .collect()
}

/// Routers and server are machines on this very subnet.
fn check_addresses(written: &WrittenNetwork, subnet: ipnet::Ipv4Net, faults: &mut Faults) {
    let own = [("router", written.router), ("server", written.server)];
    let routes = written.dhcp_options.routes.iter();
    let routers = routes.map(|(_, by)| ("routes", Some(*by)));
    for (key, at) in own.into_iter().chain(routers) {
        let Some(at) = at else { continue };
        if let Some(why) = unusable(subnet, at.value) {
            let message = format!("`{key}` {} {why}", at.value);
            let help = format!(
                "write an address between {} and {}",
                first(subnet),
                last(subnet)
            );
            faults.error("inventory::address_outside", at.span, message, "", help);
        }
    }
}

/// Why no machine of the subnet can have the address.
pub(super) fn unusable(subnet: ipnet::Ipv4Net, address: Ipv4Addr) -> Option<String> {
    if !subnet.contains(&address) {
        Some(format!("lies outside {subnet}"))
    } else if address == subnet.network() {
        Some(format!("is the network address of {subnet}"))
    } else if address == subnet.broadcast() {
        Some(format!("is the broadcast address of {subnet}"))
    } else {
        None
    }
}

fn first(subnet: ipnet::Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}

fn last(subnet: ipnet::Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.broadcast()).saturating_sub(1))
}

fn check_pool(written: &WrittenNetwork, subnet: ipnet::Ipv4Net, faults: &mut Faults) {
    let Some(pool) = written.pool else { return };
    let AddressRange {
        first: from,
        last: to,
    } = pool.value;
    let why = unusable(subnet, from).map(|why| (from, why));
    if let Some((address, why)) = why.or_else(|| unusable(subnet, to).map(|why| (to, why))) {
        let message = format!(
            "the pool of network {}: {address} {why}",
            written.name.value
        );
        let help = format!("stay between {} and {}", first(subnet), last(subnet));
        faults.error("inventory::pool_outside", pool.span, message, "", help);
    }
    for (whose, at) in taken(written) {
        if pool.value.contains(at.value) {
            let message = format!("{whose} at {} lies inside the pool", at.value);
            let fault = Diagnostic::error("inventory::address_in_pool", message)
                .with_label(faults.primary(at.span, ""))
                .with_label(faults.context(pool.span, "the pool"))
                .with_help("make the pool smaller, so that no machine is given this address");
            faults.push(fault);
        }
    }
}

/// A pool that is missing where it is needed, or there where nobody uses it.
pub(super) fn warn_about_pool(written: &WrittenNetwork, network: &Network, faults: &mut Faults) {
    let name = &written.name.value;
    let (span, message, help) = match (network.dhcp, written.pool) {
        (DhcpMode::Server, None) if network.unknown.policy.holds() => (
            written.name.span,
            format!("network {name} has no pool: machines that are not listed get no address"),
            "add `pool: FIRST-LAST`, or set `unknown: {policy: ignore}`",
        ),
        (DhcpMode::Proxy | DhcpMode::Off, Some(pool)) => (
            pool.span,
            format!("the pool of network {name} is not used: another server gives addresses"),
            "remove `pool`, or set `dhcp: server`",
        ),
        _ => return,
    };
    let warning = Diagnostic::warning("inventory::pool", message)
        .with_label(faults.primary(span, ""))
        .with_help(help);
    faults.push(warning);
}

/// CIDR blocks overlap only if one holds the other; sorted, the outer one comes first.
fn report_overlaps(sorted: &[Placed], faults: &mut Faults) {
    let mut widest: Option<&Placed> = None;
    for placed in sorted {
        if let Some(before) = widest
            && before.network.subnet.broadcast() >= placed.network.subnet.network()
        {
            let message = format!(
                "networks {} and {} overlap",
                before.network.name, placed.network.name
            );
            let fault = Diagnostic::error("inventory::overlapping_subnets", message)
                .with_label(faults.primary(placed.subnet, ""))
                .with_label(faults.context(before.subnet, "this holds it, in part or whole"))
                .with_help("give each network a subnet of its own");
            faults.push(fault);
            if before.network.subnet.broadcast() >= placed.network.subnet.broadcast() {
                continue;
            }
        }
        widest = Some(placed);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_gateway_of_routes_is_given_to_nobody() {
        let inventory = "networks: {boot: {subnet: 10.77.0.0/24, pool: 10.77.0.100-10.77.0.199, routes: {10.88.0.0/16: 10.77.0.150}}}";
        let faults = crate::inventory::parse("hosts.yaml", inventory).unwrap_err();
        let said = faults.to_string();
        assert!(said.contains("10.77.0.150 lies inside the pool"), "{said}");
    }
}

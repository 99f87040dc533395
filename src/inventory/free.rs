//! The next address that nobody has.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::model::{Inventory, Network};

impl Inventory {
    /// The first free address of a network, outside its pool and after its first listed host; `taken` are further
    /// addresses that somebody has.
    pub fn next_free(&self, network: &Network, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let taken = self.taken(taken);
        let (first, last) = (network.subnet.network(), network.subnet.broadcast());
        let hosts = self.hosts.values();
        let here = hosts
            .map(|host| *host.ip)
            .filter(|ip| network.subnet.contains(ip));
        let from = here.min().unwrap_or(first);
        // Network and broadcast address are nobody's.
        let after = free_between(from, last, network, &taken);
        after.or_else(|| free_between(first, from, network, &taken))
    }

    /// Addresses that the file names.
    fn taken(&self, more: &[Ipv4Addr]) -> HashSet<Ipv4Addr> {
        let hosts = self.hosts.values().flat_map(|host| {
            let own = host.addresses.values().map(|address| address.addr());
            own.chain([*host.ip, host.home.address.addr()])
        });
        let networks = self.networks.values().flat_map(|network| {
            let ends = network.router.into_iter().chain(network.server);
            let gateways = network.routes.iter().map(|(_, gateway)| *gateway);
            let servers = network.dns.iter().chain(&network.ntp).copied();
            ends.chain(gateways).chain(servers)
        });
        hosts.chain(networks).chain(more.iter().copied()).collect()
    }
}

/// The first after `low` and before `high`. The pool is passed in one step, however large.
fn free_between(
    low: Ipv4Addr,
    high: Ipv4Addr,
    network: &Network,
    taken: &HashSet<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let mut next = u32::from(low).checked_add(1)?;
    while next < u32::from(high) {
        let address = Ipv4Addr::from(next);
        let pool = network.pool.filter(|pool| pool.contains(address));
        if pool.is_none() && !taken.contains(&address) {
            return Some(address);
        }
        let last = pool.map_or(next, |pool| u32::from(pool.last));
        next = last.checked_add(1)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(subnet: &str, pool: &str, hosts: &[&str]) -> Option<String> {
        let hosts = hosts.iter().enumerate().map(|(n, ip)| {
            format!("  kvm{n}: {{mac: \"52:54:00:00:00:0{n}\", ip: {ip}, profile: kvm}}\n")
        });
        let text = format!(
            "networks: {{boot: {{subnet: {subnet}, pool: {pool}, router: 10.77.0.1, ntp: [10.77.0.14]}}}}\n\
             profiles: {{kvm: {{kernel: debian, initrd: default, root: {{nfs: \"/roots/kvm\"}}}}}}\nhosts:\n{}",
            hosts.collect::<String>()
        );
        let (inventory, _) = crate::inventory::parse("hosts.yaml", &text).unwrap();
        let own = [Ipv4Addr::new(10, 77, 0, 15)];
        let free = inventory.next_free(&inventory.networks["boot"], &own);
        free.map(|address| address.to_string())
    }

    #[test]
    fn a_gap_among_the_hosts_comes_before_what_is_after_them() {
        let pool = "10.77.0.100-10.77.0.199";
        let hosts = ["10.77.0.11", "10.77.0.13"];
        assert_eq!(next("10.77.0.0/24", pool, &hosts).unwrap(), "10.77.0.12");
        // 10.77.0.14 is a clock, 10.77.0.15 the daemon.
        let hosts = ["10.77.0.11", "10.77.0.12", "10.77.0.13"];
        assert_eq!(next("10.77.0.0/24", pool, &hosts).unwrap(), "10.77.0.16");
    }

    #[test]
    fn the_pool_is_passed_over_and_the_front_is_taken_last() {
        let hosts = ["10.77.0.6"];
        let small = |pool| next("10.77.0.0/29", pool, &hosts);
        assert_eq!(small("10.77.0.2-10.77.0.4").unwrap(), "10.77.0.5");
        assert_eq!(small("10.77.0.2-10.77.0.5"), None);
        // 10.77.0.14 and 15 are taken, then there is pool up to the last but one.
        let large = next("10.77.0.0/16", "10.77.0.16-10.77.255.253", &["10.77.0.13"]);
        assert_eq!(large.unwrap(), "10.77.255.254");
    }
}

//! What `hosts.yaml` says of addresses that this machine has itself, or should have.
//!
//! None of it keeps the daemon from serving: an address may come (a standby's, a tunnel's), and what
//! is the server's own is given to nobody whatever the file says.

use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::links::{self, Served};
use crate::inventory::model::{DhcpMode, Host, Inventory, Network};
use crate::site::{Site, own};

/// How often it is looked which addresses there are. One that comes is given to nobody from then on.
const LOOK: Duration = Duration::from_secs(1);

/// Knows of every address that comes, also while a reload hashes files for minutes.
pub(super) async fn follow(site: Arc<Site>, served: Arc<[Served]>, shutdown: CancellationToken) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => {}
        }
        let (site, served) = (site.clone(), served.clone());
        // Asks the kernel for every interface and waits for it.
        let looked = tokio::task::spawn_blocking(move || {
            site.look_at_own();
            links::look(&served, &site);
        });
        let looked = looked.await;
        if let Err(panic) = looked.map_err(tokio::task::JoinError::try_into_panic)
            && let Ok(panic) = panic
        {
            resume_unwind(panic);
        }
    }
}

/// Says what is wrong, at the start and for each edit.
pub(super) fn warn(inventory: &Inventory) {
    for fault in faults(inventory) {
        tracing::warn!("{fault}");
    }
}

/// What is wrong, in words with the next step; nothing where the system does not say what it has.
pub fn faults(inventory: &Inventory) -> Vec<String> {
    own::of_machine().map_or_else(|_| Vec::new(), |own| found(inventory, &own))
}

fn found(inventory: &Inventory, own: &[(String, Ipv4Addr)]) -> Vec<String> {
    let interface = |address: Ipv4Addr| {
        let mut here = own.iter().filter(move |(_, found)| *found == address);
        here.next().map(|(name, _)| name.as_str())
    };
    let networks = inventory.networks.values();
    let of_networks = networks.flat_map(|network| {
        let server = server(network, &interface);
        server.into_iter().chain(pool(network, own))
    });
    let hosts = inventory.hosts.values();
    let of_hosts = hosts.filter_map(|host| of_host(host, &interface));
    of_networks.chain(of_hosts).collect()
}

fn server<'a>(
    network: &Network,
    interface: &impl Fn(Ipv4Addr) -> Option<&'a str>,
) -> Option<String> {
    let server = network.server.filter(|_| network.dhcp != DhcpMode::Off)?;
    interface(server).is_none().then(|| {
        format!(
            "network {}: `server: {server}` is no address of this machine, and its machines are sent there for their boot files: give it to an interface, or correct `server` in hosts.yaml",
            network.name
        )
    })
}

fn pool(network: &Network, own: &[(String, Ipv4Addr)]) -> Vec<String> {
    let inside = own
        .iter()
        .filter(|(_, address)| network.pool.is_some_and(|pool| pool.contains(*address)));
    inside
        .map(|(interface, address)| {
            format!(
                "the pool of network {} holds {address}, this server's own ({interface}): it is given to nobody; make the pool smaller",
                network.name
            )
        })
        .collect()
}

fn of_host<'a>(host: &Host, interface: &impl Fn(Ipv4Addr) -> Option<&'a str>) -> Option<String> {
    let addresses = [*host.ip, host.home.address.addr()];
    let (address, on) = addresses
        .into_iter()
        .find_map(|address| Some((address, interface(address)?)))?;
    Some(format!(
        "host {}: {address} is this server's own address ({on}), and it is given to nobody: give the host another `ip`, or the server another address",
        host.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVENTORY: &str = "
networks:
  boot: {subnet: 10.77.0.0/24, server: 10.77.0.2, pool: 10.77.0.100-10.77.0.199}
  moved: {subnet: 10.66.0.0/24, server: 10.66.0.1}
  quiet: {subnet: 10.44.0.0/24, server: 10.44.0.1, dhcp: \"off\"}
profiles:
  kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm}}
hosts:
  kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm}
  kvm02: {mac: \"52:54:00:00:00:02\", ip: 10.77.0.12, profile: kvm}
";

    fn found_with(addresses: &[&str]) -> Vec<String> {
        let (inventory, _) = crate::inventory::parse("hosts.yaml", INVENTORY).unwrap();
        let own = addresses.iter().enumerate();
        let own: Vec<_> = own
            .map(|(number, address)| (format!("eth{number}"), address.parse().unwrap()))
            .collect();
        found(&inventory, &own)
    }

    /// Nothing else looks: a reload that is stuck keeps nobody.
    #[tokio::test]
    async fn an_address_that_comes_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let site = Arc::new(crate::explain::testing::site(dir.path()));
        assert!(site.own().all.is_empty());
        let shutdown = CancellationToken::new();
        let following = tokio::spawn(follow(site.clone(), Arc::default(), shutdown.clone()));
        let known = async {
            while !site.own().all.contains(&Ipv4Addr::LOCALHOST) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), known)
            .await
            .unwrap();
        shutdown.cancel();
        following.await.unwrap();
    }

    #[test]
    fn what_is_right_is_not_told() {
        let own = ["10.77.0.2", "10.66.0.1", "127.0.0.1"];
        assert_eq!(found_with(&own), Vec::<String>::new());
    }

    #[test]
    fn each_fault_names_its_key_and_the_interface() {
        let told = found_with(&["10.77.0.2", "10.77.0.150", "10.77.0.12"]);
        let [pool, server, host] = &told[..] else {
            panic!("{told:#?}");
        };
        assert!(
            pool.contains("10.77.0.150") && pool.contains("eth1"),
            "{pool}"
        );
        assert!(
            server.contains("network moved: `server: 10.66.0.1`"),
            "{server}"
        );
        assert!(
            host.contains("host kvm02: 10.77.0.12") && host.contains("eth2"),
            "{host}"
        );
    }
}

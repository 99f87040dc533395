//! systemd-networkd's DHCP client: it takes a lease, is told of the network, and renews.
//!
//! It runs without systemd and without D-Bus (it says so, and goes on), in mounts of its own: a `/run` that is empty,
//! no configuration of this machine, and `/sys` read-only, by which it knows that no udev will tell it of links.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::{APPLIANCE, Namespace, Process, Result, Site, io_error, until};
use crate::{fake, ok, site_with};

const PROGRAM: &str = "/lib/systemd/systemd-networkd";

struct Networkd {
    process: Process,
    lease: PathBuf,
}

impl Networkd {
    fn start(client: &Namespace, dir: &Path) -> Result<Self> {
        let network = dir.join("eth0.network");
        let text = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n\
                    [DHCPv4]\nUseDomains=yes\nUseMTU=yes\n";
        fs::write(&network, text).map_err(io_error("write", &network))?;
        let run = dir.join("run");
        fs::create_dir_all(&run).map_err(io_error("create", &run))?;
        let command = format!(
            "mkdir -p {run}/systemd/network {run}/systemd/netif && cp {network} {run}/systemd/network/ && \
             chown -R systemd-network {run}/systemd && mount --bind {run} /run && \
             {{ [ ! -d /etc/systemd/network ] || mount -t tmpfs none /etc/systemd/network; }} && \
             mount -o remount,ro /sys && \
             SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console exec {PROGRAM}",
            run = run.display(),
            network = network.display(),
        );
        let log = dir.join("networkd.log");
        let argv = ["unshare", "--mount", "sh", "-c", &command];
        let process = Process::spawn("systemd-networkd", client.name(), &argv, &log)?;
        let index = client.run(&["cat", "/sys/class/net/eth0/ifindex"])?;
        let lease = run.join("systemd/netif/leases").join(index.trim());
        Ok(Self { process, lease })
    }

    /// A value of the lease, as it keeps it.
    fn told(&self, key: &str) -> Option<String> {
        let text = fs::read_to_string(&self.lease).ok()?;
        let mut values = text.lines().filter_map(|line| line.split_once('='));
        values
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value.to_owned())
    }
}

#[test]
fn networkd_takes_its_lease_is_told_and_renews() {
    if !Path::new(PROGRAM).exists() {
        return eprintln!("{PROGRAM} is not there: skipped");
    }
    let Some(site) = site_with("networkd", &fake::telling()) else {
        return;
    };
    let client = ok(site.lab.client("client", "52:54:00:00:00:02"));
    let mut networkd = ok(Networkd::start(&client, site.lab.dir()));
    ok(networkd.process.wait_for(
        "State changed: configuring -> configured",
        Duration::from_secs(60),
    ));
    let told = |key| {
        networkd
            .told(key)
            .unwrap_or_else(|| panic!("no {key}: {}", networkd.process.log().tail(40)))
    };
    assert_eq!(told("ADDRESS"), "10.77.0.12");
    assert_eq!(told("SERVER_ADDRESS"), APPLIANCE);
    assert_eq!(told("ROUTER"), "10.77.0.1");
    assert_eq!(told("DNS"), "10.77.0.1");
    assert_eq!(told("NTP"), "10.77.0.3 10.77.0.4");
    assert_eq!(told("DOMAINNAME"), "lab.example.org");
    assert_eq!(told("DOMAIN_SEARCH_LIST"), "lab.example.org example.org");
    assert_eq!(told("MTU"), "1400");
    assert_eq!(told("HOSTNAME"), "kvm02");
    assert_eq!(told("LIFETIME"), "10");
    let table = ok(client.ip(&["-4", "route", "show", "dev", "eth0"]));
    for route in [
        "default via 10.77.0.1",
        "10.88.0.0/16 via 10.77.0.254",
        "192.0.2.7 via 10.77.0.253",
    ] {
        assert!(table.contains(route), "{route} is not in:\n{table}");
    }
    ok(renewed(&site, &networkd));
    let addresses = ok(client.ip(&["-4", "addr", "show", "eth0"]));
    assert!(addresses.contains("10.77.0.12/24"), "{addresses}");
}

/// It asks again at half the time, by unicast and without a server's name, and keeps what it has.
fn renewed(site: &Site, networkd: &Networkd) -> Result<()> {
    let probe = || {
        let text = networkd.process.log().text();
        let count = |what: &str| text.matches(what).count();
        let renewals =
            count("DHCPv4 client: REQUEST (renewing)").min(count("DHCPv4 client: ACK") - 1);
        let lost = text.contains("DHCP lease lost") || text.contains("DHCPv4 client: NAK");
        assert!(!lost, "{}", networkd.process.log().tail(40));
        Ok((renewals >= 2).then_some(()))
    };
    let context = || {
        format!(
            "{}{}",
            networkd.process.log().tail(40),
            site.daemon.log().tail(20)
        )
    };
    until("two renewals", Duration::from_secs(60), probe, context)
}

//! T8: the bridge over a VLAN over a bond, booted to an NFS root; then one cable after the other is pulled.

use std::time::Duration;

use super::lab::{Cable, Firmware, GuestAgent, Lab, Nic, Result, ServerSpec, Site, VirtualServer};
use super::{AGENT, check_console, scenario, site_of};

const PORTS: [&str; 2] = ["52:54:00:00:00:01", "52:54:00:00:01:01"];
const ADDRESS: &str = "10.77.0.11";
const ONLINE: Duration = Duration::from_secs(600);
/// What a pulled cable must not change.
const LOOK: &str = "cd /sys/class/net && cat br0/address br0/mtu && ls br0/brif && \
    ip -o -4 addr show | grep -v ' lo ' | tr -s ' ' | cut -d ' ' -f 2-4,7- && ip -4 route show default";

#[test]
#[ignore = "make test-boot"]
fn t08_vlan_over_active_backup_outlives_either_cable() {
    scenario("t08-backup", |lab, logs| {
        let (_site, server) = bonded(lab, &logs, "active-backup")?;
        let mut agent = server.agent(AGENT)?;
        let active = "cat /sys/class/net/bond0/bonding/active_slave";
        let first = agent.ask(active)?;
        loses_either_cable(&server, &mut agent)?;
        // The first cable came back before the second was pulled, and carries alone now.
        assert_eq!(first, "eth0");
        assert_eq!(agent.ask(active)?, "eth0");
        Ok(())
    });
}

#[test]
#[ignore = "make test-boot"]
fn t08_vlan_over_802_3ad_outlives_either_cable() {
    scenario("t08-lacp", |lab, logs| {
        let (_site, server) = bonded(lab, &logs, "802.3ad, lacp_rate: fast, hash: layer3+4")?;
        let mut agent = server.agent(AGENT)?;
        let lacp = "cd /sys/class/net/bond0/bonding && cat ad_partner_mac ad_num_ports";
        wait_for(&mut agent, lacp, "02:00:00:00:5a:01\n2")?;
        loses_either_cable(&server, &mut agent)
    });
}

/// kvm01 with two NICs on tagged ports, in its root.
fn bonded(lab: Lab, logs: &std::path::Path, mode: &str) -> Result<(Site, VirtualServer)> {
    let bridge = format!(
        "bridge: {{name: br0, mtu: 1500, vlan: 100, bond: {{ports: [boot, second], mode: {mode}}}}}"
    );
    let host = format!("profile: kvm-host, nics: {{second: \"{}\"}}", PORTS[1]);
    let inventory = super::INVENTORY
        .replace("bridge: {name: br0, mtu: 1500}", &bridge)
        .replacen("profile: kvm-host", &host, 1)
        .replace(
            "image_pool: {moosefs: \"10.77.0.5\", mount: /var/lib/libvirt/images}",
            "image_pool: none",
        );
    // kvm01 alone: the other hosts have no second NIC.
    let others = inventory.find("  kvm02:").zip(inventory.find("unknown:"));
    let inventory = others.map_or(inventory.clone(), |(from, to)| {
        inventory[..from].to_owned() + &inventory[to..]
    });
    let mut site = site_of(lab, logs, &inventory)?;
    let tagged = Cable::Tagged { vlan: 100 };
    // A card of unknown speed and duplex takes no part in LACP (bonding, ad_update_actor_keys).
    let model = "virtio-net-pci,speed=10000,duplex=full";
    let spec = ServerSpec::new("kvm01", PORTS[0], Firmware::Bios)
        .boot_nic(Nic::new(PORTS[0]).model(model).cable(tagged))
        .nic(Nic::new(PORTS[1]).model(model).cable(tagged));
    let ports = [spec.port(0), spec.port(1)];
    let mut server = site.boot_directly(spec, ADDRESS, "")?;
    for port in &ports {
        // Both are one port to the server: what it sends by one must not come back by the other.
        site.lab
            .switch()
            .run(&["bridge", "link", "set", "dev", port, "isolated", "on"])?;
    }
    site.wait_stage(&mut server, "online", ONLINE)?;
    check_console(&server);
    let over = server.serial().find("br0 over bond0.100");
    assert!(over.is_some(), "{}", server.serial().tail(40));
    Ok((site, server))
}

/// Pulls the first cable, puts it back, and pulls the second: the root answers and the bridge is the same.
fn loses_either_cable(server: &VirtualServer, agent: &mut GuestAgent) -> Result<()> {
    let before = agent.ask(LOOK)?;
    for words in [
        PORTS[0],
        "bond0.100",
        "10.77.0.11/24",
        "via 10.77.0.1 dev br0",
    ] {
        assert!(before.contains(words), "{before}");
    }
    for (index, nic) in ["eth0", "eth1"].into_iter().enumerate() {
        let status = format!("cat /sys/class/net/{nic}/bonding_slave/mii_status");
        server.set_nic_link(index, false)?;
        wait_for(agent, &status, "down")?;
        // From the server, past the cache.
        agent.ask("echo 3 > /proc/sys/vm/drop_caches && cat /usr/bin/[b-d]* > /dev/null")?;
        assert_eq!(agent.ask(LOOK)?, before, "without {nic}");
        if index == 0 {
            server.set_nic_link(index, true)?;
            wait_for(agent, &status, "up")?;
        }
    }
    Ok(())
}

/// Waits in the root until `command` prints `wanted`.
fn wait_for(agent: &mut GuestAgent, command: &str, wanted: &str) -> Result<()> {
    let wait = format!(
        "for i in $(seq 200); do [ \"$({command})\" = '{wanted}' ] && break; sleep 0.2; done; {command}"
    );
    assert_eq!(agent.ask(&wait)?, wanted, "{command}");
    Ok(())
}

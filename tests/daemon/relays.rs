//! Several networks: two on one link, one behind a real relay.

use std::time::Duration;

use crate::clients::{Program, lease};
use crate::lab::{APPLIANCE, Namespace, Process, Site};
use crate::{ok, site_with};

const INVENTORY: &str = r#"
site: relays
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    pool: 10.77.0.100-10.77.0.199
  second:
    subnet: 10.99.0.0/24
    pool: 10.99.0.100-10.99.0.199
  far:
    subnet: 10.88.0.0/24
    router: 10.88.0.254
    pool: 10.88.0.100-10.88.0.199
    lease_time: 10s
profiles:
  kvm-host: {kernel: debian, initrd: default, root: {nfs: "/roots/kvm-host"}}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm-host}
  kvm02: {mac: "52:54:00:00:00:02", ip: 10.99.0.12, profile: kvm-host}
  kvm03: {mac: "52:54:00:00:00:03", ip: 10.88.0.13, profile: kvm-host}
unknown: {policy: hold}
"#;

/// A router with a leg on the switch and one to a client of its own; `dhcrelay` runs on it.
pub(crate) struct Far {
    _relay: Process,
    _router: Namespace,
    pub(crate) client: Namespace,
}

/// The relay tells the port by the name of its interface: `eth1`.
pub(crate) fn far(site: &Site, name: &str, mac: &str) -> Far {
    let router = ok(site.lab.client("router", "52:54:00:00:00:fe"));
    let client = ok(Namespace::new(name, "far"));
    let link = format!(
        "link add eth1 type veth peer name eth0 address {mac} netns {}",
        client.name()
    );
    ok(router.ip(&link.split(' ').collect::<Vec<_>>()));
    for command in [
        "addr add 10.77.0.254/24 dev eth0",
        "addr add 10.88.0.254/24 dev eth1",
        "link set eth1 up",
    ] {
        ok(router.ip(&command.split(' ').collect::<Vec<_>>()));
    }
    ok(router.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]));
    ok(client.ip(&["link", "set", "eth0", "up"]));
    let route = ["route", "add", "10.88.0.0/24", "via", "10.77.0.254"];
    ok(site.lab.appliance().ip(&route));
    let relay = [
        "dhcrelay", "-4", "-d", "--no-pid", "-a", "-i", "eth0", "-i", "eth1", APPLIANCE,
    ];
    let log = site.logs.join("dhcrelay.log");
    let mut relay = ok(Process::spawn("dhcrelay", router.name(), &relay, &log));
    ok(relay.wait_for("Sending on   Socket/fallback", Duration::from_secs(10)));
    Far {
        _relay: relay,
        _router: router,
        client,
    }
}

#[test]
fn a_relays_clients_get_and_renew_addresses_of_their_own_network() {
    let Some(site) = site_with("relays", INVENTORY) else {
        return;
    };
    let far = far(&site, "relays", "52:54:00:00:00:03");
    for program in [Program::Udhcpc, Program::Dhclient] {
        let given = ok(lease(program, &far.client, site.lab.dir(), None));
        assert_eq!(given.address.to_string(), "10.88.0.13", "{program:?}");
        assert_eq!(given.server.to_string(), APPLIANCE, "{program:?}");
    }
    // Half of 10 s later it renews.
    let mut client = stays(&site, &far);
    ok(client.wait_for("renew 10.88.0.13", Duration::from_secs(60)));
}

/// A client that goes on, and renews by unicast through the router.
pub(crate) fn stays(site: &Site, far: &Far) -> Process {
    let script = site.lab.dir().join("apply.sh");
    let text = "#!/bin/sh\ncase $1 in bound|renew)\n\
        ip addr replace $ip/24 dev eth0; ip route replace default via $router; echo $1 $ip;;\nesac\n";
    ok(std::fs::write(&script, text).map_err(crate::lab::io_error("write", &script)));
    ok(crate::lab::run(&[
        "chmod",
        "+x",
        &script.display().to_string(),
    ]));
    let argv = [
        "udhcpc",
        "-f",
        "-i",
        "eth0",
        "-s",
        &script.display().to_string(),
    ];
    let log = site.logs.join("udhcpc.log");
    ok(Process::spawn("udhcpc", far.client.name(), &argv, &log))
}

#[test]
fn two_networks_on_one_link() {
    let Some(mut site) = site_with("two", INVENTORY) else {
        return;
    };
    ok(site
        .lab
        .appliance()
        .ip(&["addr", "add", "10.99.0.1/24", "dev", "boot0"]));
    ok(site.daemon.signal(nix::sys::signal::Signal::SIGTERM));
    ok(site.daemon.wait_exit(Duration::from_secs(20)));
    ok(site.restart());
    for (mac, address, server) in [
        ("52:54:00:00:00:01", "10.77.0.11", APPLIANCE),
        ("52:54:00:00:00:02", "10.99.0.12", "10.99.0.1"),
    ] {
        let client = ok(site.lab.client(&format!("c{}", &mac[15..]), mac));
        let given = ok(lease(Program::Udhcpc, &client, site.lab.dir(), None));
        assert_eq!(given.address.to_string(), address);
        assert_eq!(given.server.to_string(), server);
        // The daemon serves its boot files on either address.
        ok(client.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]));
        let url = format!("http://{server}/healthz");
        assert_eq!(ok(client.run(&["curl", "-sS", "-m", "10", &url])), "ok\n");
    }
}

/// Some builds of iPXE stop where it is missing.
#[test]
fn autoexec_leads_to_the_machines_own_script() {
    let Some(site) = site_with("autoexec", INVENTORY) else {
        return;
    };
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    ok(client.ip(&["addr", "add", "10.77.0.11/24", "dev", "eth0"]));
    for url in [
        "tftp://10.77.0.1/autoexec.ipxe",
        "http://10.77.0.1/autoexec.ipxe",
        "http://10.77.0.1/files/loaders/autoexec.ipxe",
    ] {
        let script = ok(client.run(&["curl", "-sS", "-m", "10", url]));
        assert!(script.starts_with("#!ipxe\n"), "{url}: {script}");
        let chain = "chain --replace http://10.77.0.1/boot/${netX/mac}/script.ipxe";
        assert!(script.contains(chain), "{url}: {script}");
    }
}

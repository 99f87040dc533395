//! T7, T13, T14: the root takes over, with every network manager in it, and the bridge stays; shutdowns end.
//!
//! The root image is `lab-managers` (`make root ROOT=lab-managers`).

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::lab::{
    Firmware, GuestAgent, Lab, Process, Result, ServerSpec, Site, VirtualServer, require,
};
use super::{AGENT, data_dir, scenario, site_of};

const MAC: &str = "52:54:00:00:00:01";
const ADDRESS: &str = "10.77.0.11";
/// From power-on to a root whose network managers have all had their say.
const UP: Duration = Duration::from_secs(420);
/// What a shutdown may take.
const END: Duration = Duration::from_secs(60);
/// Between the order to shut down and the moment that it is carried out.
const NOTICE_S: u64 = 8;

/// Bridge, port, MAC, MTU, address and route as the root has them now.
const LOOK: &str = "cd /sys/class/net && readlink eth0/master && cat br0/address br0/mtu eth0/brport/state && \
    ip -o -4 addr show | grep -v ' lo ' | tr -s ' ' | cut -d ' ' -f 2-4,7- && ip -4 route show default";

fn inventory() -> String {
    let base = super::INVENTORY.replace("/roots/kvm-host\"", "/roots/lab-managers\"");
    base.replace(
        "image_pool: {moosefs: \"10.77.0.5\", mount: /var/lib/libvirt/images}",
        "image_pool: none",
    )
}

/// The daemon, and kvm01 with every network manager in its root, all started.
fn managed_host(lab: Lab, logs: &std::path::Path, more: &str) -> Result<(Site, VirtualServer)> {
    require(
        &data_dir(),
        &[("roots/lab-managers", "root ROOT=lab-managers")],
    )?;
    let mut site = site_of(lab, logs, &inventory())?;
    let spec = ServerSpec::new("kvm01", MAC, Firmware::Bios).qemu_args(&["-no-reboot"]);
    let mut server = site.boot_directly(spec, ADDRESS, more)?;
    site.wait_stage(&mut server, "joined", UP)?;
    let mut agent = server.agent(AGENT)?;
    agent.ask("for i in $(seq 100); do systemctl is-system-running | grep -qE 'running|degraded' && break; sleep 1; done")?;
    Ok((site, server))
}

/// Runs what should not touch the bridge, and compares.
fn survives(agent: &mut GuestAgent, wanted: &str, action: &str) -> Result<()> {
    let done = agent.sh(&format!("timeout 100 sh -c '{action}' && sleep 3"))?;
    assert_eq!(done.code, 0, "{action}: {} {}", done.stdout, done.stderr);
    let found = agent.ask(LOOK)?;
    assert_eq!(found, wanted, "after {action}");
    // From the server, past the cache: the root answers.
    agent.ask("echo 3 > /proc/sys/vm/drop_caches && cat /usr/bin/dpkg* > /dev/null")?;
    Ok(())
}

#[test]
#[ignore = "make test-boot"]
fn t13_network_managers_leave_the_bridge_alone() {
    scenario("t13", |lab, logs| {
        let (_site, server) = managed_host(lab, &logs, "")?;
        let mut agent = server.agent(AGENT)?;
        let wanted = agent.ask(LOOK)?;
        for words in [
            "master\n",
            "br0",
            "10.77.0.11/24",
            "forever",
            "default via 10.77.0.1 dev br0",
        ] {
            assert!(wanted.contains(words) || words == "master\n", "{wanted}");
        }
        assert_eq!(wanted.matches("10.77.0.").count(), 3, "{wanted}");
        for service in [
            "systemd-networkd",
            "NetworkManager",
            "networking",
            "bridgehead-online",
        ] {
            let state = agent.ask(&format!("systemctl is-active {service} || :"))?;
            assert_eq!(state, "active", "{service}");
        }
        assert_eq!(
            agent.ask("systemctl is-active network-online.target")?,
            "active"
        );
        // netplan's files are there, and ours come first.
        let files = agent.ask("cd /run/systemd/network && ls")?;
        let at = |name: &str| files.lines().position(|line| line.starts_with(name));
        assert!(at("10-netplan-") > at("00-bridgehead-boot"), "{files}");
        for device in ["br0", "eth0"] {
            let file = agent.ask(&format!("networkctl status {device}"))?;
            assert!(file.contains("00-bridgehead-boot"), "{file}");
            assert!(file.contains("unmanaged"), "{file}");
        }
        let managed = agent.ask("nmcli -t -f DEVICE,STATE device")?;
        for device in ["br0:unmanaged", "eth0:unmanaged"] {
            assert!(managed.contains(device), "{managed}");
        }
        for action in [
            "systemctl restart systemd-networkd",
            "networkctl reload && networkctl reconfigure br0 eth0 || :",
            "systemctl restart NetworkManager",
            "systemctl restart networking",
            "ifdown eth0; ifup eth0; ifdown --force br0; ifup br0; ifdown -a --exclude=lo",
            "udevadm trigger --settle && udevadm trigger --action=add --subsystem-match=net --settle",
            "netplan generate && netplan apply",
            "systemctl daemon-reexec",
        ] {
            survives(&mut agent, &wanted, action)?;
        }
        Ok(())
    });
}

/// Orders `how` for a moment from now, stops the daemon, which serves the root, if it is to be gone, and waits for
/// the machine to end.
fn ends(lab: Lab, logs: &std::path::Path, how: Shutdown, gone: bool) -> Result<()> {
    let (site, mut server) = managed_host(lab, logs, "")?;
    let said = server.serial().text().len();
    server.agent(AGENT)?.ask(&how.in_a_moment())?;
    if gone {
        site.daemon.signal(Signal::SIGSTOP)?;
    }
    let end = NOTICE_S + END.as_secs();
    let ended = ends_within(&mut server, Duration::from_secs(end));
    site.daemon.signal(Signal::SIGCONT)?;
    let text = server.serial().text();
    let words = text.get(said..).unwrap_or_default();
    let took = ended.unwrap_or_else(|| panic!("not done after {end} s\n{words}"));
    eprintln!(
        "{how:?}, server gone: {gone}: {:.1} s",
        took.as_secs_f64() - f64::from(u32::try_from(NOTICE_S).unwrap_or(0))
    );
    // `br0: port 1(eth0) entered disabled state`, `virtio_net virtio0 eth0: …`
    for bad in [
        "entered disabled state",
        "left promiscuous mode",
        "Link is Down",
    ] {
        assert!(!words.contains(bad), "{words}");
    }
    let by_guard = words.contains("has not answered for");
    assert_eq!(by_guard, gone, "the guard acts when it must\n{words}");
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Shutdown {
    Reboot,
    PowerOff,
}

impl Shutdown {
    /// From BusyBox in /run, so that nothing is read from a root that may be gone by then: SIGRTMIN+5 and +4 to
    /// PID 1 (systemd(1), SIGNALS).
    fn in_a_moment(self) -> String {
        let signal = match self {
            Self::Reboot => 39,
            Self::PowerOff => 38,
        };
        format!(
            "/run/bridgehead/busybox setsid /run/bridgehead/busybox sh -c 'sleep {NOTICE_S}; kill -{signal} 1' \
             >/dev/null 2>&1 </dev/null &"
        )
    }
}

/// How long QEMU ran on; `-no-reboot` makes a reset its end too.
fn ends_within(server: &mut VirtualServer, limit: Duration) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if server.check_alive().is_err() {
            return Some(start.elapsed());
        }
        thread::sleep(Duration::from_millis(200));
    }
    None
}

#[test]
#[ignore = "make test-boot"]
fn t14_reboot_ends() {
    scenario("t14-reboot", |lab, logs| {
        ends(lab, &logs, Shutdown::Reboot, false)
    });
}

#[test]
#[ignore = "make test-boot"]
fn t14_poweroff_ends() {
    scenario("t14-poweroff", |lab, logs| {
        ends(lab, &logs, Shutdown::PowerOff, false)
    });
}

#[test]
#[ignore = "make test-boot"]
fn t14_reboot_ends_with_the_root_server_gone() {
    scenario("t14-reboot-gone", |lab, logs| {
        ends(lab, &logs, Shutdown::Reboot, true)
    });
}

#[test]
#[ignore = "make test-boot"]
fn t14_poweroff_ends_with_the_root_server_gone() {
    scenario("t14-poweroff-gone", |lab, logs| {
        ends(lab, &logs, Shutdown::PowerOff, true)
    });
}

/// A DHCP server with leases of a minute, which goes away once the host is up.
fn short_leases(lab: &Lab, logs: &std::path::Path) -> Result<(super::lab::Namespace, Process)> {
    let dhcp = lab.client("dhcp", "52:54:00:00:00:44")?;
    dhcp.ip(&["addr", "add", "10.77.0.4/24", "dev", "eth0"])?;
    let file = |name: &str| lab.dir().join(name).display().to_string();
    let configuration = format!(
        "start {ADDRESS}\nend {ADDRESS}\ninterface eth0\nmax_leases 1\nlease_file {}\npidfile {}\noption subnet 255.255.255.0\n\
         option router 10.77.0.1\noption dns 10.77.0.1\noption lease 60\n",
        file("leases"),
        file("udhcpd.pid")
    );
    let path = lab.dir().join("udhcpd.conf");
    std::fs::write(&path, configuration).map_err(super::lab::io_error("write", &path))?;
    std::fs::write(lab.dir().join("leases"), "")
        .map_err(super::lab::io_error("write", lab.dir()))?;
    let argv = [
        "busybox",
        "udhcpd",
        "-f",
        "-I",
        "10.77.0.4",
        &file("udhcpd.conf"),
    ];
    let process = Process::spawn("udhcpd", dhcp.name(), &argv, &logs.join("udhcpd.log"))?;
    Ok((dhcp, process))
}

#[test]
#[ignore = "make test-boot"]
fn t07_the_address_outlives_its_lease() {
    scenario("t07", |lab, logs| {
        let (_namespace, leases) = short_leases(&lab, &logs)?;
        let (_site, server) = managed_host(lab, &logs, "bridgehead.ip=dhcp")?;
        let mut agent = server.agent(AGENT)?;
        let wanted = agent.ask(LOOK)?;
        assert!(wanted.contains("10.77.0.11/24"), "{wanted}");
        let kept = "lease of 10.77.0.11 for 60 s is kept up";
        agent.ask(&format!("for i in $(seq 60); do grep -q '{kept}' /run/bridgehead/lease/told && break; sleep 1; done; \
                            grep '{kept}' /run/bridgehead/lease/told"))?;
        let renewals = leases.log().text().matches("ACK").count();
        thread::sleep(Duration::from_secs(70));
        let renewed = leases.log().text().matches("ACK").count();
        assert!(renewed > renewals, "{}", leases.log().tail(20));
        drop(leases);
        thread::sleep(Duration::from_secs(230));
        assert_eq!(agent.ask(LOOK)?, wanted);
        agent.ask("echo 3 > /proc/sys/vm/drop_caches && cat /usr/bin/dpkg* > /dev/null")?;
        Ok(())
    });
}

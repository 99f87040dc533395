//! T7, T13, T14: the root takes over, with every network manager in it, and the bridge stays; shutdowns end.
//!
//! The root image is `lab-managers` (`make root ROOT=lab-managers`).

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::lab::{
    APPLIANCE, BootOrder, Firmware, GuestAgent, Lab, Result, ServerSpec, Site, VirtualServer,
    require, until,
};
use super::{AGENT, data_dir, scenario, site_of};

const MAC: &str = "52:54:00:00:00:01";
const ADDRESS: &str = "10.77.0.11";
/// From power-on to a root whose network managers have all had their say.
const UP: Duration = Duration::from_secs(420);
const FIVE_MINUTES: Duration = Duration::from_secs(300);
/// What a shutdown may take: the guard's 40 s of silence, and as much again and more for an emulation that is slow; one
/// that hangs ends after 15 minutes.
const END: Duration = Duration::from_secs(120);
/// Between the order to shut down and the moment that it is carried out: to stop the server of the root in.
const NOTICE_S: u64 = 8;

/// Bridge, port, MAC, MTU, address and route as the root has them now.
const LOOK: &str = "cd /sys/class/net && readlink eth0/master && cat br0/address br0/mtu eth0/brport/state && \
    ip -o -4 addr show | grep -v ' lo ' | tr -s ' ' | cut -d ' ' -f 2-4,7- && ip -4 route show default";

fn inventory() -> String {
    let base = super::INVENTORY.replace("/roots/kvm-host\"", "/roots/lab-managers\"");
    let base = base.replace("dhcp: server", "dhcp: server\n    lease_time: 1m");
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
    let done = agent.sh(&format!("timeout 150 sh -c '{action}' && sleep 3"))?;
    assert_eq!(done.code, 0, "{action}: {} {}", done.stdout, done.stderr);
    let found = agent.ask(LOOK)?;
    assert_eq!(found, wanted, "after {action}");
    // From the server, past the cache: the root answers.
    agent.ask("echo 3 > /proc/sys/vm/drop_caches && cat /usr/bin/dpkg* > /dev/null")?;
    Ok(())
}

/// Every manager runs, has read what the operator wrote, and leaves bridge and NIC alone.
fn check_managers(agent: &mut GuestAgent) -> Result<()> {
    for service in ["systemd-networkd", "NetworkManager", "networking"] {
        let state = agent.ask(&format!("systemctl is-active {service} || :"))?;
        assert_eq!(state, "active", "{service}");
    }
    for device in ["br0", "eth0"] {
        let file = agent.ask(&format!("networkctl status {device}"))?;
        assert!(file.contains("00-bridgehead-boot"), "{file}");
        assert!(file.contains("unmanaged"), "{file}");
    }
    let managed = agent.ask("nmcli -t -f DEVICE,STATE device")?;
    for device in ["br0:unmanaged", "eth0:unmanaged"] {
        assert!(managed.contains(device), "{managed}");
    }
    Ok(())
}

/// `network-online.target` waited for our unit, and for no manager's.
fn check_online(agent: &mut GuestAgent) -> Result<()> {
    let chain = agent.ask("systemd-analyze --no-pager critical-chain network-online.target")?;
    eprintln!("{chain}");
    let ours = "systemctl show -P ActiveEnterTimestampMonotonic";
    let reached = agent.ask(&format!(
        "{ours} bridgehead-online.service && {ours} network-online.target"
    ))?;
    let times: Vec<u64> = reached.lines().flat_map(str::parse).collect();
    assert!(
        times.len() == 2 && 0 < times[0] && times[0] <= times[1],
        "{reached}"
    );
    let waits = agent.ask("systemctl show -P After network-online.target")?;
    assert!(waits.contains("bridgehead-online.service"), "{waits}");
    let masked = agent.ask("systemctl show -P LoadState systemd-networkd-wait-online.service NetworkManager-wait-online.service")?;
    assert_eq!(masked.matches("masked").count(), 2, "{masked}");
    Ok(())
}

/// What an operator's tools may do on any day.
const ACTIONS: [&str; 10] = [
    "systemctl restart systemd-networkd",
    "networkctl reload && networkctl reconfigure br0 eth0 || :",
    "systemctl restart NetworkManager",
    "systemctl restart networking",
    "ifdown eth0; ifup eth0; ifdown --force br0; ifup br0; ifdown -a --exclude=lo",
    "udevadm trigger --settle && udevadm trigger --action=add --subsystem-match=net --settle",
    "netplan generate && netplan apply",
    "systemctl daemon-reexec",
    // netplan has NetworkManager manage every Ethernet card.
    "echo \"network: {ethernets: {all: {renderer: NetworkManager, match: {}}}}\" >/etc/netplan/60-all.yaml && \
     netplan apply && systemctl restart NetworkManager && udevadm trigger --action=add --subsystem-match=net --settle",
    // ... and br0 by its name: netplan would flush it.
    "echo \"network: {renderer: NetworkManager}\" >/etc/netplan/70-all.yaml && \
     { netplan apply 2>&1 || :; } | grep \"gives br0 to NetworkManager\" && rm /etc/netplan/70-all.yaml",
];

#[test]
#[ignore = "make test-boot"]
fn t13_t07_managers_leave_the_bridge_alone_and_its_address_outlives_the_lease() {
    scenario("t13", |lab, logs| {
        let (_site, server) = managed_host(lab, &logs, "bridgehead.ip=dhcp")?;
        let mut agent = server.agent(AGENT)?;
        let wanted = agent.ask(LOOK)?;
        for words in ["br0", "10.77.0.11/24", "forever", "via 10.77.0.1 dev br0"] {
            assert!(wanted.contains(words), "{wanted}");
        }
        assert_eq!(wanted.matches("10.77.0.").count(), 2, "{wanted}");
        check_online(&mut agent)?;
        sees_renewal(&mut agent)?;
        agent.ask("systemctl stop bridgehead-lease")?;
        let gone = Instant::now();
        let files = agent.ask("ls /run/systemd/network")?;
        assert!(files.contains("10-netplan-"), "{files}");
        check_managers(&mut agent)?;
        for action in ACTIONS {
            survives(&mut agent, &wanted, action)?;
        }
        check_managers(&mut agent)?;
        thread::sleep(FIVE_MINUTES.saturating_sub(gone.elapsed()));
        survives(&mut agent, &wanted, ":")
    });
}

/// How a machine is told to end.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// By a signal to PID 1, which reads nothing from the root: systemd(1), SIGNALS, SIGRTMIN being 34.
    Signal(u8),
    /// By the keyboard.
    CtrlAltDelete,
}

const REBOOT: Order = Order::Signal(34 + 5);
const POWER_OFF: Order = Order::Signal(34 + 4);
/// As `systemctl --force reboot`: no unit is stopped.
const REBOOT_AT_ONCE: Order = Order::Signal(34 + 15);

impl Order {
    /// Gives the order once the server of the root, which is the daemon, has gone or was asked to stay.
    fn give(self, server: &VirtualServer, site: &Site, gone: bool) -> Result<()> {
        if let Self::Signal(number) = self {
            server.agent(AGENT)?.ask(&format!(
                "/run/bridgehead/busybox setsid /run/bridgehead/busybox sh -c 'sleep {NOTICE_S}; kill -{number} 1' \
                 >/dev/null 2>&1 </dev/null &"
            ))?;
        }
        if gone {
            site.daemon.signal(Signal::SIGSTOP)?;
        }
        match self {
            Self::Signal(_) => thread::sleep(Duration::from_secs(NOTICE_S)),
            Self::CtrlAltDelete => server.press("ctrl alt delete")?,
        }
        Ok(())
    }
}

/// Orders the machine to end, with the root's server there or gone, and sees it end in time, the bridge up to the last.
fn sees_end(site: &Site, server: &mut VirtualServer, order: Order, gone: bool) -> Result<()> {
    let said = server.serial().text().len();
    order.give(server, site, gone)?;
    let took = ends_within(server, END);
    site.daemon.signal(Signal::SIGCONT)?;
    let text = server.serial().text();
    let (before, words) = text.split_at(said);
    let took = took.unwrap_or_else(|| panic!("not done after {END:?}\n{words}"));
    eprintln!(
        "{order:?}, server gone: {gone}: {:.1} s",
        took.as_secs_f64()
    );
    check_bridge_stays(before, words);
    let by_guard = words.contains("has not answered for");
    assert_eq!(by_guard, gone, "the guard acts when it must\n{words}");
    Ok(())
}

/// No `br0: port 1(eth0) entered disabled state`, no `e1000e 0000:00:02.0 eth0: NIC Link is Down` in `words`. In what the
/// console said before them is the same message of the other state: what the kernel says at that level does come here.
fn check_bridge_stays(before: &str, words: &str) {
    assert!(before.contains("entered forwarding state"), "{before}");
    for bad in [
        "entered disabled state",
        "left promiscuous mode",
        "Link is Down",
    ] {
        assert!(!words.contains(bad), "{words}");
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

/// A host of its own that ends by `order`.
fn ends(name: &str, order: Order, gone: bool) {
    scenario(name, |lab, logs| {
        let (site, mut server) = managed_host(lab, &logs, "")?;
        sees_end(&site, &mut server, order, gone)
    });
}

#[test]
#[ignore = "make test-boot"]
fn t14_reboot_ends() {
    ends("t14-reboot", REBOOT, false);
}

#[test]
#[ignore = "make test-boot"]
fn t14_poweroff_ends() {
    ends("t14-poweroff", POWER_OFF, false);
}

#[test]
#[ignore = "make test-boot"]
fn t14_reboot_ends_with_the_root_server_gone() {
    ends("t14-reboot-gone", REBOOT, true);
}

#[test]
#[ignore = "make test-boot"]
fn t14_poweroff_ends_with_the_root_server_gone() {
    ends("t14-poweroff-gone", POWER_OFF, true);
}

#[test]
#[ignore = "make test-boot"]
fn t14_reboot_at_once_ends_with_the_root_server_gone() {
    ends("t14-at-once-gone", REBOOT_AT_ONCE, true);
}

/// Has the host ask what it is to boot, as iPXE would (by DHCP, which begins a boot attempt, then for its script), and
/// load that for a kexec.
fn load_for_kexec(agent: &mut GuestAgent) -> Result<()> {
    agent.ask("/run/bridgehead/busybox udhcpc -nq -i br0 -x 0x4d:69505845 -s /bin/true")?;
    let wget = "/run/bridgehead/busybox wget -q -O";
    let files = format!("http://{APPLIANCE}/files");
    let script = agent.ask(&format!(
        "{wget} - http://{APPLIANCE}/boot/{MAC}/script.ipxe"
    ))?;
    let order = BootOrder::read(&script).unwrap_or_else(|| panic!("{script}"));
    agent.ask(&format!(
        "cd /run && {wget} kernel {files}/{} && {wget} initrd {files}/{}",
        order.kernel, order.initrd
    ))?;
    agent.ask(&format!(
        "cd /run && kexec --load kernel --initrd=initrd --command-line='{}' && rm kernel initrd",
        order.cmdline
    ))?;
    Ok(())
}

#[test]
#[ignore = "make test-boot"]
fn t14_kexec_comes_back_to_the_bridge_and_ctrl_alt_delete_ends_it() {
    scenario("t14-kexec", |lab, logs| {
        let (mut site, mut server) = managed_host(lab, &logs, "")?;
        let mut agent = server.agent(AGENT)?;
        let wanted = agent.ask(LOOK)?;
        load_for_kexec(&mut agent)?;
        let said = server.serial().text().len();
        let ordered = Instant::now();
        agent.ask("systemctl --no-block kexec")?;
        // Its channel takes one client at a time.
        drop(agent);
        let serial = server.serial().clone();
        let probe = || {
            let text = serial.text();
            let words = text.get(said..).unwrap_or_default();
            Ok(words.find("Linux version").map(|at| said + at))
        };
        let begun = until("the kernel of the kexec", END, probe, || serial.tail(30))?;
        eprintln!("kexec: {:.1} s", ordered.elapsed().as_secs_f64());
        let text = server.serial().text();
        check_bridge_stays(&text[..said], &text[said..begun]);
        site.wait_stage(&mut server, "online", UP)?;
        assert_eq!(server.agent(AGENT)?.ask(LOOK)?, wanted);
        sees_end(&site, &mut server, Order::CtrlAltDelete, true)
    });
}

/// The lease of a minute is taken over from the initrd and renewed, and the host tells so.
fn sees_renewal(agent: &mut GuestAgent) -> Result<()> {
    let twice = "journalctl -o cat -u bridgehead-lease | grep -c 'lease of 10.77.0.11 obtained' | grep -qE '[2-9]'";
    agent.ask(&format!(
        "for i in $(seq 90); do {twice} && exit; sleep 1; done; exit 1"
    ))?;
    agent.ask("grep 'lease of 10.77.0.11 for 60 s is kept up' /run/bridgehead/lease/told")?;
    Ok(())
}

//! A fleet that does not boot, and what its operator reads then.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{BOOT_INTERFACE, Lab, Namespace, Process, Site, output, until};
use crate::{fake, ok, site};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn said(site: &Site, verb: &str, args: &[&str]) -> String {
    let done = ok(site.daemon.verb(verb, args));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// What the control socket answers, where no interface does.
pub(crate) fn get(site: &Site, path: &str) -> String {
    let socket = site.lab.dir().join("state/bridgehead.sock");
    let socket = socket.display().to_string();
    let url = format!("http://localhost{path}");
    let done = ok(output(&["curl", "-s", "--unix-socket", &socket, &url]));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn link(site: &Site, args: &str) {
    let args: Vec<_> = ["link"].into_iter().chain(args.split(' ')).collect();
    ok(site.lab.appliance().ip(&args));
}

#[test]
fn an_interface_that_fails_is_said_wherever_an_operator_looks() {
    let Some(mut site) = site("lost") else { return };
    assert_eq!(get(&site, "/readyz"), "ready\n");
    link(&site, &format!("set {BOOT_INTERFACE} down"));
    let down = format!(
        "interface {BOOT_INTERFACE} is down, and nobody is served on it: `ip link set {BOOT_INTERFACE} up`"
    );
    ok(site.daemon.wait_for(&down, PATIENCE));
    let status = said(&site, "status", &[]);
    assert!(status.starts_with(&format!("{down}\n")), "{status}");
    assert_eq!(get(&site, "/readyz"), format!("interface: {down}\n"));
    let metrics = get(&site, "/metrics");
    assert!(
        metrics.contains("bridgehead_troubles{part=\"interface\"} 1"),
        "{metrics}"
    );
    let page = get(&site, "/");
    assert!(
        page.contains("boot0 is down, and nobody is served"),
        "{page}"
    );
    let why = said(&site, "why", &["kvm01"]);
    assert!(why.contains(&format!("  1. {down}")), "{why}");

    link(&site, &format!("set {BOOT_INTERFACE} up"));
    ok(site.daemon.wait_for("boot0 is served again", PATIENCE));
    assert_eq!(get(&site, "/readyz"), "ready\n");
    assert!(said(&site, "status", &[]).starts_with("HOST "));
    link(&site, &format!("del {BOOT_INTERFACE}"));
    ok(site.daemon.wait_for("boot0 is gone, and nobody", PATIENCE));
    let status = said(&site, "status", &[]);
    assert!(status.contains("then restart the daemon"), "{status}");
}

/// As a cable to a server that is off, and libvirt's bridge before its first guest.
#[test]
fn an_interface_that_never_had_a_carrier_is_no_trouble_of_the_others() {
    let Some(lab) = Lab::for_test("spare") else {
        return;
    };
    for args in [
        "link add spare0 type veth peer name unplugged",
        "address add 10.66.0.1/24 dev spare0",
        "link set spare0 up",
    ] {
        ok(lab.appliance().ip(&args.split(' ').collect::<Vec<_>>()));
    }
    let data = ok(fake::data_dir(lab.dir()));
    let logs = lab.dir().join("logs");
    let mut site = ok(Site::start_everywhere(lab, SPARE, &data, &logs));
    let idle = "interface spare0 has had no carrier since the start, and nobody is served on it";
    ok(site.daemon.wait_for(idle, PATIENCE));
    let ready = get(&site, "/readyz");
    assert!(
        ready.starts_with(&format!("ready\nspare: {idle}")),
        "{ready}"
    );
    assert!(said(&site, "status", &[]).starts_with(idle));
    let metrics = get(&site, "/metrics");
    assert!(metrics.contains("bridgehead_troubles{part=\"spare\"} 1"));
    assert!(!said(&site, "why", &["near"]).contains("spare0"));
    let of_it = said(&site, "why", &["far"]);
    assert!(of_it.contains(&format!("  1. {idle}")), "{of_it}");
    // It alone is left: then nobody boots.
    link(&site, &format!("set {BOOT_INTERFACE} down"));
    ok(site.daemon.wait_for("boot0 is down", PATIENCE));
    let both = || Ok((!get(&site, "/readyz").contains("spare: ")).then_some(()));
    ok(until("no interface that serves", PATIENCE, both, || {
        get(&site, "/readyz")
    }));
}

const SPARE: &str = "
networks:
  boot: {subnet: 10.77.0.0/24}
  spare: {subnet: 10.66.0.0/24}
profiles:
  kvm: {kernel: debian, initrd: default, root: {nfs: /roots/kvm-host}}
hosts:
  near: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm}
  far: {mac: \"52:54:00:00:00:02\", ip: 10.66.0.11, profile: kvm}
";

fn rogue(site: &Site) -> (Namespace, Process) {
    let namespace = ok(site.lab.client("rogue", "52:54:00:00:04:01"));
    ok(namespace.ip(&["addr", "add", "10.77.0.99/24", "dev", "eth0"]));
    let leases = format!(
        "--dhcp-leasefile={}",
        site.lab.dir().join("theirs").display()
    );
    let fixed = "dnsmasq -k -C /dev/null --port=0 --interface=eth0 --bind-interfaces --no-ping \
                 --dhcp-range=10.77.0.230,10.77.0.240,1h --dhcp-boot=theirs.efi --user=root --log-facility=-";
    let mut argv: Vec<&str> = fixed.split_whitespace().collect();
    argv.push(&leases);
    let log = site.logs.join("dnsmasq.log");
    let mut process = ok(Process::spawn("dnsmasq", namespace.name(), &argv, &log));
    ok(process.wait_for("DHCP, IP range", PATIENCE));
    (namespace, process)
}

#[test]
fn a_host_that_took_another_servers_offer_says_whose_and_that_server_is_looked_for_at_once() {
    let Some(mut site) = site("took") else { return };
    // The look at the start, and the time that passes between two, are over when it comes.
    let (_namespace, _process) = rogue(&site);
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    // Theirs answers first.
    ok(site.daemon.signal(Signal::SIGSTOP));
    let udhcpc = "busybox udhcpc -i eth0 -f -q -n -t 5 -s /bin/true -V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007";
    let taken = client.run(&udhcpc.split(' ').collect::<Vec<_>>());
    ok(site.daemon.signal(Signal::SIGCONT));
    ok(taken);
    let words = "it took the offer of another DHCP server, 10.77.0.99";
    let status = || said(&site, "status", &["kvm01"]);
    let probe = || Ok(status().contains(words).then_some(()));
    ok(until("kvm01's note", PATIENCE, probe, status));
    let why = said(&site, "why", &["kvm01"]);
    assert!(why.contains(words), "{why}");
    assert!(why.contains("1. stop that DHCP server"), "{why}");
    let found = "another DHCP server on boot0: 10.77.0.99";
    ok(site.daemon.wait_for(found, Duration::from_secs(60)));
}

//! The daemon as a process: start, refusal to start, end.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::clients::{Program, lease};
use crate::fake::{self, INVENTORY};
use crate::lab::{Daemon, Lab, bridgehead, io_error, output};
use crate::{ok, site};

#[test]
fn sigterm_ends_it_with_exit_code_0() {
    let Some(mut site) = site("sigterm") else {
        return;
    };
    ok(site.daemon.signal(Signal::SIGTERM));
    let status = ok(site.daemon.wait_exit(Duration::from_secs(15)));
    assert_eq!(status.code(), Some(0), "{}", site.daemon.log().tail(20));
}

/// Starts the daemon, which must refuse; gives exit code and what it said.
fn refusal(lab: &Lab, inventory: &str, data: &Path) -> (Option<i32>, String) {
    let (file, log) = (lab.dir().join("hosts.yaml"), lab.dir().join("refused.log"));
    ok(fs::write(&file, inventory).map_err(io_error("write", &file)));
    let mut daemon = ok(Daemon::spawn(lab, &file, data, &log));
    let status = ok(daemon.wait_exit(Duration::from_secs(30)));
    (status.code(), daemon.log().text())
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let Some(lab) = Lab::for_test("taken") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    let us = std::process::id().to_string();
    let udp = |port: u16| {
        ok(
            ok(lab.appliance().enter(|| UdpSocket::bind(("0.0.0.0", port))))
                .map_err(io_error("bind", "a UDP port".as_ref())),
        )
    };
    let tcp = |port: u16| {
        ok(ok(lab
            .appliance()
            .enter(|| TcpListener::bind(("0.0.0.0", port))))
        .map_err(io_error("bind", "a TCP port".as_ref())))
    };
    for port in [67, 69] {
        let _holder = udp(port);
        let (code, said) = refusal(&lab, INVENTORY, &data);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&port.to_string()) && said.contains(&us),
            "UDP {port}: {said}"
        );
    }
    let _holder = tcp(80);
    let (code, said) = refusal(&lab, INVENTORY, &data);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("80") && said.contains(&us), "TCP 80: {said}");
}

/// A second link with a network of which `dhcp: off`, and a network that only relays know.
const RELAYED: &str = "  far: {subnet: 10.88.0.0/24, pool: 10.88.0.100-10.88.0.110}
  quiet: {subnet: 10.44.0.0/24, server: 10.44.0.1, dhcp: MODE}
profiles:
";

fn relayed(mode: &str) -> String {
    INVENTORY.replace("profiles:\n", &RELAYED.replace("MODE", mode))
}

fn second_link(lab: &Lab) {
    for command in [
        "link add quiet0 type veth peer name quiet1",
        "addr add 10.44.0.1/24 dev quiet0",
        "link set quiet0 up",
        "link set quiet1 up",
    ] {
        ok(lab.appliance().ip(&command.split(' ').collect::<Vec<_>>()));
    }
}

/// A DHCP server of that interface alone, as libvirt has one for each of its bridges.
fn holder_on(lab: &Lab, interface: &str) -> Socket {
    let bind = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddr::from(([0; 4], 67)).into())?;
        Ok(socket)
    };
    ok(ok(lab.appliance().enter(bind)).map_err(io_error("bind", "UDP port 67".as_ref())))
}

fn check_live(lab: &Lab, file: &Path, data: &Path, by: &[&str]) -> (Option<i32>, String) {
    let (file, data) = (file.display().to_string(), data.display().to_string());
    let inside = ["ip", "netns", "exec", lab.appliance().name()];
    let check = ["check", "--live", "--inventory", &file, "--data", &data];
    let done = ok(output(&[&inside, by, &[bridgehead()], &check].concat()));
    let words = [done.stdout, done.stderr].concat();
    (
        done.status.code(),
        String::from_utf8_lossy(&words).into_owned(),
    )
}

#[test]
fn a_port_that_is_taken_where_relays_alone_would_ask_costs_that_interface_alone() {
    let Some(lab) = Lab::for_test("relayed") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    second_link(&lab);
    let _holder = holder_on(&lab, "quiet0");
    let (file, log) = (lab.dir().join("hosts.yaml"), lab.dir().join("daemon.log"));
    let off = relayed("\"off\"");
    ok(fs::write(&file, &off).map_err(io_error("write", &file)));
    let mut daemon = ok(Daemon::start_everywhere(&lab, &file, &data, &log));
    let told = ok(daemon.wait_for("DHCP is not served on quiet0", Duration::from_secs(5)));
    let us = format!("process {}", std::process::id());
    for part in ["67", &us, "stop it"] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    let client = ok(lab.client("client", "52:54:00:00:00:01"));
    ok(lease(Program::Udhcpc, &client, lab.dir(), None));

    let (code, words) = check_live(&lab, &file, &data, &[]);
    assert_eq!(code, Some(0), "{words}");
    for line in [
        "boot0: no other DHCP server answers",
        "quiet0: not asked: `dhcp: off`",
        "network far: not asked: no interface has an address in 10.88.0.0/24",
        "in a network of the inventory: quiet1",
    ] {
        assert!(words.contains(line), "`{line}` is not in:\n{words}");
    }
    // An edit that brings clients there can't be half served.
    ok(fs::write(&file, relayed("server")).map_err(io_error("write", &file)));
    let refused = "DHCP on quiet0 is not served since the start";
    ok(daemon.wait_for(refused, Duration::from_secs(10)));
}

#[test]
fn a_machine_in_no_network_can_ask_none_and_checks_all_the_same() {
    let Some(lab) = Lab::for_test("nowhere") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    let file = lab.dir().join("hosts.yaml");
    ok(fs::write(&file, INVENTORY).map_err(io_error("write", &file)));
    ok(lab.appliance().ip(&["addr", "flush", "dev", "boot0"]));
    let (code, words) = check_live(&lab, &file, &data, &[]);
    assert_eq!(code, Some(1), "{words}");
    for line in [
        "3 hosts",
        "network boot: not asked: no interface has an address in 10.77.0.0/24",
        "in a network of the inventory: boot0",
        "bridgehead: no interface has an address in a network of the inventory",
    ] {
        assert!(words.contains(line), "`{line}` is not in:\n{words}");
    }
}

#[test]
fn no_interface_left_for_relays_is_a_refusal() {
    let Some(lab) = Lab::for_test("norelay") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    let _holder = holder_on(&lab, "boot0");
    let off = relayed("\"off\"").replace("dhcp: server", "dhcp: \"off\"");
    let (code, said) = refusal(&lab, &off, &data);
    assert_eq!(code, Some(1), "{said}");
    let us = format!("process {}", std::process::id());
    assert!(said.contains("port 67") && said.contains(&us), "{said}");
}

#[test]
fn addresses_that_are_the_servers_own_or_should_be_are_told() {
    let Some(lab) = Lab::for_test("own") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    for last in [12, 150] {
        let address = format!("10.77.0.{last}/24");
        ok(lab
            .appliance()
            .ip(&["addr", "add", &address, "dev", "boot0"]));
    }
    let (file, log) = (lab.dir().join("hosts.yaml"), lab.dir().join("daemon.log"));
    // Of the link that is missing here.
    let inventory = relayed("server");
    ok(fs::write(&file, &inventory).map_err(io_error("write", &file)));
    let mut daemon = ok(Daemon::start(&lab, &file, &data, &log));
    let faults = [
        "the pool of network boot holds 10.77.0.150, this server's own (boot0)",
        "host kvm02: 10.77.0.12 is this server's own address (boot0)",
        "network quiet: `server: 10.44.0.1` is no address of this machine",
    ];
    for fault in faults {
        ok(daemon.wait_for(fault, Duration::from_secs(5)));
    }
    ok(lab
        .appliance()
        .ip(&["addr", "add", "10.77.0.13/24", "dev", "boot0"]));
    ok(daemon.signal(Signal::SIGHUP));
    let late = "host kvm03: 10.77.0.13 is this server's own address";
    ok(daemon.wait_for(late, Duration::from_secs(10)));
    // Without the right to ask, all else is told.
    let without = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"];
    let (code, words) = check_live(&lab, &file, &data, &without);
    assert_eq!(code, Some(1), "{words}");
    for part in faults
        .into_iter()
        .chain([late, "boot0: not asked: ", "CAP_NET_RAW"])
    {
        assert!(words.contains(part), "`{part}` is not in:\n{words}");
    }
}

#[test]
fn a_second_daemon_on_one_state_directory_is_refused_and_the_first_goes_on() {
    let Some(site) = site("second") else {
        return;
    };
    let log = site.lab.dir().join("second.log");
    let mut second = ok(Daemon::spawn(&site.lab, &site.inventory, &site.data, &log));
    let status = ok(second.wait_exit(Duration::from_secs(30)));
    let said = second.log().text();
    assert_eq!(status.code(), Some(1), "{said}");
    let first = site.daemon.pid();
    let words = format!("another bridgehead (process {first}) uses the state directory");
    assert!(said.contains(&words), "{words} is not in: {said}");
    // Its control socket is still its own.
    assert!(!ok(site.daemon.status()).hosts.is_empty());
}

#[test]
fn serve_and_check_refuse_a_bad_inventory_in_the_same_words() {
    let Some(lab) = Lab::for_test("invalid") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    let bad = INVENTORY
        .replace("10.77.0.12,", "10.78.0.12,")
        .replace("profile: kvm-host}\nunknown", "profile: kvm-hots}\nunknown");
    let (code, said) = refusal(&lab, &bad, &data);
    assert_eq!(code, Some(3), "{said}");
    for fault in ["10.78.0.12", "kvm-hots", "hosts.yaml"] {
        assert!(said.contains(fault), "{fault} is not in: {said}");
    }
    let file = lab.dir().join("hosts.yaml").display().to_string();
    let initrd = data.join("initrds/default.img");
    ok(fs::remove_file(&initrd).map_err(io_error("remove", &initrd)));
    let data = data.display().to_string();
    let check = || {
        let argv = [bridgehead(), "check", "--inventory", &file, "--data", &data];
        let done = ok(output(&argv));
        assert_eq!(done.status.code(), Some(3));
        let words = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        words.into_owned()
    };
    let words = check();
    for line in said
        .lines()
        .filter(|line| line.contains("10.78.0.12") || line.contains("kvm-hots"))
    {
        assert!(
            words.contains(line),
            "`{line}` is not in check's words:\n{words}"
        );
    }
    // All in one run.
    let missing = "[artefacts::missing_initrd]: the initrd default is not there";
    assert!(words.contains(&format!("error{missing}")), "{words}");
    assert!(words.contains("3 errors"), "{words}");
    // Whether a host boots it is not known where none is sound.
    let none = INVENTORY.replace("ip: 10.77.", "ip: 10.78.");
    ok(fs::write(&file, none).map_err(io_error("write", file.as_ref())));
    let words = check();
    assert!(words.contains(&format!("warning{missing}")), "{words}");
    assert!(words.contains("3 errors, 1 warning"), "{words}");
}

#[test]
fn a_missing_artefact_is_named_with_the_verb_that_builds_it() {
    let Some(lab) = Lab::for_test("missing") else {
        return;
    };
    for (path, verb) in [
        ("kernels/debian/vmlinuz", "make kernel"),
        ("initrds/default.img", "make initrd"),
        ("loaders/undionly.kpxe", "make loaders"),
        ("roots/kvm-host", "make root"),
    ] {
        let data = ok(fake::data_dir(lab.dir()));
        let gone = data.join(path);
        let removed = if gone.is_dir() {
            fs::remove_dir_all(&gone)
        } else {
            fs::remove_file(&gone)
        };
        ok(removed.map_err(io_error("remove", &gone)));
        let (code, said) = refusal(&lab, INVENTORY, &data);
        // It may be mounted late: who runs the daemon tries again.
        assert_eq!(code, Some(1), "{path}: {said}");
        assert!(said.contains(verb), "{path}: {said}");
    }
}

#[test]
fn status_without_a_daemon_says_so() {
    let Some(lab) = Lab::for_test("away") else {
        return;
    };
    let state = lab.dir().display().to_string();
    let done = ok(output(&[bridgehead(), "status", "--state", &state]));
    assert_eq!(
        done.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

//! What loaders and hosts say by syslog is shown, and believed by nobody.

use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use crate::host_files::{Booting, KVM01};
use crate::lab::{APPLIANCE, Daemon, Lab, Namespace, Site, bridgehead, io_error, output, until};
use crate::{fake, ok, site, site_with};

/// As iPXE says it: no time, and the host's name of DHCP.
pub(crate) const TIMED_OUT: &str =
    "<6>kvm01 ipxe: http://10.77.0.1/x... \x1b[31mConnection timed out (https://ipxe.org/4c126035)";

/// It is off unless asked for.
fn hearing() -> String {
    format!("server: {{syslog: 514}}\n{}", fake::INVENTORY)
}

const NOT_FOUND: &str = "<6>kvm01 ipxe: http://10.77.0.1/y... (https://ipxe.org/2d0c613b)";

pub(crate) fn send(from: &Namespace, datagrams: &[&[u8]]) {
    let work = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for datagram in datagrams {
            socket.send_to(datagram, (APPLIANCE, 514))?;
        }
        Ok(())
    };
    ok(ok(from.enter(work)).map_err(io_error("send", "syslog".as_ref())));
}

fn said(site: &Site, verb: &str, args: &[&str]) -> String {
    let done = ok(site.daemon.verb(verb, args));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

pub(crate) fn wait_for(words: &str, told: impl Fn() -> String) {
    let probe = || Ok(told().contains(words).then_some(()));
    ok(until(words, Duration::from_secs(10), probe, &told));
}

fn counted(client: &Booting, result: &str) -> String {
    let url = format!("http://{APPLIANCE}/metrics");
    let text = ok(client.namespace.run(&["curl", "-s", "-m", "10", &url]));
    let sample = format!("bridgehead_syslog_messages_total{{result=\"{result}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&sample));
    line.unwrap_or_else(|| panic!("no {sample}")).to_owned()
}

#[test]
fn a_loaders_lines_are_told_with_its_boot_and_move_nothing() {
    let Some(site) = site_with("syslog", &hearing()) else {
        return;
    };
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    // No boot of it is under way.
    send(&kvm01.namespace, &[b"<6>ipxe: early"]);
    wait_for("1", || counted(&kvm01, "no_boot"));
    let token = kvm01.boot_token();
    send(&kvm01.namespace, &[TIMED_OUT.as_bytes(), b"", b"<6>"]);
    wait_for("Connection timed out", || said(&site, "log", &["kvm01"]));
    let log = said(&site, "log", &["kvm01"]);
    let line = log.lines().find(|line| line.contains(" syslog "));
    let line = line.unwrap_or_else(|| panic!("no console in:\n{log}"));
    for word in [
        " console ",
        " unproven ",
        "ipxe: http://10.77.0.1/x... Connection",
    ] {
        assert!(line.contains(word), "no `{word}` in {line:?}");
    }
    let why = said(&site, "why", &["kvm01"]);
    for words in [
        "What came from its address by syslog (unproven)\n",
        "Connection timed out (https://ipxe.org/4c126035) (by syslog)",
        "which means: iPXE waited for an answer that did not come",
    ] {
        assert!(why.contains(words), "no `{words}` in:\n{why}");
    }
    let status = said(&site, "status", &["kvm01"]);
    assert!(status.starts_with("kvm01 is running in script"), "{status}");
    assert_eq!(counted(&kvm01, "empty"), "2");

    // Others speak, too, by the program that people have.
    let argv = [
        "logger", "-n", APPLIANCE, "-P", "514", "-d", "--id=7", "-t", "kernel",
    ];
    for format in ["--rfc3164", "--rfc5424"] {
        let words = format!("by {format}");
        ok(kvm01
            .namespace
            .run(&[&argv[..], &[format, "--", &words]].concat()));
        wait_for(&format!("kernel: {words}"), || {
            said(&site, "log", &["kvm01"])
        });
    }
    let stranger = ok(site.lab.client("stranger", "52:54:00:00:00:99"));
    ok(stranger.ip(&["addr", "add", "10.77.0.99/24", "dev", "eth0"]));
    send(&stranger, &[TIMED_OUT.as_bytes()]);
    wait_for("1", || counted(&kvm01, "unknown"));
    // One that asked for its address, and is not listed, is told of where it waits.
    let asks = "busybox udhcpc -i eth0 -f -q -n -t 5 -s /bin/true -V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007";
    ok(stranger.run(&asks.split(' ').collect::<Vec<_>>()));
    let list = || -> serde_json::Value {
        let state = site.lab.dir().join("state").display().to_string();
        let argv = [
            bridgehead(),
            "discover",
            "list",
            "--json",
            "--state",
            &state,
        ];
        serde_json::from_slice(&ok(output(&argv)).stdout).unwrap_or_default()
    };
    let address = said(&site, "log", &["mac-525400000099"]);
    let address = address
        .split("gave ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let address = address.unwrap_or_else(|| panic!("no address"));
    ok(stranger.ip(&["addr", "flush", "dev", "eth0"]));
    ok(stranger.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]));
    send(&stranger, &[b"<6>ipxe: it waits"]);
    wait_for("ipxe: it waits", || {
        list()["machines"][0]["said"].to_string()
    });
    // Once the host speaks for itself its loader's trouble is past.
    let report = kvm01.config(&token)("report_token");
    let root = [
        "--data-binary",
        "stage=root\nstate=fail\nmessage=no answer\nuptime_ms=9\n",
    ];
    assert_eq!(kvm01.get("/v1/boot/kvm01/events", &report, &root), "200");
    let status = said(&site, "status", &["kvm01"]);
    assert!(status.contains("\n  no answer\n"), "{status}");
    // Nor is it a hint that comes now.
    let told = || said(&site, "log", &["kvm01", "--all"]);
    let before = told().matches("its console says").count();
    let late = "<6>kernel: nfs: server 10.77.0.5 not responding, still trying";
    send(
        &kvm01.namespace,
        &[late.as_bytes(), b"<6>ipxe: it was heard"],
    );
    wait_for("it was heard", told);
    assert_eq!(told().matches("its console says").count(), before);
    let why = said(&site, "why", &["kvm01"]);
    assert!(
        why.contains("not responding") && !why.contains("by syslog)"),
        "{why}"
    );
}

#[test]
fn a_flood_of_lines_is_counted_and_ends_with_its_budget() {
    let Some(site) = site_with("syslogflood", &hearing()) else {
        return;
    };
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    kvm01.boot_token();
    // Two causes that take turns, as in a loader's loop.
    let mut flood = vec![TIMED_OUT.as_bytes(); 1000];
    flood
        .iter_mut()
        .step_by(2)
        .for_each(|line| *line = NOT_FOUND.as_bytes());
    let limited = || counted(&kvm01, "limited").parse::<u32>().unwrap_or(0);
    // Of each, the kernel drops what finds the socket's buffer full.
    let many = || {
        send(&kvm01.namespace, &flood);
        Ok((limited() > 100).then_some(()))
    };
    ok(until("a limit", Duration::from_secs(10), many, || {
        limited().to_string()
    }));
    let log = said(&site, "log", &["kvm01"]);
    // Each hint is said once.
    assert_eq!(log.matches("its console says").count(), 2, "{log}");
}

/// A log server that is started after us has its port.
#[test]
fn without_a_word_of_it_the_syslog_port_is_left_to_others() {
    let Some(site) = site("syslogoff") else {
        return;
    };
    let bind = || UdpSocket::bind("0.0.0.0:514");
    let bound = ok(site.lab.appliance().enter(bind));
    assert!(bound.is_ok(), "{bound:?}");
}

#[test]
fn a_syslog_port_that_is_taken_costs_syslog_alone() {
    let Some(lab) = Lab::for_test("syslogtaken") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    let bind = || UdpSocket::bind("0.0.0.0:514");
    let holder = ok(ok(lab.appliance().enter(bind)).map_err(io_error("bind", "514".as_ref())));
    let (file, log) = (lab.dir().join("hosts.yaml"), lab.dir().join("daemon.log"));
    ok(std::fs::write(&file, hearing()).map_err(io_error("write", &file)));
    let mut daemon = ok(Daemon::start(&lab, &file, &data, &log));
    let told = ok(daemon.wait_for("is not taken at 10.77.0.1", Duration::from_secs(5)));
    let us = format!("process {}", std::process::id());
    assert!(
        told.contains(&us) && told.contains("all else is served"),
        "{told}"
    );
    // Nobody is told to send there.
    let ipxe = ok(lab.client("ipxe", KVM01));
    let script = lab.dir().join("told");
    ok(std::fs::write(&script, "#!/bin/sh\nenv\n").map_err(io_error("write", &script)));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    ok(std::fs::set_permissions(&script, mode).map_err(io_error("chmod", &script)));
    let script = script.display();
    let ask = format!(
        "busybox udhcpc -i eth0 -f -q -n -t 5 -s {script} -V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007 -x 0x4d:69505845 -O 7"
    );
    let argv: Vec<_> = ask.split(' ').collect();
    let given = ok(ipxe.run(&argv));
    assert!(
        given.contains("ip=10.77.0.11") && !given.contains("opt7="),
        "{given}"
    );
    drop(holder);
    drop(daemon);

    let daemon = ok(Daemon::start(
        &lab,
        &file,
        &data,
        &lab.dir().join("again.log"),
    ));
    let given = ok(ipxe.run(&argv));
    assert!(given.contains("opt7=0a4d0001\n"), "{given}");
    drop(daemon);
}

/// A reader of this file waits for ever, as on a disk that does not answer.
#[test]
fn a_disk_that_hangs_holds_up_who_asks_for_what_is_on_it_alone() {
    let Some(site) = site("hangs") else { return };
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    kvm01.boot_token();
    let directory = site.lab.dir().join("state/console/kvm01");
    ok(std::fs::create_dir_all(&directory).map_err(io_error("create", &directory)));
    let file = directory.join("z.log");
    ok(output(&["mkfifo", &file.display().to_string()]));
    // More than the daemon has threads.
    let ask = format!(
        "for n in 1 2 3 4 5 6 7 8 9; do curl -s -m 2 -o /dev/null http://{APPLIANCE}$0 & done; wait"
    );
    for path in ["/v1/hosts/kvm01/log", "/hosts/kvm01"] {
        ok(kvm01.namespace.run(&["sh", "-c", &ask, path]));
        assert_eq!(kvm01.get("/files/kernels/debian/vmlinuz", "", &[]), "200");
    }
    // Its threads end with it.
    let release = || {
        let mut write = std::fs::OpenOptions::new();
        let write = write.write(true).custom_flags(nix::libc::O_NONBLOCK);
        let write = write.open(&file);
        Ok(write.is_ok().then_some(()))
    };
    ok(until(
        "a reader",
        Duration::from_secs(10),
        release,
        String::new,
    ));
}

//! The daemon as a process: start, refusal to start, end.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

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
    let data = data.display().to_string();
    let done = ok(output(&[
        bridgehead(),
        "check",
        "--inventory",
        &file,
        "--data",
        &data,
    ]));
    assert_eq!(done.status.code(), Some(3));
    let words = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    for line in said
        .lines()
        .filter(|line| line.contains("10.78.0.12") || line.contains("kvm-hots"))
    {
        assert!(
            words.contains(line),
            "`{line}` is not in check's words:\n{words}"
        );
    }
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
        assert_eq!(code, Some(3), "{path}: {said}");
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

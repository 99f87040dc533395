//! Hosts that power on together: none is left behind, nothing is dropped, and memory stays within bounds.
//!
//! Needs root, for a network of its own. `cargo test --release --test storm -- --ignored` is a thousand hosts.
#![allow(missing_docs, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::time::Duration;

#[path = "../daemon/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../openmetrics/mod.rs"]
mod openmetrics;
#[path = "../../benches/rig/mod.rs"]
mod rig;
mod sim;

use lab::LabError;
use rig::{Wire, drops};
use sim::{Site, Storm, Tally};

/// What must hold after any storm.
struct Bounds {
    /// Peak memory of the daemon, MiB.
    memory: f64,
    /// Its open descriptors once all hosts are up.
    descriptors: f64,
}

/// A network of the test's own; `None` without root, which is a failure where `CI` is set.
fn wire(name: &str) -> Option<Wire> {
    match Wire::new(name) {
        Ok(wire) => Some(wire),
        Err(error @ LabError::NeedsRoot) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Runs a storm against a fresh daemon; `None` without root.
fn storm(
    name: &str,
    hosts: u16,
    loss_percent: f64,
    delay: Duration,
    bounds: &Bounds,
) -> Option<Tally> {
    let wire = wire(name)?;
    let dir = tempfile::tempdir().expect("a directory");
    let site = ok(Site::make(dir.path(), hosts));
    let log = dir.path().join("daemon.log");
    let mut ours = ok(site.serve(&wire, &log));
    let storm = Storm {
        hosts,
        loss_percent,
        delay,
        seed: 20,
        report: true,
        unlisted: false,
        files: site.files.clone(),
    };
    let watch = ours.server.watch();
    let tally = ok(storm.blow(&wire));
    let usage = watch.stop();
    ok(ours.server.check_alive());
    eprintln!(
        "{tally}  daemon: {:.1} s CPU, peak {:.0} MiB",
        usage.cpu, usage.peak
    );
    let read = ok(ours.metrics(&wire));
    let value = |sample: &str| {
        let value = read.value(sample);
        value.unwrap_or_else(|| panic!("no {sample} in the metrics"))
    };
    eprintln!(
        "  events suppressed {}, unwritten {}; descriptors {}",
        value("bridgehead_events_suppressed_total"),
        value("bridgehead_events_unwritten_total"),
        value("process_open_fds"),
    );
    assert!(tally.failures.is_empty(), "{tally}");
    assert_eq!(tally.booted, usize::from(hosts));
    assert_eq!(
        ok(drops(wire.server())),
        0,
        "datagrams dropped at the server"
    );
    assert_eq!(
        ok(drops(wire.client())),
        0,
        "datagrams dropped at the simulator"
    );
    assert_eq!(
        ok(sim::refused_connections(&wire)),
        0,
        "connections that the daemon's listeners had no room for"
    );
    assert_eq!(ok(ours.standing("done")), usize::from(hosts));
    assert_eq!(
        value("bridgehead_boots_total{result=\"joined\"}"),
        f64::from(hosts)
    );
    assert_eq!(
        value("bridgehead_boot_duration_seconds_count"),
        f64::from(hosts)
    );
    assert_eq!(
        value("bridgehead_leases{state=\"active\"}"),
        f64::from(hosts)
    );
    for sample in [
        "bridgehead_boots_total{result=\"failed\"}",
        "bridgehead_events_unwritten_total",
        "bridgehead_events_suppressed_total",
        "bridgehead_udp_receive_drops_total{protocol=\"dhcp\"}",
        "bridgehead_udp_receive_drops_total{protocol=\"tftp\"}",
        "bridgehead_unlisted_machines",
    ] {
        assert_eq!(value(sample), 0.0, "{sample}");
    }
    assert!(usage.peak < bounds.memory, "{} MiB", usage.peak);
    assert!(value("process_open_fds") < bounds.descriptors);
    Some(tally)
}

fn ok<T>(result: lab::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn two_hundred_hosts_on_a_wire_that_loses_datagrams_all_come_up() {
    let bounds = Bounds {
        memory: 150.0,
        descriptors: 100.0,
    };
    let delay = Duration::from_millis(1);
    if let Some(tally) = storm("storm", 200, 1.0, delay, &bounds) {
        assert!(tally.lost > 100, "{tally}");
        assert!(tally.tftp_retries > 0, "{tally}");
    }
}

#[test]
#[ignore = "a minute or more, and 16 GB over a wire"]
fn a_thousand_hosts_all_come_up() {
    let bounds = Bounds {
        memory: 400.0,
        descriptors: 100.0,
    };
    storm("storm1k", 1000, 0.0, Duration::ZERO, &bounds);
}

/// Machines that nobody listed wait together, and each gets a name of its own.
fn names(name: &str, machines: u16, most_memory: f64) {
    let Some(wire) = wire(name) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let site = ok(Site::of(dir.path(), &sim::free(machines)));
    let mut ours = ok(site.serve(&wire, &dir.path().join("daemon.log")));
    let storm = Storm {
        hosts: machines,
        loss_percent: 0.0,
        delay: Duration::ZERO,
        seed: 20,
        report: false,
        unlisted: true,
        files: site.files.clone(),
    };
    let watch = ours.server.watch();
    let tally = ok(storm.blow(&wire));
    let usage = watch.stop();
    ok(ours.server.check_alive());
    eprintln!(
        "{machines} machines have names after {:.1} s; the slowest answer took {:.2} s; daemon: {:.1} s CPU, peak {:.0} MiB",
        tally.wall.as_secs_f64(),
        tally.slowest.as_secs_f64(),
        usage.cpu,
        usage.peak
    );
    assert!(tally.failures.is_empty(), "{tally}");
    let mut names = tally.names;
    names.sort();
    let all: Vec<_> = (0..machines).map(sim::name).collect();
    assert_eq!(names, all, "each name once");
    let written = site.hosts().unwrap_or_else(|why| panic!("{why}"));
    let (names, macs): (Vec<_>, BTreeSet<_>) = written.into_iter().unzip();
    assert_eq!(names, all, "the file has each");
    assert_eq!(macs, (0..machines).map(sim::mac).collect());
    let read = ok(ours.metrics(&wire));
    for (result, number) in [("enrolled", machines), ("replaced", 0), ("unwritten", 0)] {
        let sample = format!("bridgehead_enrolments_total{{result=\"{result}\"}}");
        assert_eq!(read.value(&sample), Some(f64::from(number)), "{sample}");
    }
    let log = std::fs::read_to_string(dir.path().join("daemon.log")).unwrap_or_default();
    let edits = log.matches("reloaded: ").count();
    eprintln!("{edits} edits");
    assert!(edits < usize::from(machines) / 2, "{edits} edits");
    assert!(usage.peak < most_memory, "{} MiB", usage.peak);
}

#[test]
fn a_hundred_machines_that_wait_together_get_a_name_each() {
    names("names", 100, 150.0);
}

#[test]
#[ignore = "a minute or more"]
fn a_thousand_machines_that_wait_together_get_a_name_each() {
    names("names1k", 1000, 400.0);
}

//! The benchmarks' rig measures what it says.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test by panicking"
)]

use std::net::UdpSocket;
use std::time::Duration;

use crate::lab::{self, LabError};
use crate::rig::{self, Aim, Measure, Report, SERVER, Sample, Server, Wire, drops};

/// The wire, or `None` without root: a failure where `CI` is set.
fn wire() -> Option<Wire> {
    match Wire::new("rig") {
        Ok(wire) => Some(wire),
        Err(LabError::NeedsRoot) if std::env::var_os("CI").is_none() => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn medians_and_ranges() {
    assert_eq!(rig::median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(rig::median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    assert!(rig::median(&[]).is_nan());
    let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(rig::percentile(&hundred, 0.99), 99.0);
    assert_eq!(rig::percentile(&[7.0], 0.5), 7.0);
    assert_eq!(rig::spread(&[1.0, 1.26, f64::NAN], 1), "1.1 (1.0-1.3)");
    assert_eq!(rig::spread(&[2.0, 2.0], 0), "2");
    assert_eq!(rig::spread(&[f64::NAN], 0), "-");
}

#[test]
fn every_second_round_goes_backwards() {
    let mut seen = Vec::new();
    rig::rounds(3, &['a', 'b'], |round, contender| {
        seen.push((round, contender));
        Ok(())
    })
    .unwrap();
    let order: String = seen.iter().map(|(_, contender)| contender).collect();
    assert_eq!(order, "abbaab");
}

#[test]
fn ratios_are_of_the_same_round() {
    const MEASURES: &[Measure] = &[
        Measure::new("MB/s", "mb_per_s", 0),
        Measure::new("CPU s/GB", "cpu_s_per_gb", 1),
    ];
    let mut report = Report::new("rig", "ours", MEASURES);
    for (round, contender, rate, cpu) in [
        (1, "ours", 200.0, 2.0),
        (1, "other", 100.0, 4.0),
        (2, "other", 50.0, 8.0),
        (2, "ours", 150.0, 2.0),
        (1, "idle", 100.0, f64::NAN),
    ] {
        report.add(Sample {
            case: "1 client".to_owned(),
            round,
            contender: contender.to_owned(),
            values: vec![rate, cpu],
        });
    }
    for (key, ratio, more) in [("mb_per_s", 2.0, true), ("cpu_s_per_gb", 0.1, false)] {
        report.aims.push(Aim {
            case: "1 client",
            key,
            beside: &["other", "absent"],
            ratio,
            more,
        });
    }
    let out = tempfile::tempdir().unwrap();
    report.write(out.path()).unwrap();
    let text = std::fs::read_to_string(out.path().join("rig.md")).unwrap();
    let tables = text.split("Warning").next().unwrap();
    let tables = tables.split("- machine").next().unwrap().trim();
    insta::assert_snapshot!(tables, @"
    ### 1 client

    | median of 2 (min-max) | MB/s | CPU s/GB |
    |---|---:|---:|
    | ours | 175 (150-200) | 2.0 |
    | other | 75 (50-100) | 6.0 (4.0-8.0) |
    | idle | 100 | - |
    | ours / other | 2.50 (2.00-3.00) | 0.38 (0.25-0.50) |
    | ours / idle | 2.00 | - |

    - 1 client: MB/s at least 2 of the best other's: 2.50, met
    - 1 client: CPU s/GB at most 0.1 of the best other's: 0.38, missed
    ");
    let json = std::fs::read_to_string(out.path().join("rig.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["samples"][1]["values"]["cpu_s_per_gb"], 4.0);
}

/// The server itself only waits: a child that ended works for it, then one that it left, then one that stays.
#[test]
fn time_of_children_counts() {
    let Some(wire) = wire() else { return };
    let out = tempfile::tempdir().unwrap();
    let gate = |name: &str| out.path().join(name).display().to_string();
    let wait = |name: &str| format!("until [ -e {} ]; do sleep 0.05; done", gate(name));
    let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo";
    let script = format!(
        "{}; sh -c '{work} one'; {}; (sh -c '{work} two' &); {}; sh -c '{work} three; sleep 600'; :",
        wait("first"),
        wait("second"),
        wait("third"),
    );
    let log = out.path().join("log");
    let server = Server::start(&wire, &["sh", "-c", &script], &log, || true).unwrap();
    let written = lab::Log::new(&log);
    for (name, said) in [("first", "one"), ("second", "two"), ("third", "three")] {
        let watch = server.watch();
        std::fs::write(gate(name), "").unwrap();
        written.wait_for(said, Duration::from_secs(60)).unwrap();
        if name == "second" && !server.counts_all() {
            // Nobody waits for that one, and this machine has no control groups of version 2.
            continue;
        }
        let waited_for = || Ok((watch.so_far().cpu > 0.04).then_some(()));
        lab::until(
            "the time of a child",
            Duration::from_secs(10),
            waited_for,
            String::new,
        )
        .unwrap();
        let peak = watch.stop().peak;
        assert!(peak > 0.5 && peak < 100.0, "{peak} MiB");
    }
}

#[test]
fn datagrams_without_room_are_counted() {
    let Some(wire) = wire() else { return };
    let listener = wire.server().enter(|| UdpSocket::bind((SERVER, 69)));
    let listener = listener.unwrap().unwrap();
    nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::RcvBuf, &4096).unwrap();
    let before = drops(wire.server()).unwrap();
    let sent = wire.client().enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..100).all(|_| socket.send_to(&[0; 1000], (SERVER, 69)).is_ok())
    });
    assert!(sent.unwrap());
    let counted = || drops(wire.server()).map(|now| (now > before + 10).then_some(()));
    lab::until("drops", Duration::from_secs(10), counted, String::new).unwrap();
}

//! `GET /metrics`: well formed, and what README says is there.

use std::collections::BTreeSet;

use bridgehead::metrics::{BootResult, Metrics};

use crate::openmetrics::Exposition;

fn scrape(metrics: &Metrics) -> Exposition {
    let text = metrics.text();
    Exposition::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

/// The names in README's table of metrics.
fn documented() -> BTreeSet<String> {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("## Metrics\n").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let name = |row: &str| {
        let end = row.find(['`', '{']).expect("a name ends");
        row[..end].to_owned()
    };
    rows.map(name).collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    assert_eq!(scrape(&Metrics::new()).documented_names(), documented());
}

#[test]
fn label_values_are_there_before_anything_happens() {
    let read = scrape(&Metrics::new());
    for sample in [
        "bridgehead_hosts{stage=\"joined\"}",
        "bridgehead_hosts_standing{state=\"stalled\"}",
        "bridgehead_events_total{state=\"ignored\"}",
        "bridgehead_boots_total{result=\"failed\"}",
        "bridgehead_leases{state=\"active\"}",
        "bridgehead_boot_stage_duration_seconds_count{stage=\"bridge\"}",
        "bridgehead_dhcp_received_total{type=\"discover\"}",
        "bridgehead_dhcp_ignored_total{reason=\"pool_full\"}",
        "bridgehead_http_requests_total{route=\"files\"}",
        "bridgehead_nfs_refused_total{reason=\"connections\"}",
        "bridgehead_tftp_requests_total{answer=\"refused\"}",
        "bridgehead_tftp_transfers_running",
        "bridgehead_tftp_transfers_total{result=\"size_probe\"}",
        "bridgehead_udp_receive_drops_total{protocol=\"tftp\"}",
    ] {
        assert_eq!(read.value(sample), Some(0.0), "{sample}");
    }
    let version = format!(
        "bridgehead_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(read.value(&version), Some(1.0));
    assert!(read.value("process_resident_memory_bytes") > Some(100_000.0));
}

#[test]
fn what_a_room_counts_is_seen() {
    let metrics = Metrics::new();
    let room = metrics.timeline.clone();
    room.boots.of(BootResult::Joined).inc();
    room.boot_duration.observe(42.0);
    let read = scrape(&metrics);
    assert_eq!(
        read.value("bridgehead_boots_total{result=\"joined\"}"),
        Some(1.0)
    );
    assert_eq!(
        read.value("bridgehead_boots_total{result=\"failed\"}"),
        Some(0.0)
    );
    assert_eq!(
        read.value("bridgehead_boot_duration_seconds_bucket{le=\"30.0\"}"),
        Some(0.0)
    );
    assert_eq!(
        read.value("bridgehead_boot_duration_seconds_bucket{le=\"45.0\"}"),
        Some(1.0)
    );
    assert_eq!(
        read.value("bridgehead_boot_duration_seconds_sum"),
        Some(42.0)
    );
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a_b Help.\n# TYPE a_b counter\na_b_total{x=\"y\"} 1\n# EOF\n";
    assert!(Exposition::parse(good).is_ok());
    for (from, to) in [
        ("# EOF\n", ""),
        ("a_b_total", "a_b"),
        ("counter", "number"),
        (" 1\n", " one\n"),
        ("\"y\"", "y"),
        ("\"y\"", "\"52:54:00:00:00:01\""),
        ("\"y\"", "\"10.77.0.11\""),
        ("# HELP a_b Help.\n", ""),
        ("# EOF", "a_b_total{x=\"y\"} 2\n# EOF"),
        ("# EOF", "# HELP c Empty.\n# TYPE c gauge\n# EOF"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(Exposition::parse(&bad).is_err(), "{bad}");
    }
}

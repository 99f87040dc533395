//! `GET /metrics`: well formed, and what the documentation says is there.

use std::collections::BTreeSet;

use bridgehead::metrics::{BootResult, Metrics};

use crate::openmetrics::Exposition;

fn scrape(metrics: &Metrics) -> Exposition {
    let text = metrics.text();
    Exposition::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

/// The names in the documentation's table.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../docs/operations.md");
    let (_, section) = page.split_once("## Metrics\n").expect("the section");
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

/// The metrics that an expression asks for, each with what its selector says: `name{label="a|b"}`.
fn asked(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text
        .match_indices("bridgehead_")
        .chain(text.match_indices("process_"))
    {
        if text[..at].ends_with(is_name) {
            continue;
        }
        let rest = &text[at..];
        let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let selector = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split('}').next());
        let label = |one: &str| {
            let (label, value) = one.split_once('=')?;
            let value = value.trim_matches(['~', '"', '\\']);
            Some((label.to_owned(), value.to_owned()))
        };
        let labels = selector.unwrap_or_default().split(',').filter_map(label);
        found.push((name.to_owned(), labels.collect()));
    }
    found
}

/// What our daemon's exposition knows nothing of: Prometheus adds these, or the dashboard fills them in.
const NOT_OURS: [&str; 2] = ["instance", "job"];

#[test]
fn dashboard_and_alerts_ask_for_what_is_there() {
    let read = scrape(&Metrics::new());
    let samples: Vec<&String> = read
        .families
        .values()
        .flat_map(|family| family.samples.keys())
        .collect();
    for (file, text) in [
        ("alerts.yaml", include_str!("../monitoring/alerts.yaml")),
        ("grafana.json", include_str!("../monitoring/grafana.json")),
    ] {
        let asked = asked(text);
        assert!(asked.len() > 10, "{file}");
        for (name, labels) in asked {
            let of_name =
                |sample: &&&String| ***sample == name || sample.starts_with(&format!("{name}{{"));
            let mine: Vec<_> = samples.iter().filter(of_name).collect();
            assert!(!mine.is_empty(), "{file}: no {name}");
            let ours = labels
                .iter()
                .filter(|(label, _)| !NOT_OURS.contains(&label.as_str()));
            for (label, values) in ours {
                for value in values.split('|') {
                    let pair = format!("{label}=\"{value}\"");
                    assert!(
                        mine.iter().any(|sample| sample.contains(&pair)),
                        "{file}: no {name}{{{pair}}}"
                    );
                }
            }
        }
    }
    serde_json::from_str::<serde_json::Value>(include_str!("../monitoring/grafana.json"))
        .expect("JSON");
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
        "bridgehead_dhcp_packets_total{direction=\"received\",type=\"discover\"}",
        "bridgehead_dhcp_ignored_total{reason=\"pool_full\"}",
        "bridgehead_http_requests_total{route=\"files\",code=\"4xx\"}",
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

/// The names that the project's research settled on are there, each with these labels and no others.
#[test]
fn the_names_that_were_agreed_are_there_with_their_labels() {
    let read = scrape(&Metrics::new());
    for (name, labels) in [
        ("dhcp_packets_total", &["direction", "type"][..]),
        ("dhcp_ignored_total", &["reason"]),
        ("tftp_transfers_total", &["result"]),
        ("sent_bytes_total", &["protocol"]),
        ("http_requests_total", &["route", "code"]),
        ("boots_total", &["result"]),
        ("boot_duration_seconds_count", &[]),
        ("boot_stage_duration_seconds_count", &["stage"]),
        ("hosts", &["stage"]),
        ("leases", &["state"]),
        ("inventory_reload_success", &[]),
        ("inventory_reload_timestamp_seconds", &[]),
        ("build_info", &["version"]),
    ] {
        let name = format!("bridgehead_{name}");
        let samples = read.families.values().flat_map(|f| f.samples.keys());
        let labels_of = |sample: &String| {
            let rest = sample.strip_prefix(&name)?;
            let inside = rest.strip_prefix('{')?.strip_suffix('}')?;
            let label = |pair: &str| Some(pair.split_once('=')?.0.to_owned());
            inside.split(',').map(label).collect::<Option<Vec<_>>>()
        };
        if labels.is_empty() {
            assert!(read.value(&name).is_some(), "{name}");
            continue;
        }
        let found: BTreeSet<_> = samples.filter_map(labels_of).collect();
        let wanted = labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(found, BTreeSet::from([wanted]), "{name}");
    }
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

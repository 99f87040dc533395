//! `GET /metrics` of a daemon that has just done something.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clients::{Program, lease};
use crate::lab::{APPLIANCE, Namespace, io_error, until};
use crate::openmetrics::Exposition;
use crate::{ok, site};

fn scrape(client: &Namespace) -> Exposition {
    let url = format!("http://{APPLIANCE}/metrics");
    let text = ok(client.run(&["curl", "-sSi", "-m", "10", &url]));
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(
        head.to_lowercase()
            .contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    Exposition::parse(body).unwrap_or_else(|why| panic!("{why}\n{body}"))
}

#[test]
fn an_address_with_too_many_nfs_connections_is_counted_and_told() {
    let Some(site) = site("nfslimit") else { return };
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    ok(client.ip(&["addr", "add", "10.77.0.11/24", "dev", "eth0"]));
    let nfs: SocketAddr = format!("{APPLIANCE}:2049").parse().expect("an address");
    let connect = || ok(client.enter(|| TcpStream::connect(nfs)));
    let connect = || ok(connect().map_err(io_error("connect to", "NFS".as_ref())));
    let held: Vec<_> = (0..35).map(|_| connect()).collect();
    let told = || {
        let said = ok(site.daemon.verb("log", &["kvm01"]));
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let words = "32 are open already, from this address";
    let probe = || Ok(told().contains(words).then_some(()));
    ok(until(words, Duration::from_secs(20), probe, told));
    let read = scrape(&client);
    assert_eq!(read.value("bridgehead_nfs_connections"), Some(32.0));
    let refused = "bridgehead_nfs_refused_total{reason=\"address_connections\"}";
    assert_eq!(read.value(refused), Some(3.0));
    assert_eq!(told().matches(words).count(), 1, "{}", told());
    drop(held);
}

#[test]
fn a_lease_and_its_events_are_counted() {
    let Some(site) = site("metrics") else { return };
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    ok(lease(Program::Udhcpc, &client, site.lab.dir(), None));
    ok(client.ip(&["addr", "replace", "10.77.0.11/24", "dev", "eth0"]));
    let read = scrape(&client);
    let value = |sample: &str| {
        read.value(sample)
            .unwrap_or_else(|| panic!("{sample} is not there"))
    };
    assert_eq!(value("bridgehead_leases{state=\"active\"}"), 1.0);
    // An operating system's lease is no step of a boot.
    assert!(value("bridgehead_events_total{state=\"info\"}") >= 2.0);
    assert_eq!(
        value("bridgehead_udp_receive_drops_total{protocol=\"dhcp\"}"),
        0.0
    );
    assert_eq!(value("bridgehead_inventory_reload_success"), 1.0);
    let age = jiff::Timestamp::now().as_second() as f64
        - value("bridgehead_inventory_reload_timestamp_seconds");
    assert!((0.0..600.0).contains(&age), "{age} s");
    for (direction, kind) in [
        ("received", "discover"),
        ("received", "request"),
        ("sent", "ack"),
    ] {
        let sample =
            format!("bridgehead_dhcp_packets_total{{direction=\"{direction}\",type=\"{kind}\"}}");
        assert!(value(&sample) >= 1.0, "{sample}");
    }
    // A request is counted with its answer: the first scrape is seen by the second.
    let asked = "bridgehead_http_requests_total{route=\"api\",code=\"2xx\"}";
    assert_eq!(value(asked), 0.0);
    assert_eq!(scrape(&client).value(asked), Some(1.0));
    assert!(value("process_open_fds") < value("process_max_fds"));
}

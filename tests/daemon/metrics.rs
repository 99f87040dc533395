//! `GET /metrics` of a daemon that has just done something.

use crate::clients::{Program, lease};
use crate::lab::APPLIANCE;
use crate::openmetrics::Exposition;
use crate::{ok, site};

#[test]
fn a_lease_and_its_events_are_counted() {
    let Some(site) = site("metrics") else { return };
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    ok(lease(Program::Udhcpc, &client, site.lab.dir(), None));
    ok(client.ip(&["addr", "replace", "10.77.0.11/24", "dev", "eth0"]));
    let url = format!("http://{APPLIANCE}/metrics");
    let text = ok(client.run(&["curl", "-sSi", "-m", "10", &url]));
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(
        head.to_lowercase()
            .contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    let read = Exposition::parse(body).unwrap_or_else(|why| panic!("{why}\n{body}"));
    let value = |sample| {
        read.value(sample)
            .unwrap_or_else(|| panic!("{sample} is not in\n{body}"))
    };
    assert_eq!(value("bridgehead_leases{state=\"active\"}"), 1.0);
    // An operating system's lease is no step of a boot.
    assert!(value("bridgehead_events_total{state=\"info\"}") >= 2.0);
    assert_eq!(
        value("bridgehead_udp_receive_drops_total{protocol=\"dhcp\"}"),
        0.0
    );
    assert_eq!(value("bridgehead_inventory_reload_success"), 1.0);
    assert!(value("process_open_fds") < value("process_max_fds"));
}

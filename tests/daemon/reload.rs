//! A changed inventory serves at once; a bad one never does.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::clients::{Program, lease};
use crate::fake::INVENTORY;
use crate::lab::{Namespace, Site, until};
use crate::{ok, site, site_with};

const MAC: &str = "52:54:00:00:00:44";

fn with_kvm44(ip: &str) -> String {
    let line = format!("hosts:\n  kvm44: {{mac: \"{MAC}\", ip: {ip}, profile: kvm-host}}\n");
    INVENTORY.replace("hosts:\n", &line)
}

/// Asks again and again until the address is that.
fn wait_address(site: &Site, client: &Namespace, address: &str) {
    let probe = || {
        let given = lease(Program::Udhcpc, client, site.lab.dir(), None)?;
        Ok((given.address.to_string() == address).then_some(()))
    };
    let what = format!("the address {address}");
    ok(until(&what, Duration::from_secs(20), probe, || {
        site.daemon.log().tail(20)
    }));
}

#[test]
fn a_saved_file_and_a_sighup_are_taken_up_and_a_bad_edit_is_not() {
    let Some(mut site) = site("reload") else {
        return;
    };
    let client = ok(site.lab.client("client", MAC));
    ok(site.edit(&with_kvm44("10.77.0.44")));
    wait_address(&site, &client, "10.77.0.44");

    ok(site.edit(&with_kvm44("10.77.0.45")));
    ok(site.daemon.signal(Signal::SIGHUP));
    wait_address(&site, &client, "10.77.0.45");

    let fault = "10.78.0.46";
    ok(site.edit(&with_kvm44(fault)));
    ok(site.daemon.signal(Signal::SIGHUP));
    ok(site.daemon.wait_for(fault, Duration::from_secs(10)));
    wait_address(&site, &client, "10.77.0.45");
}

/// Sockets are bound at the start alone: an edit that needs another one is not half served.
#[test]
fn dhcp_that_is_switched_on_by_an_edit_needs_a_restart_and_is_said_to() {
    let off = INVENTORY.replace("dhcp: server", "dhcp: \"off\"");
    let Some(mut site) = site_with("unbound", &off) else {
        return;
    };
    ok(site.edit(INVENTORY));
    ok(site.daemon.wait_for(
        "DHCP on boot0 is not served since the start: restart the daemon",
        Duration::from_secs(10),
    ));
}

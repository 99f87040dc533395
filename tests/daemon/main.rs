//! The daemon in a network namespace, asked by the clients that people really use.
//!
//! Every test has a lab of its own, so they may run at the same time. Needs root, and the clients:
//! udhcpc, isc-dhcp-client, dhcpcd, tftp-hpa, atftp, curl.
#![allow(missing_docs)]

mod addressing;
mod answers;
mod api;
mod approve;
mod broken;
mod clients;
mod datagrams;
mod dhcp;
mod discover;
mod enrol;
mod fake;
mod files;
mod host_files;
mod hostile;
mod http;
mod inventory_boot;
mod journal;
mod kept;
mod leases;
mod lists;
mod manager;
mod menus;
mod metrics;
mod networkd;
mod page;
mod process;
mod relays;
mod reload;
mod scribe;
mod story;
mod syslog;
mod tls;
mod unit;

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../openmetrics/mod.rs"]
mod openmetrics;
#[path = "../properties/dhcp.rs"]
#[allow(dead_code)]
mod property;

/// A daemon on an inventory, with a data directory of small artificial files.
///
/// `None` (and said so) where there is no root.
fn site(name: &str) -> Option<lab::Site> {
    site_with(name, fake::INVENTORY)
}

/// The same on another inventory.
fn site_with(name: &str, inventory: &str) -> Option<lab::Site> {
    let lab = lab::Lab::for_test(name)?;
    let data = fake::data_dir(lab.dir()).unwrap_or_else(|error| panic!("{error}"));
    let logs = lab.dir().join("logs");
    let site = lab::Site::start(lab, inventory, &data, &logs);
    Some(site.unwrap_or_else(|error| panic!("{error}")))
}

/// The same started by other words (`env NAME=VALUE`, `setpriv …`), and not waited for; with whatever these words need.
fn site_by<T>(
    name: &str,
    by: impl FnOnce(&lab::Lab) -> (T, Vec<String>),
) -> Option<(lab::Site, T)> {
    let lab = lab::Lab::for_test(name)?;
    let (data, logs) = (ok(fake::data_dir(lab.dir())), lab.dir().join("logs"));
    ok(std::fs::create_dir_all(&logs).map_err(lab::io_error("create", &logs)));
    let inventory = lab.dir().join("hosts.yaml");
    let written = std::fs::write(&inventory, fake::INVENTORY);
    ok(written.map_err(lab::io_error("write", &inventory)));
    let (needed, by) = by(&lab);
    let by: Vec<_> = by.iter().map(String::as_str).collect();
    let log = logs.join("daemon.log");
    let daemon = ok(lab::Daemon::spawn_by(&lab, &inventory, &data, &log, &by));
    let site = lab::Site {
        daemon,
        inventory,
        data,
        logs,
        lab,
    };
    Some((site, needed))
}

/// Unwraps with the message that the lab's errors carry.
fn ok<T>(result: lab::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

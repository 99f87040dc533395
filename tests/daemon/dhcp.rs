//! Addresses: who gets which, and that it stays so.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::clients::{Program, lease};
use crate::lab::{APPLIANCE, Namespace, Result, Site};
use crate::{fake, ok, site, site_with};

const PROGRAMS: [Program; 3] = [Program::Udhcpc, Program::Dhclient, Program::Dhcpcd];

fn set_mac(client: &Namespace, mac: &str) -> Result<()> {
    client.ip(&["link", "set", "eth0", "down", "address", mac])?;
    client.ip(&["link", "set", "eth0", "up"]).map(|_| ())
}

fn in_pool(address: Ipv4Addr) -> bool {
    (Ipv4Addr::new(10, 77, 0, 100)..=Ipv4Addr::new(10, 77, 0, 199)).contains(&address)
}

#[test]
fn listed_clients_get_their_reservation() {
    let Some(site) = site("reserved") else { return };
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    for (number, program) in PROGRAMS.into_iter().enumerate() {
        ok(set_mac(
            &client,
            &format!("52:54:00:00:00:{:02x}", number + 1),
        ));
        let given = ok(lease(program, &client, site.lab.dir(), None));
        let reserved = format!("10.77.0.{}", 11 + number);
        assert_eq!(given.address.to_string(), reserved, "{program:?}");
        assert_eq!(given.server.to_string(), APPLIANCE, "{program:?}");
    }
}

/// Firmware, loader, initrd and system each send another client id (RFC 2132 9.14) from one MAC.
#[test]
fn the_mac_decides_whatever_the_client_id() {
    let Some(site) = site("clientid") else { return };
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    for (mac, listed) in [("52:54:00:00:00:01", true), ("52:54:00:00:00:51", false)] {
        ok(set_mac(&client, mac));
        let mut seen = Vec::new();
        for program in PROGRAMS {
            for id in [None, Some("0x3d:00aabbcc01"), Some("0x3d:ff00010203")] {
                // dhcpcd's own ids are of its making; one run of it is enough.
                if program == Program::Dhcpcd && id.is_some() {
                    continue;
                }
                seen.push(ok(lease(program, &client, site.lab.dir(), id)).address);
            }
        }
        assert!(
            seen.iter().all(|address| *address == seen[0]),
            "{mac}: {seen:?}"
        );
        assert_eq!(in_pool(seen[0]), !listed, "{mac}: {seen:?}");
    }
}

/// RFC 3442 routes, RFC 3397 search domains (not compressed), NTP, MTU: each by the names of each client.
#[test]
fn every_client_is_told_of_the_network_as_it_is_configured() {
    let Some(site) = site_with("told", &fake::telling()) else {
        return;
    };
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    let routes = "0.0.0.0/0 10.77.0.1 10.88.0.0/16 10.77.0.254 192.0.2.7/32 10.77.0.253";
    let domains = "lab.example.org example.org";
    let bytes = "0 10 77 0 1 16 10 88 10 77 0 254 32 192 0 2 7 10 77 0 253";
    for (program, names, search, routes) in [
        (
            Program::Udhcpc,
            [
                "search",
                "staticroutes",
                "ntpsrv",
                "mtu",
                "domain",
                "dns",
                "router",
            ],
            domains,
            routes,
        ),
        (
            Program::Dhclient,
            [
                "new_domain_search",
                "new_rfc3442_classless_static_routes",
                "new_ntp_servers",
                "new_interface_mtu",
                "new_domain_name",
                "new_domain_name_servers",
                "new_routers",
            ],
            "lab.example.org. example.org.",
            bytes,
        ),
        (
            Program::Dhcpcd,
            [
                "new_domain_search",
                "new_classless_static_routes",
                "new_ntp_servers",
                "new_interface_mtu",
                "new_domain_name",
                "new_domain_name_servers",
                "new_routers",
            ],
            domains,
            routes,
        ),
    ] {
        let given = ok(lease(program, &client, site.lab.dir(), None));
        let values = names.map(|name| given.told.get(name).map_or("", String::as_str));
        let expected = [
            search,
            routes,
            "10.77.0.3 10.77.0.4",
            "1400",
            "lab.example.org",
            "10.77.0.1",
            "10.77.0.1",
        ];
        assert_eq!(values, expected, "{program:?}: {:#?}", given.told);
    }
}

/// An option of more than 255 bytes comes in two (RFC 3396), to a client that says it has the room (option 57).
#[test]
fn a_long_list_of_search_domains_arrives_whole() {
    let domains: Vec<String> = (10..30)
        .map(|number| format!("rack{number}.lab.example.org"))
        .collect();
    let inventory = fake::telling().replace("lab.example.org, example.org", &domains.join(", "));
    let Some(site) = site_with("search", &inventory) else {
        return;
    };
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    let given = ok(lease(Program::Dhcpcd, &client, site.lab.dir(), None));
    let told = given.told.get("new_domain_search").map(String::as_str);
    assert_eq!(told, Some(&*domains.join(" ")), "{:#?}", given.told);
}

#[test]
fn leases_survive_a_kill_and_no_address_is_given_twice() {
    let Some(mut site) = site("kill") else { return };
    let client = ok(site.lab.client("client", "52:54:00:00:01:00"));
    let mut leases: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
    let mut take = |site: &Site, number: usize| {
        let mac = format!("52:54:00:00:01:{number:02x}");
        ok(set_mac(&client, &mac));
        let given = ok(lease(Program::Udhcpc, &client, site.lab.dir(), None));
        assert!(in_pool(given.address), "{given:?}");
        let before = leases.insert(given.address, mac.clone());
        let same = before.as_ref().is_none_or(|holder| *holder == mac);
        assert!(
            same,
            "{} was given to {before:?} and to {mac}",
            given.address
        );
        given.address
    };
    let first: Vec<_> = (0..6).map(|number| take(&site, number)).collect();
    ok(site.daemon.signal(nix::sys::signal::Signal::SIGKILL));
    ok(site.daemon.wait_exit(std::time::Duration::from_secs(5)));
    ok(site.restart());
    for number in 6..12 {
        take(&site, number);
    }
    for (number, address) in first.into_iter().enumerate() {
        assert_eq!(
            take(&site, number),
            address,
            "client {number} after the kill"
        );
    }
}

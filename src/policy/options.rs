//! The options of a reply.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::inventory::model::{Host, Network};
use crate::policy::boot_target::BootFile;
use crate::policy::client::{Asker, Client, Firmware};
use crate::wire::pxe;

/// Options by code, as bytes.
pub type Options = BTreeMap<u8, Vec<u8>>;

fn put_addresses(options: &mut Options, code: u8, addresses: &[Ipv4Addr]) {
    if !addresses.is_empty() {
        let bytes = addresses.iter().flat_map(Ipv4Addr::octets).collect();
        options.insert(code, bytes);
    }
}

fn put_text(options: &mut Options, code: u8, text: &str) {
    if !text.is_empty() {
        options.insert(code, text.as_bytes().to_vec());
    }
}

/// Domain names as DNS writes them (RFC 3397), without compression: every client reads that.
fn domain_names(names: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in names.iter().flat_map(|name| name.split('.').chain([""])) {
        // Labels have at most 63 bytes; the inventory took them.
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes
}

/// Classless routes (RFC 3442). A client that takes them ignores option 3, so the default route
/// is among them, and first.
fn classless_routes(network: &Network) -> Vec<u8> {
    let default = network
        .router
        .map(|router| (ipnet::Ipv4Net::default(), router));
    let routes = default.into_iter().chain(network.routes.iter().copied());
    let mut bytes = Vec::new();
    for (to, by) in routes {
        let significant = usize::from(to.prefix_len().div_ceil(8));
        bytes.push(to.prefix_len());
        bytes.extend_from_slice(&to.network().octets()[..significant]);
        bytes.extend_from_slice(&by.octets());
    }
    bytes
}

/// What every client of the network is told (RFC 2132 by number).
pub fn network_options(network: &Network, host: Option<&Host>) -> Options {
    let mut options = Options::new();
    put_addresses(&mut options, 1, &[network.subnet.netmask()]);
    put_addresses(&mut options, 3, network.router.as_slice());
    put_addresses(&mut options, 6, &network.dns);
    if let Some(host) = host {
        put_text(&mut options, 12, &host.name);
    }
    put_text(&mut options, 15, network.domain.as_deref().unwrap_or(""));
    if let Some(mtu) = network.mtu {
        options.insert(26, mtu.to_be_bytes().to_vec());
    }
    put_addresses(&mut options, 28, &[network.subnet.broadcast()]);
    put_addresses(&mut options, 42, &network.ntp);
    if !network.search.is_empty() {
        options.insert(119, domain_names(&network.search));
    }
    if !network.routes.is_empty() {
        options.insert(121, classless_routes(network));
    }
    for (code, data) in &network.options {
        options.insert(*code, data.clone());
    }
    options
}

/// Option 43 with the boot item that a boot server's client chose (71: type and layer), echoed
/// as PXE 2.1 §2.2.4 wants it; `None` where it chose none.
pub fn boot_item(vendor: &[u8]) -> Option<Vec<u8>> {
    let (_, item) = pxe::sub_options(vendor).find(|(code, _)| *code == 71)?;
    (item.len() == 4).then(|| [&[71, 4], item, &[255]].concat())
}

/// Lease time and its two timers (options 51, 58, 59), seconds.
pub fn put_lease_times(options: &mut Options, seconds: u32) {
    for (code, value) in [(51, seconds), (58, seconds / 2), (59, seconds / 8 * 7)] {
        options.insert(code, value.to_be_bytes().to_vec());
    }
}

/// What makes a client boot: 66 and 67, for iPXE 175, for UEFI HTTP boot 60.
///
/// PXE ROMs get neither 60 nor 43 from a full DHCP server: with 60 and without 43,
/// EDK2 goes looking for a boot server on port 4011 (`PxeBcDhcp4.c`).
pub fn put_boot_file(
    options: &mut Options,
    client: &Client,
    file: &BootFile<'_>,
    server: Ipv4Addr,
) {
    match file {
        BootFile::Url(url) => put_text(options, 67, url),
        BootFile::Tftp(name) => {
            put_text(options, 66, &server.to_string());
            // Some ROMs read 67 up to a NUL that need not be there (dnsmasq `--dhcp-boot`, EDK2).
            options.insert(67, [name.as_bytes(), b"\0"].concat());
        }
    }
    match client.asker {
        Asker::HttpBoot => put_text(options, 60, "HTTPClient"),
        Asker::Ipxe => {
            options.insert(175, pxe::NO_PXEDHCP.to_vec());
        }
        Asker::PxeRom if client.firmware == Some(Firmware::RaspberryPi) => {
            put_text(options, 60, "PXEClient");
            options.insert(43, pxe::RASPBERRY_PI_BOOT.to_vec());
        }
        Asker::PxeRom | Asker::Other => {}
    }
}

/// Where iPXE sends what it shows (option 7, RFC 2132 §3.9), if it is built with `CONSOLE_SYSLOG`, as its newer EFI builds
/// are. One that firmware loads goes by the answer that the firmware got, and asks for none of its own. What the
/// network's `options` say is left as it is.
pub fn put_log_server(options: &mut Options, server: Ipv4Addr) {
    options.entry(7).or_insert_with(|| server.octets().to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(keys: &str) -> Network {
        let text = format!("networks: {{boot: {{subnet: 10.77.0.0/24, {keys}}}}}\n");
        let (inventory, _) = crate::inventory::parse("hosts.yaml", &text).unwrap();
        (*inventory.networks["boot"]).clone()
    }

    #[test]
    fn routes_come_with_the_default_one_first() {
        let routes =
            "router: 10.77.0.1, routes: {10.88.0.0/16: 10.77.0.254, 192.0.2.7/32: 10.77.0.253}";
        let options = network_options(&network(routes), None);
        let expected = [
            &[0, 10, 77, 0, 1][..],
            &[16, 10, 88, 10, 77, 0, 254],
            &[32, 192, 0, 2, 7, 10, 77, 0, 253],
        ];
        assert_eq!(options[&121], expected.concat());
        assert_eq!(options[&3], [10, 77, 0, 1]);
    }

    #[test]
    fn search_domains_are_written_as_dns_does() {
        let options = network_options(&network("search: [lab.org, b]"), None);
        assert_eq!(options[&119], b"\x03lab\x03org\0\x01b\0");
    }

    #[test]
    fn any_option_goes_by_its_number() {
        let options = network_options(&network("options: {150: [10.77.0.5], 43: hex:01}"), None);
        assert_eq!(options[&150], [10, 77, 0, 5]);
        assert_eq!(options[&43], [1]);
    }
}

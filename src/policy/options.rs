//! The options of a reply.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::inventory::model::{Host, Network};
use crate::policy::boot_target::BootFile;
use crate::policy::client::{Asker, Client, Firmware};
use crate::wire::pxe;

type Options = BTreeMap<u8, Vec<u8>>;

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
    options
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

//! What a client boots: loader by firmware and profile, script URL for iPXE.

use std::net::Ipv4Addr;

use crate::inventory::model::{Loader, MacAddr};
use crate::policy::client::{Asker, Client, Firmware};

/// What to name as boot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootFile {
    /// A name below the TFTP root.
    Tftp(&'static str),
    /// A complete URL.
    Url(String),
}

/// Where the daemon can be reached by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The address on the client's side.
    pub address: Ipv4Addr,
    /// TCP port of the boot files and the API.
    pub http_port: u16,
}

impl Endpoint {
    /// `http://ADDRESS[:PORT]`, without the default port.
    pub fn base_url(self) -> String {
        match self.http_port {
            80 => format!("http://{}", self.address),
            port => format!("http://{}:{port}", self.address),
        }
    }

    /// Where iPXE finds the script of the machine with this MAC.
    pub fn script_url(self, mac: MacAddr) -> String {
        format!("{}/boot/{mac}/script.ipxe", self.base_url())
    }
}

/// Chooses the boot file; `None` where we have nothing that this client could run.
///
/// An iPXE that asks again gets its script and not the loader: sending the loader
/// would load iPXE from iPXE for ever.
pub fn boot_file(client: &Client, loader: Loader, endpoint: Endpoint) -> Option<BootFile> {
    match client.asker {
        Asker::Other => None,
        Asker::Ipxe if loader == Loader::Ipxe || !chainloads(client, loader) => {
            Some(BootFile::Url(endpoint.script_url(client.mac)))
        }
        Asker::HttpBoot => client.firmware.map(|firmware| {
            let file = loader_file(loader, firmware);
            BootFile::Url(format!("{}/files/loaders/{file}", endpoint.base_url()))
        }),
        Asker::PxeRom | Asker::Ipxe => client
            .firmware
            .map(|firmware| BootFile::Tftp(loader_file(loader, firmware))),
    }
}

/// Whether an iPXE in ROM is to load the profile's other loader.
///
/// UEFI clients of a PXELINUX profile get iPXE, which must then get its script.
fn chainloads(client: &Client, loader: Loader) -> bool {
    client
        .firmware
        .is_some_and(|firmware| effective(loader, firmware) != Loader::Ipxe)
}

/// The loader that really runs: PXELINUX has no UEFI build that is fit for use.
fn effective(loader: Loader, firmware: Firmware) -> Loader {
    match (loader, firmware) {
        (Loader::Pxelinux, Firmware::UefiX64) => Loader::Ipxe,
        (loader, _) => loader,
    }
}

/// The loader's file in `loaders/`, served by TFTP at the top.
///
/// `snponly.efi` drives the NIC through the firmware that booted it, whatever the NIC.
pub fn loader_file(loader: Loader, firmware: Firmware) -> &'static str {
    match (effective(loader, firmware), firmware) {
        (Loader::Ipxe, Firmware::Bios) => "undionly.kpxe",
        (Loader::Ipxe, Firmware::UefiX64) => "snponly.efi",
        (Loader::Pxelinux, _) => "pxelinux.0",
        (Loader::Grub, Firmware::Bios) => "grub-bios.pxe",
        (Loader::Grub, Firmware::UefiX64) => "shimx64.efi",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: Endpoint = Endpoint {
        address: Ipv4Addr::new(10, 77, 0, 1),
        http_port: 80,
    };

    fn client(asker: Asker, firmware: Firmware) -> Client {
        Client {
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            asker,
            archs: vec![],
            firmware: Some(firmware),
        }
    }

    #[test]
    fn ipxe_gets_its_script_and_never_itself() {
        for firmware in [Firmware::Bios, Firmware::UefiX64] {
            let file = boot_file(&client(Asker::Ipxe, firmware), Loader::Ipxe, ENDPOINT);
            let url = "http://10.77.0.1/boot/52:54:00:00:00:01/script.ipxe";
            assert_eq!(file, Some(BootFile::Url(url.into())));
        }
        let uefi = client(Asker::Ipxe, Firmware::UefiX64);
        assert!(matches!(
            boot_file(&uefi, Loader::Pxelinux, ENDPOINT),
            Some(BootFile::Url(_))
        ));
    }

    #[test]
    fn an_ipxe_rom_can_load_another_loader() {
        let rom = client(Asker::Ipxe, Firmware::Bios);
        let file = boot_file(&rom, Loader::Pxelinux, ENDPOINT);
        assert_eq!(file, Some(BootFile::Tftp("pxelinux.0")));
    }

    #[test]
    fn http_boot_gets_a_url() {
        let file = boot_file(
            &client(Asker::HttpBoot, Firmware::UefiX64),
            Loader::Grub,
            ENDPOINT,
        );
        let url = "http://10.77.0.1/files/loaders/shimx64.efi";
        assert_eq!(file, Some(BootFile::Url(url.into())));
    }

    #[test]
    fn a_system_that_does_not_boot_gets_nothing() {
        let os = client(Asker::Other, Firmware::Bios);
        assert_eq!(boot_file(&os, Loader::Ipxe, ENDPOINT), None);
    }
}

//! What a client boots: loader by firmware and profile, script URL for iPXE.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use crate::inventory::model::{Loader, LoaderFiles, MacAddr};
use crate::policy::client::{Asker, Client, Firmware};

/// What to name as boot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootFile<'a> {
    /// A name below the TFTP root.
    Tftp(&'a str),
    /// A complete URL.
    Url(String),
}

impl BootFile<'_> {
    /// The name or the URL.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tftp(name) => name,
            Self::Url(url) => url,
        }
    }
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

/// What there is to choose a loader from.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// What the profile says.
    pub loader: Loader,
    /// Files that the host names for kinds of firmware.
    pub host: Option<&'a LoaderFiles>,
    /// Files that the network names; the host's win.
    pub network: &'a LoaderFiles,
    /// The names in `loaders/`.
    pub there: &'a BTreeSet<String>,
}

/// A client that wants to boot and that nothing in `loaders/` runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoLoader {
    /// What it says that it is, in words.
    pub architecture: String,
    /// What it can execute, if we know.
    pub firmware: Option<Firmware>,
    /// The file that would do, or the first of several.
    pub wanted: Option<&'static str>,
    /// It boots by HTTP, and `wanted` would load a GRUB that can fetch nothing so.
    pub by_http: bool,
}

impl fmt::Display for NoLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            architecture,
            firmware,
            wanted,
            by_http,
        } = self;
        match (firmware, wanted) {
            (Some(firmware), Some(file)) if *by_http => write!(
                f,
                "it boots by HTTP, and the GRUB behind {file} has no module for that (Debian's signed build) and would stop at its prompt: have the firmware boot by PXE, or name a loader that can with `loaders: {{{}: FILE}}`",
                firmware.word()
            ),
            (Some(Firmware::RaspberryPi), Some(file)) => write!(
                f,
                "it is a Raspberry Pi, and loaders/ has no {file}: copy the firmware's files there"
            ),
            (Some(firmware), Some(file)) => write!(
                f,
                "nothing in loaders/ runs on {architecture}: `make loaders` gets what Debian has; else put an iPXE or GRUB build there as {file}, or name one with `loaders: {{{}: FILE}}` of its network",
                firmware.word()
            ),
            _ => write!(
                f,
                "no loader is known for {architecture}: set its firmware to boot by PXE or HTTP as BIOS or UEFI"
            ),
        }
    }
}

/// Chooses the boot file; `None` for who does not boot.
///
/// An iPXE that asks again gets its script and not the loader: sending the loader
/// would load iPXE from iPXE for ever.
///
/// # Errors
/// [`NoLoader`] where we have nothing that this client could run.
pub fn boot_file<'a>(
    client: &Client,
    choice: &Choice<'a>,
    endpoint: Endpoint,
) -> Result<Option<BootFile<'a>>, NoLoader> {
    let script = || BootFile::Url(endpoint.script_url(client.mac));
    match client.asker {
        Asker::Other => Ok(None),
        Asker::Ipxe => Ok(Some(
            choice.chainload(client).map_or_else(script, BootFile::Tftp),
        )),
        Asker::PxeRom => Ok(Some(BootFile::Tftp(choice.file(client)?))),
        Asker::HttpBoot => {
            let file = choice.file_by_http(client)?;
            let url = format!("{}/files/loaders/{file}", endpoint.base_url());
            Ok(Some(BootFile::Url(url)))
        }
    }
}

impl<'a> Choice<'a> {
    /// The host's or the network's own file for the firmware.
    fn named(&self, firmware: Firmware) -> Option<&'a str> {
        let host = self.host.and_then(|files| files.get(&firmware));
        let file = host.or_else(|| self.network.get(&firmware))?;
        Some(file.value.as_str())
    }

    fn first_there(&self, loader: Loader, firmware: Firmware) -> Option<&'static str> {
        let mut files = loader_files(loader, firmware).iter().copied();
        files.find(|file| self.there.contains(*file))
    }

    fn file(&self, client: &Client) -> Result<&'a str, NoLoader> {
        let none = |wanted| NoLoader {
            architecture: client.architecture(),
            firmware: client.firmware,
            wanted,
            by_http: false,
        };
        let firmware = client.firmware.ok_or_else(|| none(None))?;
        let file = self.named(firmware);
        file.or_else(|| self.first_there(self.loader, firmware))
            .ok_or_else(|| none(loader_files(self.loader, firmware).first().copied()))
    }

    /// As [`Self::file`], for who fetches it by HTTP. UEFI then tells its address in the device path alone, and GRUB
    /// sets out to fetch its config by HTTP: whether a build that the operator names can is theirs to know.
    fn file_by_http(&self, client: &Client) -> Result<&'a str, NoLoader> {
        let file = self.file(client)?;
        let firmware = client.firmware;
        let unnamed = firmware.filter(|firmware| self.named(*firmware).is_none());
        let ours = unnamed.and_then(|firmware| self.first_there(self.loader, firmware));
        match ours.filter(|file| is_grub(file)) {
            None => Ok(file),
            wanted => Err(NoLoader {
                architecture: client.architecture(),
                firmware,
                wanted,
                by_http: true,
            }),
        }
    }

    /// The other loader that an iPXE in ROM is to load, if the profile wants one.
    ///
    /// A file that the operator names may be an iPXE itself, which must then get its script; so
    /// must that which UEFI clients of a PXELINUX profile get.
    fn chainload(&self, client: &Client) -> Option<&'static str> {
        let firmware = client.firmware?;
        if self.named(firmware).is_some() || effective(self.loader, firmware) == Loader::Ipxe {
            return None;
        }
        self.first_there(self.loader, firmware)
    }

    /// In words, that the client gets another loader than its profile says, for want of a build.
    pub fn in_place_of(&self, client: &Client) -> Option<String> {
        let firmware = client.firmware?;
        let is_rom = matches!(client.asker, Asker::PxeRom | Asker::HttpBoot);
        if !is_rom || self.named(firmware).is_some() {
            return None;
        }
        let [first, .., last] = loader_files(self.loader, firmware) else {
            return None;
        };
        let fallback = self.first_there(self.loader, firmware) == Some(*last);
        fallback.then(|| format!("GRUB, for loaders/ has no iPXE for {firmware}, {first}"))
    }
}

/// Whether a boot file is GRUB, or shim, which loads it.
pub fn is_grub(file: &str) -> bool {
    file.starts_with("shim") || file.starts_with("grub")
}

/// The loader that really runs: PXELINUX has no UEFI build that is fit for use.
fn effective(loader: Loader, firmware: Firmware) -> Loader {
    match (loader, firmware) {
        (Loader::Pxelinux, Firmware::Bios) => Loader::Pxelinux,
        (Loader::Pxelinux, _) => Loader::Ipxe,
        (loader, _) => loader,
    }
}

/// The loader's files in `loaders/`, served by TFTP at the top: the first that is there is sent.
///
/// `snponly.efi` drives the NIC through the firmware that booted it, whatever the NIC. Debian
/// builds iPXE for x86 alone; elsewhere shim and GRUB, which it has, take its place.
pub fn loader_files(loader: Loader, firmware: Firmware) -> &'static [&'static str] {
    use Firmware as F;
    let grub = effective(loader, firmware) == Loader::Grub;
    match firmware {
        F::Bios => match loader {
            Loader::Ipxe => &["undionly.kpxe"],
            Loader::Pxelinux => &["pxelinux.0"],
            Loader::Grub => &["grub-bios.pxe"],
        },
        F::UefiX64 if grub => &["shimx64.efi"],
        F::UefiX64 => &["snponly.efi"],
        F::UefiIa32 if grub => &["shimia32.efi"],
        F::UefiIa32 => &["snponly-ia32.efi", "shimia32.efi"],
        F::UefiArm64 if grub => &["shimaa64.efi"],
        F::UefiArm64 => &["snponly-arm64.efi", "shimaa64.efi"],
        F::UefiArm32 if grub => &["grubarm.efi"],
        F::UefiArm32 => &["snponly-arm32.efi", "grubarm.efi"],
        F::UefiRiscv64 if grub => &["grubriscv64.efi"],
        F::UefiRiscv64 => &["snponly-riscv64.efi", "grubriscv64.efi"],
        F::UefiLoongArch64 if grub => &["grubloongarch64.efi"],
        F::UefiLoongArch64 => &["snponly-loongarch64.efi", "grubloongarch64.efi"],
        // Its ROM knows what to ask for, whatever is named here.
        F::RaspberryPi => &["bootcode.bin", "start4.elf"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::model::Sourced;

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

    fn names(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    fn files(firmware: Firmware, name: &str) -> LoaderFiles {
        let file = Sourced {
            value: name.to_owned(),
            origin: None,
        };
        LoaderFiles::from([(firmware, file)])
    }

    /// The boot file where Debian's loaders are there and nothing else is named.
    fn plain(asker: Asker, firmware: Firmware, loader: Loader) -> Result<String, NoLoader> {
        let there = names(&[
            "undionly.kpxe",
            "snponly.efi",
            "pxelinux.0",
            "grub-bios.pxe",
            "shimx64.efi",
            "shimaa64.efi",
        ]);
        let none = LoaderFiles::new();
        let choice = Choice {
            loader,
            host: None,
            network: &none,
            there: &there,
        };
        let file = boot_file(&client(asker, firmware), &choice, ENDPOINT)?;
        Ok(file.map_or(String::new(), |file| file.as_str().to_owned()))
    }

    const SCRIPT: &str = "http://10.77.0.1/boot/52:54:00:00:00:01/script.ipxe";

    #[test]
    fn each_firmware_gets_its_loader() {
        use Loader::{Grub, Ipxe, Pxelinux};
        for (firmware, loader, file) in [
            (Firmware::Bios, Ipxe, "undionly.kpxe"),
            (Firmware::Bios, Pxelinux, "pxelinux.0"),
            (Firmware::Bios, Grub, "grub-bios.pxe"),
            (Firmware::UefiX64, Ipxe, "snponly.efi"),
            (Firmware::UefiX64, Pxelinux, "snponly.efi"),
            (Firmware::UefiX64, Grub, "shimx64.efi"),
            (Firmware::UefiArm64, Ipxe, "shimaa64.efi"),
            (Firmware::UefiArm64, Grub, "shimaa64.efi"),
        ] {
            let got = plain(Asker::PxeRom, firmware, loader);
            assert_eq!(got, Ok(file.into()), "{firmware}, {loader:?}");
        }
    }

    #[test]
    fn what_nothing_runs_on_is_named_with_the_next_step() {
        for (firmware, words) in [
            (Firmware::UefiRiscv64, "snponly-riscv64.efi"),
            (Firmware::UefiIa32, "loaders: {uefi-ia32: FILE}"),
            (Firmware::RaspberryPi, "bootcode.bin"),
        ] {
            let refused = plain(Asker::PxeRom, firmware, Loader::Ipxe).unwrap_err();
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }

    #[test]
    fn ipxe_gets_its_script_and_never_itself() {
        for firmware in [Firmware::Bios, Firmware::UefiX64, Firmware::UefiRiscv64] {
            assert_eq!(
                plain(Asker::Ipxe, firmware, Loader::Ipxe),
                Ok(SCRIPT.into())
            );
        }
        let uefi = plain(Asker::Ipxe, Firmware::UefiX64, Loader::Pxelinux);
        assert_eq!(uefi, Ok(SCRIPT.into()));
    }

    #[test]
    fn an_ipxe_rom_can_load_another_loader() {
        let file = plain(Asker::Ipxe, Firmware::Bios, Loader::Pxelinux);
        assert_eq!(file, Ok("pxelinux.0".into()));
    }

    #[test]
    fn http_boot_gets_a_url_and_no_grub_that_stops_there() {
        let url = "http://10.77.0.1/files/loaders/snponly.efi".to_owned();
        let ipxe = plain(Asker::HttpBoot, Firmware::UefiX64, Loader::Ipxe);
        assert_eq!(ipxe, Ok(url));
        for (firmware, loader, words) in [
            (Firmware::UefiX64, Loader::Grub, "behind shimx64.efi"),
            (Firmware::UefiArm64, Loader::Ipxe, "behind shimaa64.efi"),
        ] {
            let refused = plain(Asker::HttpBoot, firmware, loader).unwrap_err();
            assert!(refused.to_string().contains(words), "{refused}");
        }
        let none = LoaderFiles::new();
        let own = files(Firmware::UefiX64, "shimx64.efi");
        let choice = Choice {
            loader: Loader::Grub,
            host: Some(&own),
            network: &none,
            there: &names(&["shimx64.efi"]),
        };
        let client = client(Asker::HttpBoot, Firmware::UefiX64);
        let file = boot_file(&client, &choice, ENDPOINT).unwrap().unwrap();
        assert_eq!(file.as_str(), "http://10.77.0.1/files/loaders/shimx64.efi");
    }

    #[test]
    fn a_system_that_does_not_boot_gets_nothing() {
        let os = plain(Asker::Other, Firmware::Bios, Loader::Ipxe);
        assert_eq!(os, Ok(String::new()));
    }

    #[test]
    fn the_hosts_file_wins_over_the_networks_and_both_over_the_profiles() {
        let there = names(&["snponly.efi"]);
        let network = files(Firmware::UefiX64, "ipxe.efi");
        let host = files(Firmware::UefiX64, "shimx64.efi");
        let mut choice = Choice {
            loader: Loader::Grub,
            host: None,
            network: &network,
            there: &there,
        };
        let rom = client(Asker::PxeRom, Firmware::UefiX64);
        let file = |choice: &Choice<'_>, client| {
            let file = boot_file(client, choice, ENDPOINT).unwrap();
            file.map(|file| file.as_str().to_owned())
        };
        assert_eq!(file(&choice, &rom).as_deref(), Some("ipxe.efi"));
        // It is an iPXE: what it asks for next is its script, though the profile says GRUB.
        let ipxe = client(Asker::Ipxe, Firmware::UefiX64);
        assert_eq!(file(&choice, &ipxe).as_deref(), Some(SCRIPT));
        choice.host = Some(&host);
        assert_eq!(file(&choice, &rom).as_deref(), Some("shimx64.efi"));
    }

    #[test]
    fn another_loader_than_the_profiles_is_said() {
        let none = LoaderFiles::new();
        let arm = client(Asker::PxeRom, Firmware::UefiArm64);
        let said = |there: &BTreeSet<String>, loader| {
            let choice = Choice {
                loader,
                host: None,
                network: &none,
                there,
            };
            choice.in_place_of(&arm)
        };
        let words = said(&names(&["shimaa64.efi"]), Loader::Ipxe).unwrap();
        assert!(words.contains("no iPXE for UEFI arm64"), "{words}");
        let both = names(&["shimaa64.efi", "snponly-arm64.efi"]);
        assert_eq!(said(&both, Loader::Ipxe), None);
        assert_eq!(said(&both, Loader::Grub), None);
    }
}

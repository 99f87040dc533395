//! Who is asking: firmware, iPXE, or an operating system.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::inventory::model::MacAddr;
use crate::wire::dhcp::Request;
use crate::wire::pxe::{self, ClientArch};

pub use crate::inventory::model::Firmware;

/// The first architecture of option 93 that is known to be some firmware's (IANA "Processor
/// Architecture Types").
///
/// 7 and 9 are both x64 UEFI: IANA and the firmware in the field disagree (RFC 4578 errata),
/// so 16 and 17 are too. All Raspberry Pis but the newest call themselves BIOS.
fn firmware_of(archs: &[ClientArch], mac: MacAddr) -> Option<Firmware> {
    archs.iter().find_map(|arch| match arch.0 {
        0 if pxe::is_raspberry_pi(mac.0) => Some(Firmware::RaspberryPi),
        0 | 20 => Some(Firmware::Bios),
        6 | 15 => Some(Firmware::UefiIa32),
        7 | 9 | 16 | 17 => Some(Firmware::UefiX64),
        10 | 18 => Some(Firmware::UefiArm32),
        11 | 19 => Some(Firmware::UefiArm64),
        27 | 28 => Some(Firmware::UefiRiscv64),
        39 | 40 => Some(Firmware::UefiLoongArch64),
        41 => Some(Firmware::RaspberryPi),
        _ => None,
    })
}

/// What kind of program sent the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asker {
    /// A PXE ROM or UEFI PXE (vendor class `PXEClient`, RFC 4578).
    PxeRom,
    /// UEFI HTTP boot (vendor class `HTTPClient`, UEFI 2.10 §24.7).
    HttpBoot,
    /// iPXE (user class), which takes a script.
    Ipxe,
    /// Anything that does not boot from the network: an operating system, an initrd, a guest.
    Other,
}

/// The sender of a request, as far as the answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Hardware address.
    pub mac: MacAddr,
    /// Which program asks.
    pub asker: Asker,
    /// Every architecture that it named.
    pub archs: Vec<ClientArch>,
    /// What it can execute; `None` where option 93 is missing or unknown to us.
    pub firmware: Option<Firmware>,
}

impl Client {
    /// Reads the sender off its packet.
    pub fn of(request: &Request) -> Self {
        let archs = request.client_archs();
        let asker = if pxe::is_ipxe(request.user_class()) {
            Asker::Ipxe
        } else if request.vendor_class().starts_with(b"PXEClient") {
            Asker::PxeRom
        } else if request.vendor_class().starts_with(b"HTTPClient") {
            Asker::HttpBoot
        } else {
            Asker::Other
        };
        let firmware = if archs.is_empty() && asker == Asker::PxeRom {
            // Old ROMs that omit option 93 are BIOS (RFC 4578 requires it of everyone else).
            Some(Firmware::Bios)
        } else {
            firmware_of(&archs, request.mac)
        };
        Self {
            mac: request.mac,
            asker,
            archs,
            firmware,
        }
    }

    /// Its architecture in words.
    pub fn architecture(&self) -> String {
        let words: Vec<_> = self.archs.iter().map(ClientArch::to_string).collect();
        match words.as_slice() {
            [] => String::from("a client that names no architecture (option 93)"),
            words => words.join(", "),
        }
    }

    /// Whether it wants something to boot.
    pub fn boots(&self) -> bool {
        self.asker != Asker::Other
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.asker {
            Asker::PxeRom => "PXE",
            Asker::HttpBoot => "UEFI HTTP boot",
            Asker::Ipxe => "iPXE",
            Asker::Other => return f.write_str("no network boot"),
        };
        f.write_str(who)?;
        self.archs
            .first()
            .map_or(Ok(()), |arch| write!(f, ", {arch}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_in_the_field_has_its_firmware() {
        let of = |arch, mac: [u8; 6]| firmware_of(&[ClientArch(arch)], MacAddr(mac));
        let pc = [0x52, 0x54, 0, 0, 0, 1];
        for (arch, firmware) in [
            (0, Some(Firmware::Bios)),
            (6, Some(Firmware::UefiIa32)),
            (7, Some(Firmware::UefiX64)),
            (9, Some(Firmware::UefiX64)),
            (10, Some(Firmware::UefiArm32)),
            (11, Some(Firmware::UefiArm64)),
            (15, Some(Firmware::UefiIa32)),
            (16, Some(Firmware::UefiX64)),
            (17, Some(Firmware::UefiX64)),
            (18, Some(Firmware::UefiArm32)),
            (19, Some(Firmware::UefiArm64)),
            (20, Some(Firmware::Bios)),
            (27, Some(Firmware::UefiRiscv64)),
            (39, Some(Firmware::UefiLoongArch64)),
            (41, Some(Firmware::RaspberryPi)),
            (2, None),
            (14, None),
            (999, None),
        ] {
            assert_eq!(of(arch, pc), firmware, "{arch}");
        }
        let pi = [0xdc, 0xa6, 0x32, 1, 2, 3];
        assert_eq!(of(0, pi), Some(Firmware::RaspberryPi));
        // Its UEFI port and its U-Boot are arm64 like others.
        assert_eq!(of(11, pi), Some(Firmware::UefiArm64));
    }

    #[test]
    fn the_first_known_architecture_of_a_list_counts() {
        let archs = [ClientArch(999), ClientArch(9), ClientArch(0)];
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
        assert_eq!(firmware_of(&archs, mac), Some(Firmware::UefiX64));
    }
}

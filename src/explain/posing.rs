//! What a machine is taken for that asks in an explanation.

use std::str::FromStr;

use crate::inventory::model::Firmware;
use crate::policy::architecture::Architecture;
use crate::policy::client::Asker;
use crate::render::ConfigKind;

/// The program that asks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posing {
    /// Firmware, or an iPXE in ROM.
    Program(Asker, Firmware),
    /// A loader that is there already, however it came.
    Loader(ConfigKind),
}

/// The names are told in the error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "bios, uefi-x64, uefi-ia32, uefi-arm64, uefi-arm32, uefi-riscv64, uefi-loongarch64 or raspberry-pi; with -http for UEFI HTTP boot (uefi-http: x64), with -ipxe for iPXE in ROM (ipxe: BIOS); or a loader that is there already: grub, pxelinux"
)]
pub struct BadPosing;

impl FromStr for Posing {
    type Err = BadPosing;

    fn from_str(text: &str) -> Result<Self, BadPosing> {
        let whole = match text {
            "grub" => return Ok(Self::Loader(ConfigKind::Grub)),
            "pxelinux" => return Ok(Self::Loader(ConfigKind::Pxelinux)),
            "ipxe" => "bios-ipxe",
            "uefi" => "uefi-x64",
            "http" | "uefi-http" => "uefi-x64-http",
            other => other,
        };
        let (word, asker) = if let Some(word) = whole.strip_suffix("-http") {
            (word, Asker::HttpBoot)
        } else if let Some(word) = whole.strip_suffix("-ipxe") {
            (word, Asker::Ipxe)
        } else {
            (whole, Asker::PxeRom)
        };
        let firmware = Firmware::ALL.into_iter().find(|one| one.word() == word);
        let firmware = firmware.filter(|one| {
            asker != Asker::HttpBoot || !matches!(one, Firmware::Bios | Firmware::RaspberryPi)
        });
        firmware
            .map(|one| Self::Program(asker, one))
            .ok_or(BadPosing)
    }
}

impl Posing {
    /// Of a machine that is told nothing of: UEFI that runs its kernel.
    pub fn likely(kernel: Option<Architecture>) -> Self {
        let fits = |one: &Firmware| kernel.is_none_or(|kernel| kernel.runs_on(*one));
        let likely = [
            Firmware::UefiX64,
            Firmware::UefiArm64,
            Firmware::UefiRiscv64,
            Firmware::UefiLoongArch64,
        ];
        let firmware = likely.into_iter().find(fits);
        Self::Program(Asker::PxeRom, firmware.unwrap_or(Firmware::UefiX64))
    }
}

/// What such firmware writes into option 93 (IANA "Processor Architecture Types"), by PXE and by HTTP.
pub(super) fn architecture(firmware: Firmware, asker: Asker) -> u16 {
    let (pxe, http) = match firmware {
        Firmware::Bios => (0, 20),
        Firmware::UefiIa32 => (6, 15),
        Firmware::UefiX64 => (7, 16),
        Firmware::UefiArm32 => (10, 18),
        Firmware::UefiArm64 => (11, 19),
        Firmware::UefiRiscv64 => (27, 28),
        Firmware::UefiLoongArch64 => (39, 40),
        Firmware::RaspberryPi => (41, 41),
    };
    if asker == Asker::HttpBoot { http } else { pxe }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::model::MacAddr;
    use crate::policy::client::Client;

    #[test]
    fn every_name_is_read_and_taken_for_what_it_says() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        for firmware in Firmware::ALL {
            for (suffix, asker) in [
                ("", Asker::PxeRom),
                ("-ipxe", Asker::Ipxe),
                ("-http", Asker::HttpBoot),
            ] {
                let Ok(posing) = format!("{}{suffix}", firmware.word()).parse::<Posing>() else {
                    assert_eq!(asker, Asker::HttpBoot);
                    continue;
                };
                assert_eq!(posing, Posing::Program(asker, firmware));
                let request = super::super::scene::discover(mac, asker, firmware);
                let client = Client::of(&request);
                assert_eq!((client.asker, client.firmware), (asker, Some(firmware)));
            }
        }
        assert_eq!(
            "uefi-http".parse(),
            Ok(Posing::Program(Asker::HttpBoot, Firmware::UefiX64))
        );
        assert_eq!("bios-http".parse::<Posing>(), Err(BadPosing));
        assert_eq!("efi".parse::<Posing>(), Err(BadPosing));
    }
}

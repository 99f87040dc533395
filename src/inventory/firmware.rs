//! What firmware can execute, and the loader files that are named for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::faults::Faults;
use super::fields::Fields;
use super::model::Sourced;
use super::names;
use super::tree::At;

/// What a machine's firmware can execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Firmware {
    /// x86 BIOS: PXE network bootstrap programs.
    Bios,
    /// 32-bit x86 UEFI, on early Atoms and tablets.
    UefiIa32,
    /// x64 UEFI.
    UefiX64,
    /// 32-bit Arm UEFI.
    UefiArm32,
    /// 64-bit Arm UEFI.
    UefiArm64,
    /// 64-bit RISC-V UEFI.
    UefiRiscv64,
    /// 64-bit LoongArch UEFI.
    UefiLoongArch64,
    /// The Raspberry Pi's boot ROM or EEPROM, which loads its own firmware and no loader.
    RaspberryPi,
}

impl Firmware {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Bios,
        Self::UefiIa32,
        Self::UefiX64,
        Self::UefiArm32,
        Self::UefiArm64,
        Self::UefiRiscv64,
        Self::UefiLoongArch64,
        Self::RaspberryPi,
    ];

    /// Its key in `loaders:` of networks and hosts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::UefiIa32 => "uefi-ia32",
            Self::UefiX64 => "uefi-x64",
            Self::UefiArm32 => "uefi-arm32",
            Self::UefiArm64 => "uefi-arm64",
            Self::UefiRiscv64 => "uefi-riscv64",
            Self::UefiLoongArch64 => "uefi-loongarch64",
            Self::RaspberryPi => "raspberry-pi",
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::UefiIa32 => "UEFI IA32",
            Self::UefiX64 => "UEFI x64",
            Self::UefiArm32 => "UEFI arm32",
            Self::UefiArm64 => "UEFI arm64",
            Self::UefiRiscv64 => "UEFI RISC-V 64",
            Self::UefiLoongArch64 => "UEFI LoongArch 64",
            Self::RaspberryPi => "Raspberry Pi",
        })
    }
}

/// Files of `loaders/` that a network or a host names for kinds of firmware.
pub type LoaderFiles = BTreeMap<Firmware, Sourced<String>>;

/// [`LoaderFiles`] as written.
pub(super) type Written = Vec<(Firmware, At<String>)>;

/// Reads `loaders: {uefi-x64: ipxe.efi}`.
pub(super) fn read(fields: &mut Fields<'_, '_>, faults: &mut Faults) -> Written {
    let Some(mut map) = fields.map("loaders", faults) else {
        return Vec::new();
    };
    let mut named = Vec::new();
    for firmware in Firmware::ALL {
        let file = map.get(firmware.word(), faults, names::file_name);
        named.extend(file.map(|file| (firmware, file)));
    }
    map.finish(faults);
    named
}

/// The same with their places.
pub(super) fn sourced(written: &Written, layer: &Arc<str>, faults: &Faults) -> LoaderFiles {
    let named = written.iter().cloned();
    named
        .map(|(firmware, at)| (firmware, faults.sourced(at, layer)))
        .collect()
}

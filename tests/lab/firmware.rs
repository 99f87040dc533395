//! The firmware of virtual servers.

use std::path::Path;

use super::error::{LabError, Result};

/// Firmware of a virtual server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS; its PXE is the NIC's option ROM, which is iPXE in QEMU.
    Bios,
    /// OVMF (EDK2) without Secure Boot, with EDK2's own PXE: the NIC has no ROM.
    UefiX64,
    /// The same, with the keys of Microsoft enrolled and Secure Boot enforced.
    SecureX64,
}

impl Firmware {
    /// What it is, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Bios => "BIOS (SeaBIOS, iPXE in the NIC's ROM)",
            Self::UefiX64 => "UEFI x64 (EDK2/OVMF, its own PXE)",
            Self::SecureX64 => "UEFI x64 (EDK2/OVMF), Secure Boot enforced",
        }
    }

    /// QEMU's machine. Only System Management Mode may write the variables that hold the keys.
    pub(super) fn machine(self) -> &'static str {
        match self {
            Self::Bios | Self::UefiX64 => {
                "qemu-system-x86_64 -machine q35,graphics=off -accel tcg,thread=multi -vga std"
            }
            Self::SecureX64 => {
                "qemu-system-x86_64 -machine q35,graphics=off,smm=on -accel tcg,thread=multi -vga std \
                 -global driver=cfi.pflash01,property=secure,value=on -global ICH9-LPC.disable_s3=1"
            }
        }
    }

    /// Its code, and the template of its variables; none where QEMU brings it along.
    pub(super) fn flash(self) -> Result<Option<(&'static Path, &'static Path)>> {
        let (code, variables) = match self {
            Self::Bios => return Ok(None),
            Self::UefiX64 => (
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.fd",
            ),
            Self::SecureX64 => (
                "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
            ),
        };
        let (code, variables) = (Path::new(code), Path::new(variables));
        if code.exists() && variables.exists() {
            return Ok(Some((code, variables)));
        }
        Err(LabError::Missing {
            what: code.display().to_string(),
            help: "install the package ovmf".to_owned(),
        })
    }
}

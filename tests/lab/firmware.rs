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
    /// AAVMF (EDK2 for 64-bit Arm), with EDK2's own PXE.
    UefiArm64,
}

impl Firmware {
    /// What it is, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Bios => "BIOS (SeaBIOS, iPXE in the NIC's ROM)",
            Self::UefiX64 => "UEFI x64 (EDK2/OVMF, its own PXE)",
            Self::SecureX64 => "UEFI x64 (EDK2/OVMF), Secure Boot enforced",
            Self::UefiArm64 => "UEFI arm64 (EDK2/AAVMF, its own PXE)",
        }
    }

    /// QEMU's machine.
    ///
    /// TCG by name: `/dev/kvm` may be there and hang. `-cpu max` emulates SVM, so that the host gets a `/dev/kvm` of its
    /// own. Only System Management Mode may write the variables that hold the keys.
    pub(super) fn machine(self) -> &'static str {
        match self {
            Self::Bios | Self::UefiX64 => {
                "qemu-system-x86_64 -machine q35,graphics=off -cpu max -vga std"
            }
            Self::SecureX64 => {
                "qemu-system-x86_64 -machine q35,graphics=off,smm=on -cpu max -vga std \
                 -global driver=cfi.pflash01,property=secure,value=on -global ICH9-LPC.disable_s3=1"
            }
            Self::UefiArm64 => "qemu-system-aarch64 -machine virt -cpu cortex-a72",
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
            Self::UefiArm64 => (
                "/usr/share/AAVMF/AAVMF_CODE.fd",
                "/usr/share/AAVMF/AAVMF_VARS.fd",
            ),
        };
        let (code, variables) = (Path::new(code), Path::new(variables));
        if code.exists() && variables.exists() {
            return Ok(Some((code, variables)));
        }
        Err(LabError::Missing {
            what: code.display().to_string(),
            help: match self {
                Self::UefiArm64 => "run `make packages-arm64`".to_owned(),
                _ => "install the package ovmf".to_owned(),
            },
        })
    }
}

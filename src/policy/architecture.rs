//! What processor a kernel is for, and which firmware can start it.

use std::fmt;

use crate::inventory::model::Firmware;

/// A family of processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86, 32 and 64 bits.
    X86,
    /// 64-bit Arm.
    Arm64,
    /// 64-bit RISC-V.
    Riscv64,
    /// 64-bit LoongArch.
    LoongArch64,
}

impl Architecture {
    /// What a kernel image is for; `None` if it does not say.
    ///
    /// The magic numbers are the boot protocols' (Linux `Documentation/arch/x86/boot.rst`, `arch/arm64/booting.rst`),
    /// else the machine of the PE header that makes a kernel an EFI application.
    pub fn of_kernel(image: &[u8]) -> Option<Self> {
        if image.get(0x202..0x206) == Some(b"HdrS") {
            return Some(Self::X86);
        }
        if image.get(56..60) == Some(b"ARM\x64") {
            return Some(Self::Arm64);
        }
        match pe_machine(image)? {
            0x8664 | 0x014c => Some(Self::X86),
            0xaa64 => Some(Self::Arm64),
            0x5064 => Some(Self::Riscv64),
            0x6264 => Some(Self::LoongArch64),
            _ => None,
        }
    }

    /// Whether this firmware's processor runs it. What we can't know is taken to run: some 32-bit firmware
    /// starts 64-bit kernels, and a Raspberry Pi may be of either kind.
    pub fn runs_on(self, firmware: Firmware) -> bool {
        match firmware {
            Firmware::Bios | Firmware::UefiIa32 | Firmware::UefiX64 => self == Self::X86,
            Firmware::UefiArm32 | Firmware::UefiArm64 | Firmware::RaspberryPi => {
                self == Self::Arm64
            }
            Firmware::UefiRiscv64 => self == Self::Riscv64,
            Firmware::UefiLoongArch64 => self == Self::LoongArch64,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86 => "x86",
            Self::Arm64 => "arm64",
            Self::Riscv64 => "RISC-V 64",
            Self::LoongArch64 => "LoongArch 64",
        })
    }
}

/// `Machine` of a PE file ("PE Format", COFF file header).
fn pe_machine(image: &[u8]) -> Option<u16> {
    if !image.starts_with(b"MZ") {
        return None;
    }
    let at = u32::from_le_bytes(*image.get(0x3c..)?.first_chunk()?);
    let header = image.get(usize::try_from(at).ok()?..)?;
    let [b'P', b'E', 0, 0, low, high] = header.first_chunk()? else {
        return None;
    };
    Some(u16::from_le_bytes([*low, *high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[at..at + magic.len()].copy_from_slice(magic);
        image
    }

    #[test]
    fn kernels_are_known_by_their_headers() {
        let of = |image: &[u8]| Architecture::of_kernel(image);
        assert_eq!(of(&image(0x202, b"HdrS")), Some(Architecture::X86));
        assert_eq!(of(&image(56, b"ARM\x64")), Some(Architecture::Arm64));
        let mut pe = image(0x40, b"PE\0\0\x64\x50");
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0x40;
        assert_eq!(of(&pe), Some(Architecture::Riscv64));
        for hostile in [
            &b"MZ"[..],
            b"",
            &[0xff; 0x40],
            &[b"MZ", &[0xff; 0x40][..]].concat(),
        ] {
            assert_eq!(of(hostile), None);
        }
    }

    #[test]
    fn a_kernel_runs_on_its_own_kind() {
        assert!(Architecture::X86.runs_on(Firmware::Bios));
        assert!(Architecture::X86.runs_on(Firmware::UefiIa32));
        assert!(!Architecture::X86.runs_on(Firmware::UefiArm64));
        assert!(Architecture::Arm64.runs_on(Firmware::RaspberryPi));
        assert!(!Architecture::Arm64.runs_on(Firmware::UefiX64));
    }
}

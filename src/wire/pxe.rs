//! The PXE and iPXE parts of DHCP: architectures, vendor options, user class.

use std::fmt;

/// Client system architecture (option 93, RFC 4578 §2.1; IANA "Processor Architecture Types").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientArch(pub u16);

impl ClientArch {
    /// Intel x86PC: BIOS.
    pub const BIOS: Self = Self(0);
    /// EFI x64 as IANA lists it (7).
    pub const UEFI_X64: Self = Self(7);
    /// EBC (9): what many x64 UEFI firmwares send for themselves (RFC 4578 erratum 4625).
    pub const UEFI_EBC: Self = Self(9);
    /// The Raspberry Pi's own (41); all models before say 0.
    pub const RASPBERRY_PI: Self = Self(41);

    /// Every architecture that option 93 lists; a trailing odd byte is ignored.
    pub fn list(option_93: &[u8]) -> impl Iterator<Item = Self> + '_ {
        option_93
            .as_chunks()
            .0
            .iter()
            .map(|pair| Self(u16::from_be_bytes(*pair)))
    }
}

impl fmt::Display for ClientArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "BIOS",
            1 => "NEC PC-98",
            2 => "UEFI Itanium",
            6 => "UEFI IA32",
            7 => "UEFI x64",
            8 => "UEFI XScale",
            9 => "UEFI x64 (EBC)",
            10 => "UEFI arm32",
            11 => "UEFI arm64",
            12 => "PowerPC Open Firmware",
            13 => "PowerPC ePAPR",
            14 => "POWER OPAL",
            15 => "UEFI IA32 HTTP",
            16 => "UEFI x64 HTTP",
            17 => "UEFI x64 (EBC) HTTP",
            18 => "UEFI arm32 HTTP",
            19 => "UEFI arm64 HTTP",
            20 => "BIOS HTTP",
            21 => "U-Boot arm32",
            22 => "U-Boot arm64",
            25 => "UEFI RISC-V 32",
            26 => "UEFI RISC-V 32 HTTP",
            27 => "UEFI RISC-V 64",
            28 => "UEFI RISC-V 64 HTTP",
            29 => "UEFI RISC-V 128",
            30 => "UEFI RISC-V 128 HTTP",
            31 => "s390",
            37 => "UEFI LoongArch 32",
            38 => "UEFI LoongArch 32 HTTP",
            39 => "UEFI LoongArch 64",
            40 => "UEFI LoongArch 64 HTTP",
            41 => "Raspberry Pi",
            other => return write!(f, "architecture {other}"),
        };
        write!(f, "{name} ({})", self.0)
    }
}

impl fmt::Debug for ClientArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The sub-options of option 43 or 82: code, length, bytes; ends at 255 or where one is cut off.
pub fn sub_options(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        while let [0, padded @ ..] = rest {
            rest = padded;
        }
        let [code, length, data @ ..] = rest else {
            return None;
        };
        let (value, behind) = data.split_at_checked(usize::from(*length))?;
        rest = behind;
        (*code != 255).then_some((*code, value))
    })
}

/// Whether a user class (option 77) says iPXE.
///
/// RFC 3004 wants length-prefixed entries, iPXE sends the bare text; both are taken.
pub fn is_ipxe(user_class: &[u8]) -> bool {
    user_class == b"iPXE" || user_class == b"\x04iPXE"
}

/// Option 43 for a PXE ROM: `PXE_DISCOVERY_CONTROL` = 8, "use the boot file of this
/// reply, ask no boot server" (PXE 2.1 §2.4), then the end tag.
pub const BYPASS_DISCOVERY: [u8; 4] = [6, 1, 8, 255];

/// Option 175 for iPXE: sub-option 176 `no-pxedhcp` = 1. Without it iPXE waits
/// two seconds for ProxyDHCP offers (iPXE `src/net/udp/dhcp.c`).
pub const NO_PXEDHCP: [u8; 3] = [176, 1, 1];

/// Option 43 for a Raspberry Pi: its ROM looks for "Raspberry Pi Boot" in a boot menu
/// (sub-option 9: type 0, length, text; 10: no time-out, prompt) and ignores offers without.
pub const RASPBERRY_PI_BOOT: &[u8] =
    b"\x06\x01\x08\x09\x14\x00\x00\x11Raspberry Pi Boot\x0a\x04\x00PXE\xff";

/// The address blocks of the Raspberry Pi's makers (IEEE MA-L: Raspberry Pi Foundation,
/// Trading, and Ltd).
const RASPBERRY_PI_OUI: [[u8; 3]; 7] = [
    [0x28, 0xcd, 0xc1],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
    [0xb8, 0x27, 0xeb],
    [0xd8, 0x3a, 0xdd],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
];

/// Whether a hardware address is a Raspberry Pi's.
pub fn is_raspberry_pi(mac: [u8; 6]) -> bool {
    RASPBERRY_PI_OUI.iter().any(|oui| mac.starts_with(oui))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_93_is_a_list() {
        assert_eq!(
            ClientArch::list(&[0, 7, 0, 9, 1]).collect::<Vec<_>>(),
            [ClientArch::UEFI_X64, ClientArch::UEFI_EBC]
        );
        assert_eq!(ClientArch::list(&[7]).count(), 0);
    }

    #[test]
    fn ipxe_is_known_in_both_spellings() {
        assert!(is_ipxe(b"iPXE"));
        assert!(is_ipxe(b"\x04iPXE"));
        assert!(!is_ipxe(b"iPXE2"));
        assert!(!is_ipxe(b""));
    }
}

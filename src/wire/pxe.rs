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
    /// EFI arm64 (11).
    pub const UEFI_ARM64: Self = Self(11);
    /// x64 UEFI that boots from HTTP (16).
    pub const UEFI_X64_HTTP: Self = Self(16);

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
            6 => "UEFI ia32",
            7 => "UEFI x64",
            9 => "UEFI x64 (EBC)",
            10 => "UEFI arm32",
            11 => "UEFI arm64",
            15 => "UEFI ia32 HTTP",
            16 => "UEFI x64 HTTP",
            18 => "UEFI arm32 HTTP",
            19 => "UEFI arm64 HTTP",
            20 => "BIOS HTTP",
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

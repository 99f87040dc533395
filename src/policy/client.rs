//! Who is asking: firmware, iPXE, or an operating system.

use std::fmt;

use crate::inventory::model::MacAddr;
use crate::wire::dhcp::Request;
use crate::wire::pxe::{self, ClientArch};

/// What a machine's firmware can execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// x86 BIOS: PXE network bootstrap programs.
    Bios,
    /// x64 UEFI: EFI applications.
    UefiX64,
}

impl Firmware {
    /// The first architecture of option 93 that we have a loader for.
    ///
    /// 7 and 9 are both x64 UEFI: IANA and the firmware in the field disagree (RFC 4578 errata).
    pub fn of(archs: &[ClientArch]) -> Option<Self> {
        archs.iter().find_map(|arch| match *arch {
            ClientArch::BIOS => Some(Self::Bios),
            ClientArch::UEFI_X64 | ClientArch::UEFI_EBC | ClientArch::UEFI_X64_HTTP => {
                Some(Self::UefiX64)
            }
            _ => None,
        })
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::UefiX64 => "UEFI x64",
        })
    }
}

/// What kind of program sent the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
            Firmware::of(&archs)
        };
        Self {
            mac: request.chaddr,
            asker,
            archs,
            firmware,
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

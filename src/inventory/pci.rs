//! PCI ids of NICs, as `lspci -nn` shows them.

use std::fmt;
use std::str::FromStr;

use super::scalars::Bad;
use super::suggest::quote;
use super::tree::Scalar;

/// Vendor and device of a PCI device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciId {
    /// The vendor, `8086` of `8086:1572`.
    pub vendor: u16,
    /// The vendor's number of the device, `1572`.
    pub device: u16,
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// A text is not two numbers of four hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a PCI id: vendor and device, four hexadecimal digits each, such as 8086:1572"
)]
pub struct BadPciId(pub String);

impl FromStr for PciId {
    type Err = BadPciId;

    fn from_str(text: &str) -> Result<Self, BadPciId> {
        let number = |digits: &str| {
            let fits = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            fits.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        let halves = text.split_once(':');
        let id = halves.and_then(|(vendor, device)| {
            Some(Self {
                vendor: number(vendor)?,
                device: number(device)?,
            })
        });
        id.ok_or_else(|| BadPciId(text.to_owned()))
    }
}

/// An id of the inventory's `pci:` lists.
pub(super) fn id(scalar: &Scalar<'_>) -> Result<PciId, Bad> {
    scalar.text.parse().map_err(|_| {
        Bad::new(
            "inventory::bad_pci_id",
            format!("{} is not a PCI id", quote(&scalar.text)),
            "write vendor and device as `lspci -nn` shows them in brackets: \"8086:1572\"",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_two_numbers_of_four_digits() {
        let id: PciId = "14E4:16d8".parse().unwrap();
        assert_eq!(id.to_string(), "14e4:16d8");
        for text in [
            "",
            "8086",
            "8086:157",
            "8086:15722",
            "0x8086:1572",
            "808g:1572",
            "8086:1572:1",
            "+086:1572",
        ] {
            assert!(text.parse::<PciId>().is_err(), "{text}");
        }
    }
}

//! What a client has for a hardware address, and who it is by that.

use super::Malformed;
use crate::inventory::model::MacAddr;

/// `htype` of Ethernet (IANA "Hardware Types").
const ETHERNET: u8 = 1;

/// `htype`, `hlen` and `chaddr` as they came; replies have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    htype: u8,
    hlen: u8,
    chaddr: [u8; 16],
}

impl Hardware {
    /// An Ethernet address.
    pub fn ethernet(mac: MacAddr) -> Self {
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&mac.0);
        Self {
            htype: ETHERNET,
            hlen: 6,
            chaddr,
        }
    }

    /// What lies behind `hlen` is dropped.
    pub(crate) fn read(htype: u8, hlen: u8, field: &[u8; 16]) -> Result<Self, Malformed> {
        let length = usize::from(hlen);
        let given = field.get(..length).ok_or(Malformed::LongAddress(hlen))?;
        let mut chaddr = [0; 16];
        chaddr[..length].copy_from_slice(given);
        Ok(Self {
            htype,
            hlen,
            chaddr,
        })
    }

    /// Hardware type (IANA): 1 is Ethernet, 32 InfiniBand.
    pub fn htype(&self) -> u8 {
        self.htype
    }

    /// `hlen` bytes of `chaddr`; none where the link has no addresses, or longer ones
    /// (IP over InfiniBand: RFC 4390 §2.1).
    pub fn address(&self) -> &[u8] {
        &self.chaddr[..usize::from(self.hlen)]
    }

    /// Whether a frame can be sent to it by Ethernet. Others are answered by broadcast (RFC 2131
    /// §4.1; dnsmasq and iPXE on InfiniBand do so).
    pub fn is_ethernet(&self) -> bool {
        (self.htype, self.hlen) == (ETHERNET, 6)
    }

    /// The MAC that the machine is known by: in leases, in `hosts.yaml`, to the operator.
    ///
    /// A client without a MAC is told from others by what address it has, else by its client
    /// identifier (RFC 2131 §4.2), and gets a MAC made of that ([`MacAddr::is_made`]). It is
    /// nobody's MAC, whatever the identifier says: switches that hold `chaddr` against the frame's
    /// source (DHCP snooping) look at no option 61.
    pub(super) fn identity(&self, client_id: &[u8]) -> Result<MacAddr, Malformed> {
        let given = self.address();
        match mac(given) {
            Some(mac) if is_station(mac) => return Ok(mac),
            Some(mac) if self.is_ethernet() => return Err(Malformed::BadHardwareAddress(mac)),
            _ => {}
        }
        if given.iter().any(|octet| *octet != 0) {
            return Ok(made_of(self.htype, given));
        }
        match client_id {
            [] => Err(Malformed::Nobody {
                htype: self.htype,
                hlen: self.hlen,
            }),
            [kind, rest @ ..] => Ok(made_of(*kind, rest)),
        }
    }
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

/// One machine's, and not a group's or nobody's.
fn is_station(mac: MacAddr) -> bool {
    mac.0 != [0; 6] && mac.0[0] & 1 == 0
}

fn made_of(kind: u8, identifier: &[u8]) -> MacAddr {
    let all = identifier.iter().copied();
    let [.., a, b, c, d, e, f] = fnv_1a(std::iter::once(kind).chain(all)).to_be_bytes();
    MacAddr([a & 0xf0 | MacAddr::MADE, b, c, d, e, f])
}

/// The hash of Fowler, Noll and Vo: the same in every run.
pub(crate) fn fnv_1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let bytes = bytes.into_iter();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

    fn of(htype: u8, address: &[u8], client_id: &[u8]) -> Result<MacAddr, Malformed> {
        let mut field = [0xee; 16];
        field[..address.len()].copy_from_slice(address);
        let hlen = u8::try_from(address.len()).unwrap();
        Hardware::read(htype, hlen, &field)?.identity(client_id)
    }

    #[test]
    fn six_bytes_are_a_mac_whatever_the_link() {
        for htype in [0, 1, 6, 32] {
            assert_eq!(of(htype, &MAC, b"\xffother"), Ok(MacAddr(MAC)));
        }
        let group = of(1, &[1, 0, 0, 0, 0, 1], &[]);
        assert!(matches!(group, Err(Malformed::BadHardwareAddress(_))));
    }

    #[test]
    fn who_has_no_mac_is_known_by_its_address_or_its_identifier() {
        let guid = [0, 2, 0xc9, 3, 0, 1, 2, 3];
        let by_address = of(32, &guid, b"\xffone").unwrap();
        assert_eq!(of(32, &guid, b"\xfftwo"), Ok(by_address), "a loader's");
        assert_ne!(of(32, &[4; 8], b"\xffone"), Ok(by_address));
        let by_identifier = of(32, &[], b"\xffone").unwrap();
        assert_eq!(of(32, &[0; 8], b"\xffone"), Ok(by_identifier));
        assert_ne!(of(32, &[], b"\xfftwo"), Ok(by_identifier));
        for made in [by_address, by_identifier] {
            assert!(made.is_made() && !is_station(made), "{made}: no NIC's");
        }
    }

    #[test]
    fn an_identifier_that_is_a_mac_is_no_machines_with_that_mac() {
        for last in 0..=255 {
            let named = [1, 0x56, 0x54, 0, 0, 0, last];
            for htype in [0, 1, 32] {
                let made = of(htype, &[], &named).unwrap();
                assert!(made.is_made(), "{made}");
            }
        }
    }

    #[test]
    fn who_says_nothing_of_itself_is_nobody() {
        let nobody = of(32, &[], &[]).unwrap_err();
        assert_eq!(nobody, Malformed::Nobody { htype: 32, hlen: 0 });
        assert!(nobody.to_string().contains("option 61"));
    }
}

//! MACs that are one slip of the hand apart.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use serde::Serialize;

use crate::inventory::model::{Host, MacAddr};
use crate::policy::event::MachineId;
use crate::policy::progress::Machine;

/// What was mistyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slip {
    /// One digit is another.
    OneDigit,
    /// Two digits side by side are swapped.
    Swapped,
}

/// A listed MAC that somebody may have meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// Whose it is.
    pub host: String,
    /// As it is listed.
    pub mac: MacAddr,
    /// How they differ.
    pub slip: Slip,
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, mac, slip } = self;
        match slip {
            Slip::OneDigit => write!(f, "one digit off {host}'s {mac}"),
            Slip::Swapped => write!(f, "two digits swapped in {host}'s {mac}"),
        }
    }
}

impl NearMiss {
    /// Whether the host was never heard of: of machines that came, and were bought together, the MACs are as near.
    pub fn is_awaited(&self, machines: &BTreeMap<MachineId, Machine>) -> bool {
        let machine = machines.get(&MachineId(self.host.clone()));
        machine.is_none_or(|machine| machine.attempt().is_none())
    }
}

/// Listed MACs that are one slip away from this one, by host. Looks up every slip there is, and not every
/// host there is: ten thousand of them cost no more.
pub fn near_misses<S: BuildHasher>(
    mac: MacAddr,
    by_mac: &HashMap<MacAddr, Arc<Host>, S>,
) -> Vec<NearMiss> {
    let listed = |(near, slip): (MacAddr, Slip)| {
        let host = by_mac.get(&near)?.name.clone();
        let mac = near;
        Some(NearMiss { host, mac, slip })
    };
    let mut found: Vec<_> = slips(mac).filter_map(listed).collect();
    found.sort_by(|a, b| (&a.host, a.mac).cmp(&(&b.host, b.mac)));
    found.dedup();
    found
}

/// The hexadecimal digits, from the first.
fn digit(mac: MacAddr, index: usize) -> u8 {
    let octet = mac.0[index / 2];
    if index.is_multiple_of(2) {
        octet >> 4
    } else {
        octet & 15
    }
}

fn with_digit(mut mac: MacAddr, index: usize, digit: u8) -> MacAddr {
    let octet = &mut mac.0[index / 2];
    *octet = if index.is_multiple_of(2) {
        *octet & 0x0f | digit << 4
    } else {
        *octet & 0xf0 | digit
    };
    mac
}

fn slips(mac: MacAddr) -> impl Iterator<Item = (MacAddr, Slip)> {
    let other = move |index: usize| {
        let digits = (0..16).filter(move |other| *other != digit(mac, index));
        digits.map(move |other| (with_digit(mac, index, other), Slip::OneDigit))
    };
    let swapped = move |index: usize| {
        let (a, b) = (digit(mac, index), digit(mac, index + 1));
        let near = with_digit(with_digit(mac, index, b), index + 1, a);
        (a != b).then_some((near, Slip::Swapped))
    };
    (0..12).flat_map(other).chain((0..11).filter_map(swapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVENTORY: &str = r#"
networks: {boot: {subnet: 10.77.0.0/24}}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: "/roots/kvm"}}}
hosts:
  kvm07: {mac: "52:54:00:00:00:07", ip: 10.77.0.17, profile: kvm}
  kvm71: {mac: "52:54:00:00:71:00", ip: 10.77.0.71, profile: kvm}
"#;

    fn near(mac: &str) -> Vec<String> {
        let (inventory, _) = crate::inventory::parse("hosts.yaml", INVENTORY).unwrap();
        let found = near_misses(mac.parse().unwrap(), &inventory.by_mac);
        found.iter().map(NearMiss::to_string).collect()
    }

    #[test]
    fn a_slip_is_one_digit_or_two_swapped() {
        assert_eq!(
            near("52:54:00:00:00:08"),
            ["one digit off kvm07's 52:54:00:00:00:07"]
        );
        assert_eq!(
            near("52:54:00:00:17:00"),
            ["two digits swapped in kvm71's 52:54:00:00:71:00"]
        );
        // Across the colon.
        assert_eq!(
            near("52:54:00:00:70:10"),
            ["two digits swapped in kvm71's 52:54:00:00:71:00"]
        );
        assert!(near("52:54:00:00:00:99").is_empty());
        // The same one is no miss.
        assert!(near("52:54:00:00:00:07").is_empty());
    }
}

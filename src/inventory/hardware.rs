//! What makes a machine a host beside its MAC: its serial number, or the switch port that it is plugged into.
//!
//! Machines and switches write these in more than one way; keys are what is compared.

use super::model::{MacAddr, Sourced};
use super::scalars::{self, Bad, other_mac_form};
use super::suggest::quote;
use super::tree::Scalar;

/// The switch port that a host is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plug {
    /// What the switch calls itself, or its MAC.
    pub switch: Sourced<String>,
    /// What the switch calls the port.
    pub port: Sourced<String>,
    /// What is compared.
    pub key: PlugKey,
}

impl Plug {
    pub(super) fn new(switch: Sourced<String>, port: Sourced<String>) -> Self {
        let key = PlugKey::new(&switch, &port);
        Self { switch, port, key }
    }
}

/// A switch port, however its names are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlugKey {
    switch: String,
    port: String,
}

impl PlugKey {
    /// Of a switch's name or MAC, and its port's name.
    pub fn new(switch: &str, port: &str) -> Self {
        let switch = switch.trim();
        let mac = switch.parse::<MacAddr>().ok();
        let mac = mac.or_else(|| other_mac_form(switch));
        Self {
            switch: mac.map_or_else(|| switch.to_lowercase(), |mac| mac.to_string()),
            port: port_key(port),
        }
    }
}

/// What switches write in full and in short: Cisco IOS, IOS XE and XR, NX-OS, Arista EOS, H3C Comware.
const PORT_KINDS: [(&str, &str); 17] = [
    ("fastethernet", "fa"),
    ("gigabitethernet", "gi"),
    ("gig", "gi"),
    ("ge", "gi"),
    ("tengigabitethernet", "te"),
    ("ten-gigabitethernet", "te"),
    ("tengige", "te"),
    ("xge", "te"),
    ("twentyfivegige", "twe"),
    ("twentyfivegigabitethernet", "twe"),
    ("fortygigabitethernet", "fo"),
    ("fortygige", "fo"),
    ("hundredgige", "hu"),
    ("hundredgigabitethernet", "hu"),
    ("ethernet", "et"),
    ("eth", "et"),
    ("port-channel", "po"),
];

/// Letters in either case, without blanks, and a long word as its short one. Only where numbers with a slash follow,
/// or the word is long: `eth0` of SONiC is its management port, and `Ethernet0` the first one of its front.
fn port_key(port: &str) -> String {
    let plain: String = port.split_whitespace().collect();
    let plain = plain.to_lowercase();
    let kind = plain.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '/' | ':' | '.'));
    let number = &plain[kind.len()..];
    let short = PORT_KINDS.iter().find(|(long, _)| *long == kind);
    match short {
        Some((long, short)) if long.len() > 3 || number.contains('/') => format!("{short}{number}"),
        _ => plain,
    }
}

/// What firmware says where nobody has set a serial number; many machines say the same.
const JUNK: [&str; 26] = [
    "0123456789",
    "12345678",
    "123456789",
    "1234567890",
    "chassis serial number",
    "default",
    "default string",
    "default_string",
    "empty",
    "eval",
    "invalid",
    "n/a",
    "na",
    "no serial",
    "none",
    "not applicable",
    "not available",
    "not set",
    "not specified",
    "null",
    "o.e.m.",
    "oem",
    "serial number",
    "system serial number",
    "to be filled by o.e.m.",
    "unknown",
];

/// What is compared of a serial number: labels and lists write it in either case. `None`: it is nobody's, such as
/// `To be filled by O.E.M.`, `0000000` or `XXXXXXXX`.
pub fn serial_key(serial: &str) -> Option<String> {
    let plain = serial.trim().to_lowercase();
    let mut telling = plain.chars().filter(|c| c.is_alphanumeric());
    let first = telling.next()?;
    let same = telling.all(|c| c == first);
    (!same && !JUNK.contains(&plain.as_str())).then_some(plain)
}

/// A serial number that one machine has.
pub(super) fn serial(scalar: &Scalar<'_>) -> Result<String, Bad> {
    let text = scalars::text(scalar)?;
    if serial_key(&text).is_some() {
        return Ok(text);
    }
    Err(Bad::new(
        "inventory::bad_serial",
        format!(
            "{} is what firmware says that knows no serial number",
            quote(&text)
        ),
        "write the number on the machine's label, or know it by its `mac`, or by `switch` and `port`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_that_many_have_is_nobodys() {
        for junk in [
            "To Be Filled By O.E.M.",
            "Default string",
            " Not Specified ",
            "None",
            "System Serial Number",
            "0",
            "00000000",
            "XXXXXXXXXX",
            "............",
            "FF-FF-FF",
            "",
            "0123456789",
        ] {
            assert_eq!(serial_key(junk), None, "{junk}");
        }
        assert_eq!(serial_key(" 7XKQ2M3 "), serial_key("7xkq2m3"));
        assert_ne!(serial_key("7XKQ2M3"), serial_key("7XKQ2M4"));
        assert!(serial_key("CZ1234567890").is_some());
    }

    #[test]
    fn a_port_is_the_same_in_full_and_in_short() {
        let same = |a: &str, b: &str| PlugKey::new("sw", a) == PlugKey::new("SW ", b);
        for (long, short) in [
            ("GigabitEthernet1/0/3", "Gi1/0/3"),
            ("gigabitethernet 1/0/3", "GI1/0/3"),
            ("TenGigabitEthernet1/1/1", "Te1/1/1"),
            ("Ten-GigabitEthernet1/0/25", "XGE1/0/25"),
            ("Ethernet1/3", "Eth1/3"),
            ("Ethernet7", "Et7"),
            ("swp3", "SWP3"),
        ] {
            assert!(same(long, short), "{long} {short}");
        }
        for (one, other) in [
            ("Gi1/0/3", "Gi1/0/13"),
            ("Gi1/0/3", "Gi2/0/3"),
            ("Gi1/0/3", "Te1/0/3"),
            ("Gi1/0/3", "Gi1/0/3.1"),
            ("Gi1/1", "Gi11"),
            ("Ethernet0", "eth0"),
            ("ge-0/0/3", "xe-0/0/3"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_switch_is_known_by_its_name_or_mac() {
        let key = |switch: &str| PlugKey::new(switch, "1");
        assert_eq!(key("0011.2233.4455"), key("00:11:22:33:44:55"));
        assert_eq!(key("SW-R1"), key("sw-r1"));
        assert_ne!(key("sw-r1"), key("sw-r1.example.org"));
        assert_ne!(key("sw-r1"), key("sw-r10"));
    }
}

//! LLDP: any frame is read or refused with a reason, and what is shown of it is bounded and printable.

use bridgehead::policy::discovered::{Hardware, HardwareNic};
use bridgehead::wire::lldp::Lldpdu;

/// The longest text of a neighbour, characters.
const LONGEST: usize = 64;

/// Holds for the octets behind the `EtherType`, and for the same as an inventory boot's report.
pub(crate) fn check(bytes: &[u8]) {
    let parsed = Lldpdu::parse(bytes);
    if let Err(bad) = &parsed {
        assert!(!bad.to_string().is_empty());
    }
    let hex: String = bytes.iter().map(|octet| format!("{octet:02x}")).collect();
    let report = format!("nic=eth0\nmac=02:00:00:00:00:01\nlink=1\nlldp={hex}\n");
    let nics = Hardware::of_report(&report).nics;
    let neighbour = nics[0].neighbour.as_ref();
    assert!(parsed.is_ok() || neighbour.is_none());
    if let Some(neighbour) = neighbour {
        let texts = [&neighbour.switch, &neighbour.port].into_iter();
        for text in texts.chain(&neighbour.port_description) {
            assert!((1..=LONGEST).contains(&text.chars().count()));
            assert!(!text.chars().any(char::is_control));
        }
    }
    check_report(&String::from_utf8_lossy(bytes));
}

/// The same octets as a report.
fn check_report(report: &str) {
    let found = Hardware::of_report(report);
    assert!(found.nics.len() <= 32);
    let words = found.nics.iter().map(HardwareNic::words);
    for words in words.chain([found.words()]) {
        assert!(!words.chars().any(char::is_control));
    }
}

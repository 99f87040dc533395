//! Answers as a capture file, for a parser that everybody trusts.

use std::path::Path;
use std::process::Command;

/// LINKTYPE_RAW: packets begin with their IP header.
const RAW: u32 = 101;

/// What tcpdump writes of a packet that it finds fault with.
const FAULTS: [&str; 6] = [
    "malformed",
    "invalid",
    "truncated",
    "[|",
    "bad udp cksum",
    "ERROR",
];

/// Writes `payloads` as datagrams of a DHCP server.
fn write(file: &Path, payloads: &[Vec<u8>]) {
    let words = [0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, RAW];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
    for payload in payloads {
        let length = 28 + payload.len() as u32;
        bytes.extend(
            [0, 0, length, length]
                .into_iter()
                .flat_map(u32::to_be_bytes),
        );
        let [.., high, low] = length.to_be_bytes();
        bytes.extend([
            0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 255, 255, 255, 255,
        ]);
        let [.., high, low] = (length - 20).to_be_bytes();
        bytes.extend([0, 67, 0, 68, high, low, 0, 0]);
        bytes.extend(payload);
    }
    std::fs::write(file, bytes).expect("a capture file");
}

/// Fails with what tcpdump says of a payload that it takes for broken.
pub(crate) fn check(payloads: &[Vec<u8>]) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    write(file.path(), payloads);
    // Without -K it would tell that the sums, left at zero, are not computed.
    let read = Command::new("tcpdump")
        .args(["-nnvvK", "-r"])
        .arg(file.path())
        .output();
    let read = read.expect("tcpdump is missing: install the package tcpdump");
    let text = String::from_utf8_lossy(&read.stdout);
    let replies = text
        .lines()
        .filter(|line| line.contains("BOOTP/DHCP, Reply"));
    assert_eq!(
        replies.count(),
        payloads.len(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    let fault = text
        .lines()
        .find(|line| FAULTS.iter().any(|fault| line.contains(fault)));
    assert_eq!(fault, None);
}

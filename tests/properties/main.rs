//! What holds for every input: of the network, of hosts.yaml, of the lease journal.
//!
//! Each file has one `check`, which panics where it does not hold. Here it is given what property tests make up and
//! the fuzzers' corpus; the fuzzers (`make fuzz`) give it what they find.
#![allow(missing_docs)]

mod dhcp;
mod http;
mod inventory;
mod leases;
mod lldp;
mod nfs;
mod pcap;
mod syslog;
mod tftp;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Gives every file of the corpus to its check.
fn corpus(target: &str, check: fn(&[u8])) {
    for (path, bytes) in files(target) {
        let outcome = std::panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "{} does not hold", path.display());
    }
}

/// The corpus of a fuzz target.
fn files(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![top.join("fuzz/corpus").join(target)];
    if target == "inventory" {
        folders.extend(["valid", "invalid"].map(|kind| top.join("tests/inventories").join(kind)));
    }
    let mut found = Vec::new();
    for folder in folders {
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a file");
            found.push((path, bytes));
        }
    }
    assert!(!found.is_empty(), "no corpus for {target}");
    found.sort();
    found
}

#[test]
fn the_corpus_holds() {
    corpus("dhcp", dhcp::check);
    corpus("tftp", tftp::check);
    corpus("http", http::check);
    corpus("inventory", inventory::check);
    corpus("nfs", nfs::check);
    corpus("leases", leases::check);
    corpus("lldp", lldp::check);
    corpus("syslog", syslog::check);
}

#[test]
fn tcpdump_finds_no_fault_with_an_answer() {
    let captured = files("dhcp").into_iter().map(|(_, bytes)| bytes);
    let mut runner = TestRunner::deterministic();
    let made_up = (0..500).map(|_| {
        any::packet()
            .new_tree(&mut runner)
            .expect("a packet")
            .current()
    });
    // What a relay put into option 82 goes back as it came, right or wrong.
    let relayed = |answer: &Vec<u8>| {
        dhcp::walk(&answer[dhcp::FIXED..])
            .is_ok_and(|options| options.iter().any(|(code, _)| *code == 82))
    };
    let answers: Vec<_> = captured
        .chain(made_up)
        .flat_map(|bytes| dhcp::answers(&bytes))
        .filter(|answer| !relayed(answer))
        .collect();
    assert!(answers.len() > 300, "{} answers", answers.len());
    pcap::check(&answers);
}

proptest! {
    // What fails goes into the corpus, where the fuzzer has it too.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_dhcp_packet_is_answered_or_refused_with_a_reason(bytes in any::packet()) {
        dhcp::check(&bytes);
    }

    #[test]
    fn damaged_dhcp_packets_too(bytes in any::damaged("dhcp")) {
        dhcp::check(&bytes);
    }

    #[test]
    fn damaged_tftp_conversations_end(bytes in any::damaged("tftp")) {
        tftp::check(&bytes);
    }

    #[test]
    fn damaged_inventories_are_taken_or_refused(bytes in any::damaged("inventory")) {
        inventory::check(&bytes);
    }

    #[test]
    fn damaged_journals_are_mended_or_refused(bytes in any::damaged("leases")) {
        leases::check(&bytes);
    }

    #[test]
    fn damaged_lldp_frames_are_read_or_refused(bytes in any::damaged("lldp")) {
        lldp::check(&bytes);
    }

    #[test]
    fn damaged_syslog_lines_are_one_line_or_nothing(bytes in any::damaged("syslog")) {
        syslog::check(&bytes);
    }

    #[test]
    fn any_syslog_line_is_one_line_or_nothing(text in "(<[0-9]{0,4}>)?(1 )?[ -~\\x00-\\x1f\\u{80}-\\u{9f}\\u{2000}-\\u{2070}]{0,80}") {
        syslog::check(text.as_bytes());
    }

    #[test]
    fn damaged_http_requests_are_answered(bytes in any::damaged("http")) {
        http::check(&bytes);
    }

    #[test]
    fn damaged_nfs_calls_are_answered_or_cut_off(bytes in any::damaged("nfs")) {
        nfs::check(&bytes);
    }
}

mod any {
    //! What property tests make up.

    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A TLV of any code, mostly of a length that is right for it.
    fn option() -> impl Strategy<Value = Vec<u8>> {
        let known = prop::sample::select(vec![
            (50, 4),
            (54, 4),
            (57, 2),
            (60, 9),
            (61, 7),
            (77, 4),
            (82, 6),
            (93, 2),
            (97, 17),
            (118, 4),
            (52, 1),
            (12, 5),
        ]);
        let sound = known.prop_flat_map(|(code, length)| {
            vec(any::<u8>(), length).prop_map(move |data| tlv(code, &data))
        });
        let words = prop::sample::select(vec![
            tlv(60, b"PXEClient:Arch:00007:UNDI:003016"),
            tlv(60, b"HTTPClient:Arch:00016:UNDI:003001"),
            tlv(77, b"iPXE"),
            tlv(93, &[0, 7]),
            tlv(93, &[0, 16]),
            tlv(93, &[0, 0, 0, 7]),
            tlv(54, &[10, 77, 0, 1]),
            tlv(50, &[10, 77, 0, 11]),
            tlv(50, &[10, 77, 0, 150]),
            tlv(57, &[0xff, 0xff]),
            tlv(57, &[2, 0x40]),
            tlv(82, &[1, 2, 0, 1, 5, 4, 10, 77, 0, 0]),
            tlv(175, &[0xb1, 1, 1]),
            tlv(55, &[1, 3, 6, 12, 15, 42, 43, 66, 67, 119, 121]),
        ]);
        let wild =
            (any::<u8>(), vec(any::<u8>(), 0..300)).prop_map(|(code, data)| tlv(code, &data));
        prop_oneof![4 => sound, 4 => words, 1 => wild]
    }

    fn tlv(code: u8, data: &[u8]) -> Vec<u8> {
        data.chunks(255)
            .flat_map(|part| [&[code, part.len() as u8], part].concat())
            .collect()
    }

    /// A packet with a sound fixed part, so that what is behind it is looked at.
    pub(super) fn packet() -> impl Strategy<Value = Vec<u8>> {
        let addresses = || {
            prop::sample::select(vec![
                [0, 0, 0, 0],
                [10, 77, 0, 11],
                [10, 77, 0, 101],
                [10, 80, 0, 1],
                [10, 81, 0, 1],
                [10, 78, 0, 1],
                [255; 4],
                [224, 0, 0, 1],
            ])
        };
        let mac = prop_oneof![
            (1_u8..6).prop_map(|last| [0x52, 0x54, 0, 0, 0, last]),
            (0_u8..6).prop_map(|last| [2, 0, 0, 0, 0, last]),
            any::<[u8; 6]>(),
        ];
        let hardware = prop_oneof![
            6 => Just((1, 6)),
            1 => (any::<u8>(), 0_u8..18),
        ];
        let fixed = (
            hardware,
            addresses(),
            addresses(),
            mac,
            any::<[u8; 8]>(),
            any::<[u8; 4]>(),
        );
        (fixed, 0_u8..9, vec(option(), 0..8)).prop_map(
            |(((htype, hlen), ciaddr, giaddr, mac, middle, end), kind, options)| {
                let mut bytes = vec![0; 240];
                bytes[..3].copy_from_slice(&[1, htype, hlen]);
                bytes[4..12].copy_from_slice(&middle);
                bytes[12..16].copy_from_slice(&ciaddr);
                bytes[24..28].copy_from_slice(&giaddr);
                bytes[28..34].copy_from_slice(&mac);
                bytes[108..112].copy_from_slice(&end);
                bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
                bytes.extend(tlv(53, &[kind]));
                bytes.extend(options.concat());
                bytes.push(255);
                bytes
            },
        )
    }

    /// What begins as a captured one does, with some bytes changed, cut anywhere.
    pub(super) fn damaged(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
        let files: Vec<Vec<u8>> = super::files(target)
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect();
        let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
        (
            prop::sample::select(files),
            changes,
            any::<prop::sample::Index>(),
            any::<bool>(),
        )
            .prop_map(|(mut bytes, changes, end, cut)| {
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                let length = if cut {
                    end.index(bytes.len() + 1)
                } else {
                    bytes.len()
                };
                bytes.truncate(length);
                bytes
            })
    }
}

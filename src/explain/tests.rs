//! Captures of real firmware, put to the daemon's own code; and hostile ones.

use std::fs;
use std::path::Path;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

/// What QEMU's firmware sent (`tests/golden`).
fn captured(name: &str) -> Vec<u8> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let hex = fs::read_to_string(golden.join(format!("{name}.hex"))).unwrap();
    let digits: Vec<_> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

fn frame(from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [0xff; 6])
        .ipv4(from.0, to.0, 64)
        .udp(from.1, to.1);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

/// A classic pcap file, microseconds.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1]
        .map(u32::to_le_bytes)
        .concat();
    for (second, frame) in (1_700_000_000_u32..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap();
        file.extend(
            [second, 250_000, length, length]
                .map(u32::to_le_bytes)
                .concat(),
        );
        file.extend(frame);
    }
    file
}

fn replayed(file: &[u8]) -> (Vec<Replayed>, End) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("boot.pcap");
    fs::write(&path, file).unwrap();
    let snapshot = testing::snapshot(dir.path());
    let mut all = Vec::new();
    let end = replay(snapshot, &path, Some(Ipv4Addr::new(10, 77, 0, 1)), |one| {
        all.push(one)
    });
    (all, end.unwrap())
}

/// An ARP reply of IPv4 over Ethernet.
fn arp(mac: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let head = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    [&head[..], &mac, &address, &[2; 6], &[10, 77, 0, 1]].concat()
}

/// As if it came from this NIC.
fn sent_by(mac: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&mac);
    frame
}

/// Where another server gives the addresses, who has one is told by the capture, and not by this machine.
#[test]
fn beside_another_server_the_capture_says_who_has_an_address() {
    let dir = tempfile::tempdir().unwrap();
    drop(testing::snapshot(dir.path()));
    let inventory = dir.path().join("hosts.yaml");
    let text = fs::read_to_string(&inventory).unwrap();
    let text = text.replace("    pool: 10.77.0.100-10.77.0.199\n", "    dhcp: proxy\n");
    fs::write(&inventory, text).unwrap();
    let read = |name: &str| [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
    let (kvm02, stranger) = ([0x52, 0x54, 0, 0, 0, 2], [0x52, 0x54, 0, 0, 0, 0x77]);
    let ask = |last| {
        frame(
            ([10, 77, 0, last], 2070),
            ([10, 77, 0, 1], 69),
            &read("grub/grub.cfg"),
        )
    };
    // What came through a router, or was written by hand: its own MAC says nothing.
    let ack = |mac: [u8; 6], last| {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[16..20].copy_from_slice(&[10, 77, 0, last]);
        bytes[28..34].copy_from_slice(&mac);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend([53, 1, 5, 255]);
        frame(([10, 77, 0, 254], 67), ([255; 4], 68), &bytes)
    };
    let raw = |frames: &[Vec<u8>]| {
        let frames: Vec<_> = frames.iter().map(|frame| frame[14..].to_vec()).collect();
        let mut file = pcap(&frames);
        file[20..24].copy_from_slice(&228_u32.to_le_bytes());
        file
    };
    let asked = |file: Vec<u8>| {
        let path = dir.path().join("boot.pcap");
        fs::write(&path, file).unwrap();
        let paths = crate::site::Paths {
            inventory: inventory.clone(),
            data: dir.path().join("data"),
            templates: None,
        };
        let (snapshot, _) = Snapshot::load(&paths, None).unwrap();
        let mut last = None;
        let server = Some(Ipv4Addr::new(10, 77, 0, 1));
        replay(snapshot, &path, server, |one| last = Some(one)).unwrap();
        let last = last.unwrap();
        (last.machine.clone(), story(&[last]).remove(0))
    };
    // By ARP, by the other server's ACK, by the request itself.
    for file in [
        pcap(&[arp(kvm02, [10, 77, 0, 200]), sent_by(kvm02, ask(200))]),
        raw(&[ack(kvm02, 201), ask(201)]),
        pcap(&[sent_by(kvm02, ask(202))]),
    ] {
        let (machine, story) = asked(file);
        assert_eq!(machine, "kvm02", "{story}");
        assert!(story.contains("grub/grub.cfg Some("), "{story}");
    }
    // Another has the address that is listed for the host; nobody is known to have it.
    let (machine, _) = asked(pcap(&[sent_by(stranger, ask(12))]));
    assert_eq!(machine, "mac-525400000077");
    let (_, story) = asked(raw(&[ask(12)]));
    assert!(!story.contains("mac-"), "{story}");
}

const NOBODY: ([u8; 4], u16) = ([0; 4], 68);
const ALL: ([u8; 4], u16) = ([255; 4], 67);

/// One line for each packet: who, and what is done.
fn story(all: &[Replayed]) -> Vec<String> {
    let line = |one: &Replayed| match &one.what {
        What::Dhcp(step) => format!("{}: {}", one.machine, step.event),
        What::Tftp {
            asks,
            sends,
            because,
        } => format!("{}: {asks} {sends:?} {because}", one.machine),
        What::Offered { address, .. } => format!("{}: was offered {address}", one.machine),
        What::Malformed { because } => format!("{}: {because}", one.machine),
    };
    all.iter().map(line).collect()
}

#[test]
fn what_real_firmware_asked_is_answered_as_the_daemon_would() {
    let read = |name: &str| [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
    let host = ([10, 77, 0, 12], 2070);
    let daemon = ([10, 77, 0, 1], 69);
    let (all, end) = replayed(&pcap(&[
        frame(NOBODY, ALL, &captured("uefi-edk2-discover")),
        frame(NOBODY, ALL, &captured("uefi-edk2-request")),
        frame(host, daemon, &read("shimx64.efi")),
        frame(host, daemon, &read("no/such/file")),
        frame(host, daemon, &read("grub/grub.cfg")),
        frame(([10, 77, 0, 99], 2070), daemon, &read("grub/grub.cfg")),
        // Not for us: what follows a request, other ports, an empty datagram.
        frame(host, ([10, 77, 0, 1], 40000), &[0, 4, 0, 1]),
        frame(host, ([10, 77, 0, 1], 53), b"question"),
        frame(NOBODY, ALL, &[]),
    ]));
    assert_eq!((end.packets, end.trouble), (9, None));
    let story = story(&all);
    assert_eq!(
        story[0],
        "kvm02: offered 10.77.0.12 to PXE, UEFI x64 (7), boot file shimx64.efi: its MAC is listed as kvm02"
    );
    assert!(
        story[1].starts_with("kvm02: gave 10.77.0.12 to PXE"),
        "{story:?}"
    );
    assert_eq!(story[2], "kvm02: shimx64.efi Some(4) ");
    assert_eq!(story[3], "kvm02: no/such/file None file not found");
    assert!(
        story[4].starts_with("kvm02: grub/grub.cfg Some("),
        "{story:?}"
    );
    assert!(
        story[5].contains("nobody has the address 10.77.0.99"),
        "{story:?}"
    );
    assert!(story[6].contains("too short"), "{story:?}");
    assert_eq!(all.len(), 7);
    assert_eq!(all[0].at.to_string(), "2023-11-14T22:13:20.25Z");
    let json = serde_json::to_value(&all[0]).unwrap();
    assert_eq!(
        (&json["kind"], &json["answer"]["address"]),
        (&"dhcp".into(), &"10.77.0.12".into())
    );
}

#[test]
fn a_cut_or_foreign_file_is_told_and_no_fault_of_ours() {
    let whole = pcap(&[
        frame(NOBODY, ALL, &captured("uefi-edk2-discover")),
        frame(NOBODY, ALL, &captured("uefi-edk2-discover")),
    ]);
    let (all, end) = replayed(&whole[..whole.len() - 100]);
    assert_eq!(all.len(), 1);
    assert_eq!(end.trouble.as_deref(), Some("it is cut off there"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    for foreign in ["", "no capture at all, but long enough to be looked at"] {
        fs::write(&path, foreign).unwrap();
        let refused = capture::read(&path, |_| {}).unwrap_err().to_string();
        assert!(refused.contains("no packet capture"), "{refused}");
    }
}

/// pcapng: section header, interface (Ethernet), enhanced packet.
fn pcapng(frame: &[u8]) -> Vec<u8> {
    let block = |kind: u32, body: Vec<u8>| {
        let mut body = body;
        body.resize(body.len().next_multiple_of(4), 0);
        let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, &body, &length].concat()
    };
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let length = u32::try_from(frame.len()).unwrap();
    let microseconds = 1_700_000_000_250_000_u64;
    let (high, low) = ((microseconds >> 32) as u32, microseconds as u32);
    let packet = [words(&[0, high, low, length, length]), frame.to_vec()].concat();
    [
        block(0x0a0d_0d0a, words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX])),
        block(1, words(&[1, 65535])),
        block(6, packet),
    ]
    .concat()
}

#[test]
fn pcapng_is_read_too() {
    let (all, end) = replayed(&pcapng(&frame(
        NOBODY,
        ALL,
        &captured("bios-ipxe-rom-discover"),
    )));
    assert_eq!(
        (all.len(), end),
        (
            1,
            End {
                packets: 1,
                trouble: None
            }
        )
    );
    assert_eq!(all[0].at.to_string(), "2023-11-14T22:13:20.25Z");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hostile_captures_end_without_a_panic(
        ng in any::<bool>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<proptest::sample::Index>(),
    ) {
        let packet = frame(NOBODY, ALL, &captured("uefi-edk2-discover"));
        let mut file = if ng { pcapng(&packet) } else { pcap(&[packet.clone(), packet]) };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(cut.index(file.len() + 1));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcap");
        fs::write(&path, &file).unwrap();
        let mut seen = 0;
        let _ = capture::read(&path, |one| {
            seen += 1;
            if let capture::Seen::Datagram(datagram) = one {
                let _ = Request::parse(datagram.payload);
            }
        });
        prop_assert!(seen <= 2);
    }
}

#[test]
fn a_daemon_that_stands_elsewhere_is_asked_by_a_relay() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = testing::snapshot(dir.path());
    let elsewhere = Ipv4Addr::new(192, 0, 2, 1);
    let told = explain(&Question {
        snapshot: &snapshot,
        mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        posing: None,
        entry: None,
        server: Some(elsewhere),
    })
    .unwrap();
    let router = Ipv4Addr::new(10, 77, 0, 1);
    assert_eq!(
        (told.server.address, told.server.relay),
        (elsewhere, Some(router))
    );
    let Some(Step::Dhcp(DhcpStep {
        answer: Some(answer),
        ..
    })) = told.steps.first()
    else {
        panic!("{:?}", told.steps);
    };
    assert_eq!(answer.next_server, elsewhere);
}

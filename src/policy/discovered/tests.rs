use super::identity::LONGEST;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn request(mac: [u8; 6], options: &[(u8, &[u8])]) -> Request {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[24..28].copy_from_slice(&[10, 88, 0, 254]);
    bytes[28..34].copy_from_slice(&mac);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, 1]);
    for (code, data) in options {
        bytes.extend([*code, u8::try_from(data.len()).unwrap()]);
        bytes.extend(*data);
    }
    bytes.push(255);
    Request::parse(&bytes).unwrap()
}

fn seen(mac: [u8; 6], options: &[(u8, &[u8])], second: i64) -> Discovered {
    let request = request(mac, options);
    let port = SwitchPort::heard(&request, false);
    Discovered::new(&request, &Client::of(&request), None, port, at(second))
}

const REAL: [u8; 6] = [0x3c, 0xec, 0xef, 0, 0, 1];
const GUID: [u8; 17] = [
    0, 0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
    0xff,
];

#[test]
fn a_uuid_is_shown_as_on_the_machine_whoever_sends_it() {
    let firmware = seen(REAL, &[(60, b"PXEClient"), (97, &GUID)], 1);
    let shown = Some("00112233-4455-6677-8899-aabbccddeeff");
    assert_eq!(firmware.identity.uuid.as_deref(), shown);
    let ipxe = seen(REAL, &[(77, b"iPXE"), (97, &GUID)], 1);
    let shown = Some("33221100-5544-7766-8899-aabbccddeeff");
    assert_eq!(ipxe.identity.uuid.as_deref(), shown);
    assert_eq!(seen(REAL, &[(97, &[0; 17])], 1).identity.uuid, None);
}

#[test]
fn a_relays_port_is_told_in_words() {
    let port = |info: &[u8]| seen(REAL, &[(82, info)], 1).port.unwrap_or_default();
    assert_eq!(port(b"\x01\x07Gi1/0/3\x02\x05sw-r1"), "Gi1/0/3 of sw-r1");
    assert_eq!(
        port(b"\x01\x06\x00\x04\x00\x0a\x01\x03\x02\x08\x00\x06\x00\x11\x22\x33\x44\x55"),
        "VLAN 10 module 1 port 3 of 00:11:22:33:44:55"
    );
    assert_eq!(port(b"\x02\x06\x01\x04sw-2"), "a port of sw-2");
    assert_eq!(port(b"\x01\x03\x1b[m"), "1b:5b:6d");
    assert_eq!(port(b"\x01\x00"), "");
    let long = [&[1, 20][..], &[7; 20]].concat();
    assert_eq!(port(&long).chars().count(), 16 * 3);
}

#[test]
fn what_a_machine_says_is_bounded_and_printable() {
    let said = Identity::of_query(
        "uuid=00112233-4455-6677-8899-AABBCCDDEEFF&serial=%1b%5b2JAB%0a12&manufacturer=Dell%20Inc.&product=&x&y=1",
    );
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    assert_eq!(said.uuid.as_deref(), Some(uuid));
    assert_eq!(said.words(), "Dell Inc., serial [2JAB12");
    let long = Identity::of_query(&format!("serial={}&uuid=<b>", "é".repeat(4000)));
    assert_eq!(long.serial.unwrap().chars().count(), LONGEST);
    assert_eq!(long.uuid, None);
    assert_eq!(Identity::of_query("%&&=&serial"), Identity::default());
}

#[test]
fn a_virtual_machine_is_told_by_its_mac_or_its_own_words() {
    let mut real = seen(REAL, &[], 1);
    assert_eq!(real.virtual_because(), None);
    for (mac, maker) in [
        ([0x52, 0x54, 0x00], "QEMU/KVM gives"),
        ([0x00, 0x16, 0x3e], "Xen"),
        ([0x00, 0x05, 0x69], "VMware"),
        ([0x00, 0x0c, 0x29], "VMware"),
        ([0x00, 0x1c, 0x14], "VMware"),
        ([0x00, 0x50, 0x56], "VMware"),
        ([0x08, 0x00, 0x27], "VirtualBox"),
        ([0x00, 0x15, 0x5d], "Hyper-V"),
        ([0xbc, 0x24, 0x11], "Proxmox"),
        ([0x50, 0x6b, 0x8d], "Nutanix AHV"),
        ([0x00, 0x1a, 0x4a], "oVirt/RHV"),
        ([0x58, 0x9c, 0xfc], "bhyve"),
        ([0x00, 0x1c, 0x42], "Parallels"),
        // Google's, OpenStack's, oVirt's since 4.0.
        ([0x42, 0x01, 0x0a], "its MAC is locally administered"),
        ([0xfa, 0x16, 0x3e], "its MAC is locally administered"),
        ([0x56, 0x6f, 0x1a], "its MAC is locally administered"),
    ] {
        let [a, b, c] = mac;
        let why = seen([a, b, c, 1, 2, 3], &[], 1).virtual_because();
        assert!(
            why.as_ref().is_some_and(|why| why.starts_with(maker)),
            "{mac:02x?}: {why:?}"
        );
    }
    for (manufacturer, product, guest) in [
        ("QEMU", "Standard PC (Q35 + ICH9, 2009)", true),
        ("Red Hat", "KVM", true),
        ("Red Hat", "RHEV Hypervisor", true),
        ("oVirt", "oVirt Node", true),
        ("VMware, Inc.", "VMware20,1", true),
        ("innotek GmbH", "VirtualBox", true),
        ("Microsoft Corporation", "Virtual Machine", true),
        ("Xen", "HVM domU", true),
        ("OpenStack Foundation", "OpenStack Nova", true),
        ("Nutanix", "AHV", true),
        ("FreeBSD", "BHYVE", true),
        (
            "Parallels International GmbH.",
            "Parallels ARM Virtual Machine",
            true,
        ),
        ("Google", "Google Compute Engine", true),
        ("Apple Inc.", "Apple Virtualization Generic Platform", true),
        // Servers that they run on.
        ("Nutanix", "NX-3060-G5", false),
        ("Microsoft Corporation", "C2030", false),
        ("Dell Inc.", "PowerEdge R650", false),
        ("Intel", "Xeon Phi", false),
    ] {
        real.identity.manufacturer = Some(manufacturer.into());
        real.identity.product = Some(product.into());
        let why = real.virtual_because();
        assert_eq!(why.is_some(), guest, "{manufacturer} {product}: {why:?}");
    }
    // A service tag is any seven letters.
    real.identity.serial = Some("8KVMXen".into());
    assert_eq!(real.virtual_because(), None);
    real.identity = Identity::default();
    real.identity.manufacturer = Some("QEMU".into());
    assert_eq!(
        real.virtual_because().as_deref(),
        Some("it calls itself QEMU")
    );
}

#[test]
fn what_is_known_of_a_machine_stays_as_it_asks_again() {
    let mut known = Discoveries::default();
    known.saw(seen(REAL, &[(60, b"PXEClient"), (97, &GUID)], 1));
    known.held(MacAddr(REAL), at(2));
    known.told(MacAddr(REAL), Identity::of_query("serial=A1"));
    let again = seen(REAL, &[], 2);
    known.found(
        again,
        Identity::of_report("serial=A1\n"),
        Hardware::of_report("cpus=2\n"),
    );
    known.saw(seen(REAL, &[(77, b"iPXE")], 3));
    let machine = known.get(MacAddr(REAL)).unwrap();
    assert_eq!(machine.identity.serial.as_deref(), Some("A1"));
    assert!(machine.identity.uuid.is_some());
    assert_eq!(machine.hardware.as_ref().unwrap().cpus, 2);
    assert_eq!((machine.discovers, machine.held), (2, Some(at(2))));
    assert_eq!((machine.first_seen, machine.last_seen), (at(1), at(3)));
}

#[test]
fn inventory_boots_that_come_to_nothing_end_at_the_loader() {
    let mut known = Discoveries::default();
    let mac = MacAddr(REAL);
    known.saw(seen(REAL, &[(60, b"PXEClient"), (93, &[0, 7])], 1));
    let mut begin = |second, of| known.begin_inventory(mac, Some(of), "debian", at(second));
    let other = begin(2, Architecture::Arm64).unwrap_err();
    assert!(other.contains("kernel debian is for arm64"), "{other}");
    for second in [10, 200, 400] {
        assert_eq!(begin(second, Architecture::X86), Ok(()));
    }
    let held = begin(600, Architecture::X86).unwrap_err();
    assert!(held.contains("3 in a row came to nothing"), "{held}");
    assert!(begin(3999, Architecture::X86).is_err());
    assert_eq!(begin(4000, Architecture::X86), Ok(()));
    // A restarted daemon has heard no DISCOVER of it, and one that came through is not held against it.
    known.retain(|_| false);
    let report = "machine=x86_64\nfirmware=uefi\nserial=A1\nnic=eth0\nserial=B2\n";
    let seen = Discovered::of_report(mac, None, report, at(5000));
    known.found(
        seen,
        Identity::of_report(report),
        Hardware::of_report(report),
    );
    let machine = known.get(mac).unwrap();
    assert_eq!(machine.identity.serial.as_deref(), Some("A1"));
    assert_eq!(machine.architecture, "UEFI x86_64");
    assert_eq!(machine.begun, None);
}

#[test]
fn a_flood_of_made_up_macs_does_not_push_out_one_that_waits() {
    let mut known = Discoveries::default();
    known.saw(seen(REAL, &[], 1));
    known.held(MacAddr(REAL), at(1));
    for second in 2..9000_i64 {
        let [.., a, b] = second.to_be_bytes();
        known.saw(seen([0, 1, 2, 3, a, b], &[], second));
    }
    assert_eq!(known.list().len(), MOST);
    assert!(known.get(MacAddr(REAL)).is_some());
    known.retain(|mac| mac != MacAddr(REAL));
    assert!(known.get(MacAddr(REAL)).is_none());
    // Where thousands wait, one more waits for its turn, and takes that of one that is gone.
    known.retain(|_| false);
    let waits = |n: usize| [0x3c, 0xec, 0xef, 1, (n >> 8) as u8, n as u8];
    for n in 0..MOST {
        known.saw(seen(waits(n), &[], 1));
        known.held(MacAddr(waits(n)), at(if n == 7 { 1 } else { 200 }));
    }
    known.saw(seen(REAL, &[], 300));
    assert!(known.get(MacAddr(REAL)).is_none());
    known.saw(seen(REAL, &[], 301));
    assert!(known.get(MacAddr(REAL)).is_some());
    assert!(known.get(MacAddr(waits(7))).is_none());
    assert_eq!(known.list().len(), MOST);
}

/// As much as a machine may say of itself, each in characters of four bytes.
fn largest_report() -> String {
    let long = "\u{10348}".repeat(999);
    let identity =
        format!("serial={long}\nmanufacturer={long}\nproduct={long}\ncpu_model={long}\n");
    let tlvs = "020605010a4d00fe0403073432060200780aff".to_owned();
    let lldp = tlvs + &"f0908d88".repeat(63) + "f0908d";
    let nic = |n: u8| {
        format!(
            "nic={long}\nmac=02:00:00:00:00:{n:02x}\ndriver={long}\nlink=1\nlldp={lldp}\nlldp_error={long}\n"
        )
    };
    identity + &(0..99).map(nic).collect::<String>()
}

#[test]
fn a_flood_of_the_largest_strangers_takes_no_more_than_the_bound() {
    let report = largest_report();
    let (said, hardware) = (Identity::of_report(&report), Hardware::of_report(&report));
    let nics = hardware.nics.len();
    assert!((8..32).contains(&nics), "{nics} NICs");
    let mac = |index: u16| {
        let [c, d] = index.to_be_bytes();
        MacAddr([2, 0, 0, 0, c, d])
    };
    let seen = |index, second| {
        let network = Some("boot".into());
        Discovered::of_report(mac(index), network, "", at(second))
    };
    let mut known = Discoveries::default();
    for index in 0..4000 {
        known.found(seen(index, 1000), said.clone(), hardware.clone());
        known.heard(mac(index), "\u{10348}".repeat(600));
        assert!(known.weight <= MOST_BYTES, "{} bytes", known.weight);
    }
    let there: usize = known.machines.values().map(Discovered::weight).sum();
    assert_eq!(known.weight, there);
    let many = known.machines.len();
    assert!((500..4000).contains(&many), "{many}");
    assert!(known.get(mac(0)).is_some());
    // Once they are silent for long, others may come.
    known.found(seen(5000, 1000 + KEEPS_S), said, hardware);
    let late = known.get(mac(5000));
    assert!(late.is_some_and(|late| late.hardware.is_some()));
    known.retain(|_| false);
    assert_eq!(known.weight, 0);
}

//! DHCP packets captured from real firmware, and what they are answered with.
//!
//! `golden/*.hex` are UDP payloads as QEMU's BIOS iPXE ROM, EDK2 (OVMF, with Secure Boot enforced too), and a
//! chainloaded `undionly.kpxe` or `snponly.efi` sent them; the snapshots beside them hold the decision and the bytes of the reply.
//! Two were written by hand, as no such machine is here: a BIOS ROM that is no iPXE (option order and list of Intel's
//! Boot Agent), and a Raspberry Pi 4's EEPROM (option 97 as its documentation of `DHCP_OPTION97` says).

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use bridgehead::inventory;
use bridgehead::policy::architecture::Architecture;
use bridgehead::policy::client::Client;
use bridgehead::policy::dhcp::{OwnAddresses, Port, Received, World, answer};
use bridgehead::policy::lease::LeaseTable;
use bridgehead::wire::dhcp::Request;
use jiff::Timestamp;

const INVENTORY: &str = "
site: golden
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    dns: [10.77.0.1]
    dhcp: server
    pool: 10.77.0.100-10.77.0.199
profiles:
  kvm-host: {kernel: debian, initrd: default, loader: LOADER, root: {nfs: \"/roots/kvm-host\"}}
  arm-host: {kernel: debian-arm64, initrd: arm64, loader: LOADER, root: {nfs: \"/roots/arm-host\"}}
hosts:
  kvm01: {mac: \"52:54:00:00:00:01\", ip: 10.77.0.11, profile: kvm-host}
  kvm02: {mac: \"52:54:00:00:00:02\", ip: 10.77.0.12, profile: kvm-host}
  kvm04: {mac: \"52:54:00:00:00:04\", ip: 10.77.0.14, profile: kvm-host}
  arm01: {mac: \"52:54:00:00:00:21\", ip: 10.77.0.21, profile: arm-host}
  pi01: {mac: \"dc:a6:32:01:02:03\", ip: 10.77.0.22, profile: arm-host}
unknown: {policy: hold}
";

fn captured(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let hex = std::fs::read_to_string(&path).expect("the capture is there");
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte"))
        .collect()
}

/// Request, decision and reply, as text that a person can check.
fn conversation(name: &str, loader: &str) -> String {
    conversation_in(&INVENTORY.replace("LOADER", loader), name)
}

fn conversation_in(inventory: &str, name: &str) -> String {
    let (inventory, _) = inventory::parse("hosts.yaml", inventory).expect("a sound inventory");
    let request = Request::parse(&captured(name)).expect("firmware sends sound packets");
    let leases = LeaseTable::default();
    let files = [
        "undionly.kpxe",
        "snponly.efi",
        "pxelinux.0",
        "shimx64.efi",
        "shimaa64.efi",
        "start4.elf",
    ];
    let loaders = files.map(str::to_owned).into();
    let kernels = [
        ("debian".to_owned(), Architecture::X86),
        ("debian-arm64".to_owned(), Architecture::Arm64),
    ];
    let kernels = kernels.into();
    let world = World {
        inventory: &inventory,
        leases: &leases,
        own: &OwnAddresses::default(),
        http_port: 80,
        loaders: &loaders,
        kernels: &kernels,
        leaves_for_disk: false,
    };
    let local = Ipv4Addr::new(10, 77, 0, 1);
    let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    let verdict = answer(
        &world,
        &Received {
            request: &request,
            locals: &[local],
            to: Ipv4Addr::BROADCAST,
            source,
            port: Port::Dhcp,
        },
        Timestamp::UNIX_EPOCH,
    );
    let mut text = String::new();
    let codes: Vec<u8> = request.options.keys().copied().collect();
    let _ = writeln!(
        text,
        "{:?} from {}, {}, options {codes:?}",
        request.message_type,
        request.mac,
        Client::of(&request)
    );
    let _ = writeln!(text, "because {}", verdict.because);
    let Some(transmit) = verdict.reply else {
        let _ = writeln!(text, "no answer; {}", verdict.events[0].message);
        return text;
    };
    let _ = writeln!(text, "to {:?}", transmit.destination);
    let bytes = transmit.reply.encode(&request);
    for (index, row) in bytes.chunks(16).enumerate() {
        let hex: String = row.iter().map(|byte| format!("{byte:02x} ")).collect();
        let ascii: String = row
            .iter()
            .map(|b| {
                if b.is_ascii_graphic() || *b == b' ' {
                    char::from(*b)
                } else {
                    '.'
                }
            })
            .collect();
        let _ = writeln!(text, "{:03x}  {hex:<48} {}", index * 16, ascii.trim_end());
    }
    text
}

fn matches(name: &str, conversation: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, conversation));
}

#[test]
fn real_firmware_gets_the_answers_that_boot_it() {
    for name in [
        "bios-ipxe-rom-discover",
        "bios-ipxe-rom-request",
        "bios-pxe-rom-discover",
        "bios-undionly-discover",
        "bios-undionly-request",
        "uefi-edk2-discover",
        "uefi-edk2-request",
        "uefi-ipxe-discover",
        "uefi-ipxe-request",
        "uefi-http-discover",
        "uefi-http-request",
        "uefi-arm64-discover",
        "uefi-arm64-request",
        "raspberry-pi-4-discover",
    ] {
        matches(name, conversation(&format!("{name}.hex"), "ipxe"));
    }
}

#[test]
fn a_kernel_for_another_processor_is_refused_in_words() {
    let inventory = INVENTORY.replace("LOADER", "grub");
    let inventory = inventory.replace("kernel: debian,", "kernel: debian-arm64,");
    let refused = conversation_in(&inventory, "uefi-edk2-discover.hex");
    matches("uefi-other-processor", refused);
}

#[test]
fn other_loaders_get_their_boot_files() {
    let pxelinux = conversation("bios-ipxe-rom-discover.hex", "pxelinux");
    matches("bios-pxelinux", pxelinux);
    let grub = conversation("uefi-edk2-discover.hex", "grub");
    matches("uefi-grub", grub);
}

/// DHCP can't see Secure Boot. By PXE it is `uefi-grub`; by HTTP shim would end at GRUB's prompt.
#[test]
fn secure_boot_by_http_is_not_begun() {
    for name in ["uefi-secure-http-discover", "uefi-secure-http-request"] {
        matches(name, conversation(&format!("{name}.hex"), "grub"));
    }
}

/// Beside another DHCP server: the Raspberry Pi's menu stays, where BIOS ROMs are told to ask no boot server.
#[test]
fn a_proxy_answers_each_rom_as_it_needs() {
    let inventory = INVENTORY.replace("LOADER", "ipxe");
    let pool = "    dhcp: server\n    pool: 10.77.0.100-10.77.0.199\n";
    let inventory = inventory.replace(pool, "    dhcp: proxy\n");
    for name in [
        "bios-pxe-rom-discover",
        "uefi-edk2-discover",
        "raspberry-pi-4-discover",
    ] {
        let text = conversation_in(&inventory, &format!("{name}.hex"));
        matches(&format!("beside-{name}"), text);
    }
}

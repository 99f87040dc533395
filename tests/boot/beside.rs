//! `dhcp: proxy`: firmware boots from us beside another DHCP server, which knows nothing of PXE.

use std::path::Path;
use std::time::Duration;

use super::lab::{Capture, Captured, Firmware, Lab, Namespace, Process, Result, ServerSpec, Site};
use super::{INVENTORY, SWITCH, said, scenario, site_of};

/// What makes dnsmasq name the appliance as the next server (siaddr), and no boot file.
const NAMES_US: &str = "--dhcp-boot=,,10.77.0.1";

/// A plain DHCP server, as a router is one: dnsmasq without a word of PXE.
struct Router {
    _dnsmasq: Process,
    _namespace: Namespace,
}

fn router(lab: &Lab, logs: &Path, own: &[&str]) -> Result<Router> {
    let namespace = lab.client("router", "52:54:00:00:00:fe")?;
    namespace.ip(&["addr", "add", "10.77.0.254/24", "dev", "eth0"])?;
    let leases = lab.dir().join("dnsmasq.leases");
    let leases = format!("--dhcp-leasefile={}", leases.display());
    let plain = [
        "dnsmasq",
        "--keep-in-foreground",
        "--log-facility=-",
        "--conf-file=/dev/null",
        "--user=root",
        "--port=0",
        "--no-ping",
        "--interface=eth0",
        "--dhcp-range=10.77.0.200,10.77.0.220,1h",
        &leases,
    ];
    let argv = [&plain, own].concat();
    let log = logs.join("dnsmasq.log");
    let mut dnsmasq = Process::spawn("dnsmasq", namespace.name(), &argv, &log)?;
    dnsmasq.wait_for("DHCP, IP range", Duration::from_secs(10))?;
    Ok(Router {
        _dnsmasq: dnsmasq,
        _namespace: namespace,
    })
}

/// Boots a host of the shared inventory until it has its initrd, the last that firmware and loader fetch; `own` are
/// arguments of the other server. Gives what went over the wire.
fn boots(
    name: &str,
    spec: ServerSpec,
    own: &[&str],
    check: impl FnOnce(&Site, &Captured) -> Result<()>,
) {
    scenario(name, |lab, logs| {
        let pool = "    dhcp: server\n    pool: 10.77.0.100-10.77.0.199\n";
        let inventory = INVENTORY.replace(pool, "    dhcp: proxy\n");
        assert!(inventory.contains("dhcp: proxy"));
        let mut site = site_of(lab, &logs, &inventory)?;
        let _router = router(&site.lab, &logs, own)?;
        // Without what TFTP sends: that is some 16 MB.
        let asked = "udp port 67 or udp port 68 or udp port 4011 or udp dst port 69";
        let capture = Capture::start(&site.lab, &logs, "wire", asked)?;
        let host = spec.name().to_owned();
        let mut server = spec.power_on(&site.lab, &logs)?;
        site.wait_stage(&mut server, "initrd", SWITCH)?;
        let told = said(&site, &host)?;
        assert!(told.contains("and gave no address"), "{told}");
        let wire = capture.stop()?;
        // yiaddr: we give no address.
        let given = "udp src port 67 and src host 10.77.0.1 and udp[24:4] != 0";
        assert_eq!(wire.packets(given)?, Vec::<String>::new());
        check(&site, &wire)
    });
}

fn spec(host: &str, firmware: Firmware) -> ServerSpec {
    let mac = format!("52:54:00:00:00:0{}", host.trim_start_matches("kvm0"));
    ServerSpec::new(host, &mac, firmware)
}

/// Each question to port 4011 is answered, which firmware sends from 4011 too: firmware that asks twice has waited for a time-out.
fn answered_at_once(wire: &Captured, questions: usize) -> Result<()> {
    let asked = wire.packets("udp dst port 4011 and dst host 10.77.0.1")?;
    let answers = wire.packets("udp src port 4011 and src host 10.77.0.1")?;
    assert_eq!(
        (asked.len(), answers.len()),
        (questions, questions),
        "{asked:#?}"
    );
    Ok(())
}

#[test]
#[ignore = "make test-boot"]
fn bios_boots_beside_another_server() {
    let spec = spec("kvm01", Firmware::Bios);
    boots("beside-bios", spec, &[], |_, wire| {
        wire.check_ipxe_asks_once(1)?;
        answered_at_once(wire, 0)
    });
}

/// EDK2 asks port 4011 once; the iPXE that it loads takes its script from the proxy's OFFER.
#[test]
#[ignore = "make test-boot"]
fn uefi_boots_beside_another_server() {
    let spec = spec("kvm01", Firmware::UefiX64);
    boots("beside-uefi", spec, &[], |_, wire| {
        wire.check_ipxe_asks_once(1)?;
        answered_at_once(wire, 1)
    });
}

/// EDK2 takes the URL of the proxy's OFFER, and asks no port 4011: that is PXE's.
#[test]
#[ignore = "make test-boot"]
fn uefi_http_boots_beside_another_server() {
    let spec = spec("kvm02", Firmware::UefiX64).http_boot();
    boots("beside-http", spec, &[], |_, wire| {
        wire.check_ipxe_asks_once(1)?;
        assert_eq!(wire.packets("udp port 69")?, Vec::<String>::new());
        answered_at_once(wire, 0)
    });
}

#[test]
#[ignore = "make test-boot"]
fn pxelinux_boots_beside_another_server() {
    let spec = spec("kvm03", Firmware::Bios);
    boots("beside-pxelinux", spec, &[], |site, wire| {
        let told = said(site, "kvm03")?;
        assert!(told.contains("PXELINUX config sent"), "{told}");
        answered_at_once(wire, 0)
    });
}

#[test]
#[ignore = "make test-boot"]
fn grub_on_bios_boots_beside_another_server() {
    let spec = spec("kvm05", Firmware::Bios);
    boots("beside-grub", spec, &[NAMES_US], |site, wire| {
        let told = said(site, "kvm05")?;
        assert!(told.contains("name 10.77.0.1 as next server"), "{told}");
        assert!(told.contains("GRUB config sent"), "{told}");
        answered_at_once(wire, 0)
    });
}

#[test]
#[ignore = "make test-boot"]
fn shim_and_grub_boot_beside_another_server() {
    let spec = spec("kvm04", Firmware::UefiX64);
    boots("beside-shim", spec, &[NAMES_US], |site, wire| {
        let told = said(site, "kvm04")?;
        assert!(told.contains("name 10.77.0.1 as next server"), "{told}");
        assert!(told.contains("GRUB config sent"), "{told}");
        answered_at_once(wire, 1)
    });
}

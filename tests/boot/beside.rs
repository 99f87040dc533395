//! `dhcp: proxy`: firmware boots from us beside another DHCP server, which knows nothing of PXE.

use std::time::Duration;

use super::lab::{Capture, Captured, Firmware, Lab, Namespace, Process, Result, ServerSpec};
use super::{INVENTORY, SWITCH, said, scenario, site_of};

/// A plain DHCP server, as a router is one: dnsmasq without a word of PXE.
struct Router {
    _dnsmasq: Process,
    _namespace: Namespace,
}

fn router(lab: &Lab, logs: &std::path::Path) -> Result<Router> {
    let namespace = lab.client("router", "52:54:00:00:00:fe")?;
    namespace.ip(&["addr", "add", "10.77.0.254/24", "dev", "eth0"])?;
    let leases = lab.dir().join("dnsmasq.leases");
    let leases = format!("--dhcp-leasefile={}", leases.display());
    let argv = [
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
    let log = logs.join("dnsmasq.log");
    let mut dnsmasq = Process::spawn("dnsmasq", namespace.name(), &argv, &log)?;
    dnsmasq.wait_for("DHCP, IP range", Duration::from_secs(10))?;
    Ok(Router {
        _dnsmasq: dnsmasq,
        _namespace: namespace,
    })
}

/// Boots kvm01 until it has its initrd, the last that firmware and loader fetch; gives what went over the wire.
fn boots(name: &str, firmware: Firmware, check: impl FnOnce(&Captured) -> Result<()>) {
    scenario(name, |lab, logs| {
        let pool = "    dhcp: server\n    pool: 10.77.0.100-10.77.0.199\n";
        let inventory = INVENTORY.replace(pool, "    dhcp: proxy\n");
        assert!(inventory.contains("dhcp: proxy"));
        let mut site = site_of(lab, &logs, &inventory)?;
        let _router = router(&site.lab, &logs)?;
        let capture = Capture::start(&site.lab, &logs, "wire", "udp")?;
        let spec = ServerSpec::new("kvm01", "52:54:00:00:00:01", firmware);
        let mut server = spec.power_on(&site.lab, &logs)?;
        site.wait_stage(&mut server, "initrd", SWITCH)?;
        let told = said(&site, "kvm01")?;
        assert!(told.contains("and gave no address"), "{told}");
        let wire = capture.stop()?;
        // yiaddr: we give no address.
        let given = "udp src port 67 and src host 10.77.0.1 and udp[24:4] != 0";
        assert_eq!(wire.packets(given)?, Vec::<String>::new());
        check(&wire)
    });
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
    boots("beside-bios", Firmware::Bios, |wire| {
        answered_at_once(wire, 0)
    });
}

/// EDK2 asks port 4011 once; the iPXE that it loads takes its script from the proxy's OFFER.
#[test]
#[ignore = "make test-boot"]
fn uefi_boots_beside_another_server() {
    boots("beside-uefi", Firmware::UefiX64, |wire| {
        answered_at_once(wire, 1)
    });
}

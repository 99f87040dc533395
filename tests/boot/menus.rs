//! Boot menus on real firmware, by every loader: the time-out takes the default, a key the local disk, which boots.

use std::path::Path;
use std::time::{Duration, Instant};

use super::lab::{Disk, Firmware, Lab, LabError, Result, ServerSpec, Site, VirtualServer};
use super::{said, scenario, site_of};

/// From power-on to a menu.
const MENU: Duration = Duration::from_secs(180);
/// From a choice to what it boots.
const CHOSEN: Duration = Duration::from_secs(120);
const WORD: &str = "this-is-the-local-disk";

/// kvm01 takes the default by itself; kvm02 waits.
fn inventory(loader: &str) -> String {
    let menu = format!(
        "profiles:
  menu:
    extends: base
    loader: {loader}
    menu:
      timeout: 4
      default: kvm
      entries:
        kvm: {{label: \"KVM host\"}}
        newer: {{label: \"The other profile\", profile: kvm-host}}
        disk: {{label: \"Local disk\", local: true}}
  waits: {{extends: menu, menu: {{timeout: never}}}}
"
    );
    let inventory = super::INVENTORY.replace("profiles:\n", &menu);
    let inventory = inventory.replace("10.77.0.11, profile: kvm-host", "10.77.0.11, profile: menu");
    inventory.replace(
        "10.77.0.12, profile: kvm-host",
        "10.77.0.12, profile: waits",
    )
}

fn spec(name: &str, firmware: Firmware) -> ServerSpec {
    let mac = format!("52:54:00:00:00:0{}", name.trim_start_matches("kvm0"));
    ServerSpec::new(name, &mac, firmware).memory_mib(512)
}

/// Both hosts, powered on; kvm02 with a disk.
fn rack(site: &Site, logs: &Path, firmware: Firmware) -> Result<[VirtualServer; 2]> {
    let disk = match firmware {
        Firmware::Bios => Disk::bios(site.lab.dir(), WORD)?,
        _ => Disk::uefi(site.lab.dir(), WORD)?,
    };
    let default = spec("kvm01", firmware).power_on(&site.lab, logs)?;
    let chooser = spec("kvm02", firmware).disk(&disk);
    // Without SeaBIOS's own copy of the screen on the serial line: what comes there is the loader's.
    let chooser = match firmware {
        Firmware::Bios => chooser.qemu_args(&["-machine", "graphics=on"]),
        // Two minutes of waiting, before HTTP boot gets its turn.
        _ => chooser.qemu_args(&["-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=no"]),
    };
    Ok([default, chooser.power_on(&site.lab, logs)?])
}

fn check(lab: Lab, logs: &Path, loader: &str, firmware: Firmware) -> Result<()> {
    let mut site = site_of(lab, logs, &inventory(loader))?;
    let [mut default, mut chooser] = rack(&site, logs, firmware)?;
    site.wait_stage(&mut default, "kernel", MENU)?;
    let told = said(&site, "kvm01")?;
    assert!(told.contains("took kvm, the menu's default"), "{told}");
    default.power_off()?;

    site.wait_stage(&mut chooser, "menu", MENU)?;
    choose(&mut site, &mut chooser, logs)?;
    // iPXE gives UEFI the control back, which goes on with its boot order: OVMF has HTTP boot before the disk, and is
    // given nothing by it. By IPv6 it waits for that until a time-out.
    let by_boot_order = ("ipxe", Firmware::UefiX64) == (loader, firmware);
    chooser.wait_for(WORD, if by_boot_order { 3 * CHOSEN } else { CHOSEN })?;
    let told = said(&site, "kvm02")?;
    assert!(told.contains("chose disk in the menu"), "{told}");
    assert_eq!(told.contains("nothing to boot"), by_boot_order, "{told}");
    let status = site.daemon.status()?;
    let host = status.host("kvm02").expect("it is listed");
    assert_eq!(host.stage.as_deref(), Some("local-disk"), "{host:?}");
    assert_eq!(host.state.as_deref(), Some("away"), "{host:?}");
    Ok(())
}

/// Presses 3 each second until the local disk is asked for: a menu that was sent is not yet one that listens. Keeps a
/// picture of it.
fn choose(site: &mut Site, server: &mut VirtualServer, logs: &Path) -> Result<()> {
    let picture = logs.join(format!("{}.png", server.spec().name()));
    let deadline = Instant::now() + CHOSEN;
    loop {
        server.screenshot(&picture)?;
        server.press("3")?;
        let asked = site.wait_stage(server, "local-disk", Duration::from_secs(1));
        match asked {
            Err(LabError::Timeout { .. }) if Instant::now() < deadline => {}
            asked => return asked.map(drop),
        }
    }
}

#[test]
fn a_menu_by_ipxe_on_bios() {
    scenario("menu-ipxe", |lab, logs| {
        check(lab, &logs, "ipxe", Firmware::Bios)
    });
}

#[test]
#[ignore = "make test-boot"]
fn a_menu_by_ipxe_on_uefi() {
    scenario("menu-ipxe-uefi", |lab, logs| {
        check(lab, &logs, "ipxe", Firmware::UefiX64)
    });
}

#[test]
#[ignore = "make test-boot"]
fn a_menu_by_pxelinux() {
    scenario("menu-pxelinux", |lab, logs| {
        check(lab, &logs, "pxelinux", Firmware::Bios)
    });
}

#[test]
#[ignore = "make test-boot"]
fn a_menu_by_grub_on_bios() {
    scenario("menu-grub", |lab, logs| {
        check(lab, &logs, "grub", Firmware::Bios)
    });
}

#[test]
#[ignore = "make test-boot"]
fn a_menu_by_grub_on_uefi() {
    scenario("menu-grub-uefi", |lab, logs| {
        check(lab, &logs, "grub", Firmware::UefiX64)
    });
}

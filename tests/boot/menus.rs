//! Boot menus on real firmware, by every loader: the time-out takes the default, a key the local disk, which boots.

use std::path::Path;
use std::time::{Duration, Instant};

use super::lab::{Disk, Firmware, Lab, LabError, Result, ServerSpec, Site, VirtualServer};
use super::rescue::{HASH, PASSWORD};
use super::{SWITCH, said, scenario, site_of};

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
    with_profiles(&menu, "menu", "waits")
}

/// The shared inventory with these profiles more, and kvm01 and kvm02 of them.
fn with_profiles(profiles: &str, first: &str, second: &str) -> String {
    let inventory = super::INVENTORY.replace("profiles:\n", profiles);
    let of = |address: &str, profile: &str| format!("{address}, profile: {profile}");
    let inventory = inventory.replace(&of("10.77.0.11", "kvm-host"), &of("10.77.0.11", first));
    inventory.replace(&of("10.77.0.12", "kvm-host"), &of("10.77.0.12", second))
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

/// A menu that waits, with what reports nothing and what needs an operator.
fn inventory_of_keys(loader: &str) -> String {
    let menu = format!(
        "profiles:
  keys:
    extends: base
    loader: {loader}
    menu:
      timeout: never
      entries:
        kvm: {{label: \"KVM host\"}}
        rescue: {{label: \"Rescue shell\", rescue: {{password: \"{HASH}\"}}}}
        alone: {{label: \"A kernel alone\", kernel: debian, initrd: none, cmdline: [no_timer_check, \"console=ttyS0,115200\"]}}
"
    );
    with_profiles(&menu, "keys", "keys")
}

/// kvm01 takes the rescue shell and kvm02 the kernel without an initrd, each by a key on the serial line.
fn check_serial_keys(lab: Lab, logs: &Path, loader: &str, firmware: Firmware) -> Result<()> {
    let mut site = site_of(lab, logs, &inventory_of_keys(loader))?;
    let rack = |name: &str| {
        let spec = spec(name, firmware);
        // PXELINUX and GRUB drive the line themselves, iPXE leaves it to SeaBIOS.
        match (firmware, loader) {
            (Firmware::Bios, "pxelinux" | "grub") => spec.qemu_args(&["-machine", "graphics=on"]),
            _ => spec,
        }
    };
    let mut rescue = rack("kvm01").power_on(&site.lab, logs)?;
    let mut alone = rack("kvm02").power_on(&site.lab, logs)?;

    site.wait_stage(&mut rescue, "menu", MENU)?;
    choose_by_serial(&mut site, &mut rescue, "2")?;
    site.wait_stage(&mut alone, "menu", MENU)?;
    choose_by_serial(&mut site, &mut alone, "3")?;
    check_rescue(&mut site, &mut rescue)?;
    check_alone(&site, &mut alone)
}

/// Presses the key each second until an entry is asked for.
fn choose_by_serial(site: &mut Site, server: &mut VirtualServer, key: &str) -> Result<()> {
    let deadline = Instant::now() + CHOSEN;
    loop {
        server.type_keys(key)?;
        match site.wait_stage(server, "script", Duration::from_secs(1)) {
            Err(LabError::Timeout { .. }) if Instant::now() < deadline => {}
            asked => return asked.map(drop),
        }
    }
}

fn check_rescue(site: &mut Site, server: &mut VirtualServer) -> Result<()> {
    site.wait_stage(server, "rescue", SWITCH)?;
    let told = said(site, "kvm01")?;
    assert!(told.contains("chose rescue in the menu"), "{told}");
    server.wait_for("login:", CHOSEN)?;
    server.type_line("root")?;
    server.wait_for("Password:", CHOSEN)?;
    server.type_line(PASSWORD)?;
    server.wait_for("Bridgehead rescue", CHOSEN).map(drop)
}

/// The kernel has nothing to mount, and says so; of what it does the daemon hears nothing, and waits for nothing.
fn check_alone(site: &Site, server: &mut VirtualServer) -> Result<()> {
    server.wait_for("Unable to mount root fs", SWITCH)?;
    let text = server.serial().text();
    assert!(!text.contains("bridgehead.host="), "{text}");
    let told = said(site, "kvm02")?;
    assert!(told.contains("chose alone in the menu, kernel "), "{told}");
    let status = site.daemon.status()?;
    let host = status.host("kvm02").expect("it is listed");
    assert_eq!(host.state.as_deref(), Some("away"), "{host:?}");
    Ok(())
}

#[test]
#[ignore = "make test-boot"]
fn keys_over_the_serial_line_by_ipxe_on_bios() {
    scenario("keys-ipxe", |lab, logs| {
        check_serial_keys(lab, &logs, "ipxe", Firmware::Bios)
    });
}

#[test]
#[ignore = "make test-boot"]
fn keys_over_the_serial_line_by_pxelinux() {
    scenario("keys-pxelinux", |lab, logs| {
        check_serial_keys(lab, &logs, "pxelinux", Firmware::Bios)
    });
}

#[test]
#[ignore = "make test-boot"]
fn keys_over_the_serial_line_by_grub_on_bios() {
    scenario("keys-grub", |lab, logs| {
        check_serial_keys(lab, &logs, "grub", Firmware::Bios)
    });
}

#[test]
#[ignore = "make test-boot"]
fn keys_over_the_serial_line_by_grub_on_uefi() {
    scenario("keys-grub-uefi", |lab, logs| {
        check_serial_keys(lab, &logs, "grub", Firmware::UefiX64)
    });
}

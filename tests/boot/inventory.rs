//! The inventory boot: a machine that nobody listed tells what it is, waits in its initrd, and goes on as a host.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::firmware::{ARM64, arm64_data};
use super::lab::{
    Firmware, Log, Result, ServerSpec, Site, SwitchPort, bridgehead, lldpdu, output, until,
};
use super::{INVENTORY, SWITCH, check_console, repository, said, scenario, site_of, with_kernel};

const MAC: &str = "3c:ec:ef:00:00:07";
/// From power-on to the initrd's word, with 35 s of listening for switches.
const TOLD: Duration = Duration::from_secs(240);

fn discover(site: &Site, args: &[&str]) -> Result<String> {
    let state = site.lab.dir().join("state").display().to_string();
    let argv = [&[bridgehead(), "discover"], args, &["--state", &state]].concat();
    let done = output(&argv)?;
    Ok(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
}

fn until_listed_with(site: &Site, words: &str) -> Result<()> {
    let probe = || Ok(discover(site, &["list"])?.contains(words).then_some(()));
    let context = || discover(site, &["list"]).unwrap_or_default();
    until(words, TOLD, probe, context)
}

fn approve(site: &Site, profile: &str) -> Result<()> {
    let words = format!("approve {MAC} --name bare --profile {profile} --ip 10.77.0.20 --virtual");
    let words: Vec<&str> = words.split(' ').collect();
    let said = discover(site, &words)?;
    assert!(said.contains("goes on by itself"), "{said}");
    Ok(())
}

/// How often a line was on the console.
fn times(serial: &Log, words: &str) -> usize {
    serial
        .text()
        .lines()
        .filter(|line| line.contains(words))
        .count()
}

#[test]
fn a_stranger_tells_what_it_is_and_where_and_goes_on_in_the_same_initrd() {
    scenario("inventory", |lab, logs| {
        let inventory = INVENTORY.replace("{policy: hold}", "{policy: hold, inventory: base}");
        let mut site = site_of(lab, &logs, &inventory)?;
        let spec = ServerSpec::new("bare", MAC, Firmware::Bios);
        let port = spec.port(0);
        let mut server = spec.power_on(&site.lab, &logs)?;
        let frame = repository().join("fuzz/corpus/lldp/ios.bin");
        let frame = fs::read(frame).expect("the corpus");
        let _switch = SwitchPort::new(&site.lab, &port, &frame)?;
        server.wait_for("not listed: waits for its name", TOLD)?;
        until_listed_with(
            &site,
            "at Gi1/0/3 of sw-r1.example.org (GigabitEthernet1/0/3)",
        )?;
        let list = discover(&site, &["list"])?;
        for words in ["1 CPU", "MiB memory", "virtio_net", "QEMU", "waits"] {
            assert!(list.contains(words), "no `{words}` in:\n{list}");
        }
        // It waits through a restart of the daemon, which then knows nothing of it.
        site.daemon.signal(Signal::SIGKILL)?;
        site.daemon.wait_exit(Duration::from_secs(20))?;
        site.restart()?;
        until_listed_with(&site, "at Gi1/0/3 of sw-r1.example.org")?;
        approve(&site, "base")?;
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
        let serial = server.serial();
        assert_eq!(times(serial, "iPXE initialising"), 1, "it booted anew");
        assert_eq!(times(serial, "early       ok"), 2);
        Ok(())
    });
}

/// What the daemon knows of the port when the link comes back is of the old one, whose host waits for a machine too.
#[test]
#[ignore = "make test-boot"]
fn a_machine_whose_cable_is_moved_while_it_waits_becomes_the_host_of_the_new_port() {
    scenario("inventory-moved", |lab, logs| {
        let policy = "{policy: by-port, inventory: base, lldp: true, virtual: true}";
        let inventory = INVENTORY.replace("{policy: hold}", policy);
        let mut site = site_of(lab, &logs, &inventory)?;
        let spec = ServerSpec::new("bare", MAC, Firmware::Bios);
        let port = spec.port(0);
        let mut server = spec.power_on(&site.lab, &logs)?;
        let old = SwitchPort::new(&site.lab, &port, &lldpdu("sw-r1", "1", 120))?;
        server.wait_for("not listed: waits for its name", TOLD)?;
        until_listed_with(&site, "at 1 of sw-r1")?;
        server.set_link(false)?;
        server.wait_for("no DHCP offer on eth0 (port eth0 carrier=0", TOLD)?;
        drop(old);
        let _new = SwitchPort::new(&site.lab, &port, &lldpdu("sw-r1", "2", 120))?;
        let hosts = "hosts:\n  \
            wrong: {switch: sw-r1, port: \"1\", ip: 10.77.0.21, profile: base}\n  \
            bare: {switch: sw-r1, port: \"2\", ip: 10.77.0.22, profile: base}\n";
        site.edit(&with_kernel(&inventory.replace("hosts:\n", hosts)))?;
        until(
            "the daemon to serve both hosts",
            TOLD,
            || Ok(site.daemon.status()?.host("wrong").map(|_| ())),
            || site.daemon.log().tail(30),
        )?;
        server.set_link(true)?;
        server.wait_for("is bare now, and goes on as that", TOLD)?;
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
        let log = site.daemon.log().tail(200);
        assert!(log.contains("which is at port 2 of sw-r1"), "{log}");
        assert!(!log.contains("becomes wrong"), "{log}");
        Ok(())
    });
}

/// Without an inventory boot these loaders restart the machine each minute.
fn waits_and_goes_on_by(profile: &str, firmware: Firmware, loader: &str) {
    scenario(&format!("inventory-{profile}"), |lab, logs| {
        let unknown = format!("{{policy: hold, inventory: {profile}}}");
        let mut site = site_of(lab, &logs, &INVENTORY.replace("{policy: hold}", &unknown))?;
        let mut server = ServerSpec::new("bare", MAC, firmware).power_on(&site.lab, &logs)?;
        server.wait_for("not listed: waits for its name", TOLD)?;
        until_listed_with(&site, "1 CPU")?;
        let log = said(&site, "mac-3cecef000007")?;
        assert!(log.contains(loader), "no {loader} in:\n{log}");
        approve(&site, profile)?;
        server.wait_for("is bare now, and goes on as that", TOLD)?;
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
        assert_eq!(times(server.serial(), "early       ok"), 2);
        Ok(())
    });
}

#[test]
#[ignore = "make test-boot"]
fn pxelinux_starts_the_inventory_boot() {
    waits_and_goes_on_by("by-pxelinux", Firmware::Bios, "pxelinux.0");
}

#[test]
#[ignore = "make test-boot"]
fn grub_starts_the_inventory_boot_on_bios_and_uefi() {
    waits_and_goes_on_by("by-grub", Firmware::Bios, "grub-bios.pxe");
    waits_and_goes_on_by("by-grub", Firmware::UefiX64, "shimx64.efi");
}

#[test]
#[ignore = "make test-boot"]
fn an_arm64_stranger_tells_which_port_it_is_at() {
    scenario("inventory-arm64", |lab, logs| {
        let inventory = format!("{ARM64}unknown: {{policy: hold, inventory: arm}}\n");
        let site = Site::start(lab, &inventory, &arm64_data()?, &logs)?;
        let spec = ServerSpec::new("bare", MAC, Firmware::UefiArm64);
        let port = spec.port(0);
        let mut server = spec.power_on(&site.lab, &logs)?;
        let _switch = SwitchPort::new(&site.lab, &port, &lldpdu("sw-r1", "7", 120))?;
        server.wait_for("not listed: waits for its name", TOLD)?;
        until_listed_with(&site, "at 7 of sw-r1")
    });
}

#[test]
#[ignore = "make test-boot"]
fn a_stranger_that_becomes_a_host_with_other_arguments_boots_anew() {
    scenario("inventory-anew", |lab, logs| {
        let inventory = INVENTORY
            .replace("{policy: hold}", "{policy: hold, inventory: by-grub}")
            .replace(
                "{extends: base, loader: grub}",
                "{extends: base, loader: grub, cmdline: [quiet]}",
            );
        let mut site = site_of(lab, &logs, &inventory)?;
        let spec = ServerSpec::new("bare", MAC, Firmware::UefiX64);
        let mut server = spec.power_on(&site.lab, &logs)?;
        server.wait_for("not listed: waits for its name", TOLD)?;
        until_listed_with(&site, "1 CPU")?;
        approve(&site, "base")?;
        server.wait_for("or other arguments: reboots", TOLD)?;
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
        Ok(())
    });
}

//! T3 to T6: the network under the bridge, as real racks have it. The kernel is started directly.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::image::{append, build, program};
use super::lab::{Cable, Firmware, Nic, Result, ServerSpec, repository, run};
use super::{SWITCH, check_console, scenario, site};

const MAC: &str = "52:54:00:00:00:01";
const ADDRESS: &str = "10.77.0.11";
/// From the switch to a root that answers the guest agent.
const ROOT: Duration = Duration::from_secs(240);

/// A server of four cards, the boot NIC the third and of a kind of its own.
fn four_cards() -> ServerSpec {
    ServerSpec::new("kvm01", MAC, Firmware::Bios)
        .boot_nic(
            Nic::new("52:54:00:00:01:01")
                .model("e1000e")
                .cable(Cable::Nowhere),
        )
        .nic(
            Nic::new("52:54:00:00:01:02")
                .model("igb")
                .cable(Cable::Nowhere),
        )
        .nic(Nic::new(MAC))
        .nic(
            Nic::new("52:54:00:00:01:04")
                .model("vmxnet3")
                .cable(Cable::Nowhere),
        )
}

#[test]
#[ignore = "make test-boot"]
fn t04_of_four_cards_the_one_of_bootif() {
    scenario("t04", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let order = site.boot_order(MAC, ADDRESS)?;
        let mut server = site.boot_order_on(four_cards(), &order, "")?;
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
        let nic = server.serial().find(&format!(" {MAC} (BOOTIF)"));
        assert!(nic.is_some(), "{}", server.serial().tail(40));
        Ok(())
    });
}

#[test]
#[ignore = "make test-boot"]
fn t05_no_carrier_at_first_and_a_daemon_that_is_silent_for_45_s() {
    scenario("t05", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let spec = ServerSpec::new("kvm01", MAC, Firmware::Bios);
        let mut server = site.boot_directly(spec, ADDRESS, "bridgehead.ip=dhcp")?;
        server.set_link(false)?;
        let cable = server.wait_for("(port eth0 carrier=0 rx=0)", SWITCH)?;
        assert!(
            cable.contains(" link        retry no carrier on eth0 after "),
            "{cable}"
        );
        site.daemon.signal(Signal::SIGSTOP)?;
        server.set_link(true)?;
        server.wait_for(" bridge      ok ", SWITCH)?;
        // The 45 s are what is tested: no DHCP offer, and then one.
        thread::sleep(Duration::from_secs(45));
        let text = server.serial().text();
        site.daemon.signal(Signal::SIGCONT)?;
        let retries = text
            .lines()
            .filter(|line| line.contains(" address     retry "));
        let tries: Vec<_> = retries.collect();
        assert!(tries.len() >= 2, "{}", server.serial().tail(30));
        for line in tries {
            assert!(
                line.contains("no DHCP offer on br0 (port eth0 carrier=1 rx="),
                "{line}"
            );
        }
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
        let address = server.serial().find(" address     ok ").unwrap_or_default();
        assert!(
            address.contains("10.77.0.11/24 on br0 (dhcp, try "),
            "{address}"
        );
        Ok(())
    });
}

#[test]
#[ignore = "make test-boot"]
fn t06_a_switch_port_that_forwards_after_50_s_is_waited_for() {
    scenario("t06", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let spec = ServerSpec::new("kvm01", MAC, Firmware::Bios);
        let mut server = site.boot_directly(spec, ADDRESS, "")?;
        site.lab.set_forwarding("kvm01", false)?;
        server.wait_for(" bridge      ok ", SWITCH)?;
        // The 50 s are what is tested: a switch without portfast.
        thread::sleep(Duration::from_secs(50));
        let waits = server.serial().find("address     retry");
        site.lab.set_forwarding("kvm01", true)?;
        let waits = waits.unwrap_or_else(|| panic!("{}", server.serial().tail(30)));
        assert!(waits.contains("carrier=1"), "{waits}");
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
        Ok(())
    });
}

#[test]
#[ignore = "make test-boot"]
fn t03_guests_ports_change_neither_mac_nor_mtu_of_the_bridge() {
    scenario("t03", |lab, logs| {
        let inventory = super::INVENTORY.replace("mtu: 1500", "mtu: 9000");
        let mut site = super::site_of(lab, &logs, &inventory)?;
        for device in ["boot0", "srv0"] {
            let namespace = if device == "boot0" {
                site.lab.appliance()
            } else {
                site.lab.switch()
            };
            namespace.ip(&["link", "set", device, "mtu", "9000"])?;
        }
        let spec = ServerSpec::new("kvm01", MAC, Firmware::Bios);
        let order = site.boot_order(MAC, ADDRESS)?;
        let spec = spec.boot_nic(Nic::new(MAC).model("virtio-net-pci,host_mtu=9000"));
        let mut server = site.boot_order_on(spec, &order, "")?;
        site.lab
            .switch()
            .ip(&["link", "set", "kvm01", "mtu", "9000"])?;
        site.lab
            .switch()
            .ip(&["link", "set", "sw0", "mtu", "9000"])?;
        site.wait_stage(&mut server, "switch", SWITCH)?;
        site.wait_stage(&mut server, "online", ROOT)?;
        let mut agent = server.agent(ROOT)?;
        let look = "cat /sys/class/net/br0/address /sys/class/net/br0/mtu";
        assert_eq!(agent.ask(look)?, format!("{MAC}\n9000"));
        agent.ask("ip link add low address 02:00:00:00:00:01 type dummy && ip link set low mtu 1500 master br0 up")?;
        assert_eq!(agent.ask(look)?, format!("{MAC}\n9000"));
        agent.ask("ip link del low && echo 3 > /proc/sys/vm/drop_caches && cat /usr/bin/dpkg* > /dev/null")?;
        assert_eq!(agent.ask(look)?, format!("{MAC}\n9000"));
        Ok(())
    });
}

/// As SWITCH, where two servers share the machine.
const TWO: Duration = Duration::from_secs(600);
/// The output of an operator's hook, and a hook that fails.
const LEDS: &str =
    "#!/bin/sh\necho \"leds of $(cat $BRIDGEHEAD_RUN/nic) lit after $BRIDGEHEAD_STAGE\"\n";
const REFUSES: &str = "#!/bin/sh\necho looking for LLDP\necho no LLDP neighbour >&2\nexit 3\n";

/// kvm01 finds its NIC by itself, has 256 MB of memory and an initrd of four archives; the second host's hook fails.
#[test]
#[ignore = "make test-boot"]
fn t16_t04_no_bootif_256_mb_several_archives_and_hooks() {
    scenario("t16", |lab, logs| {
        let (image, refusing) = images(lab.dir())?;
        let mut site = site(lab, &logs)?;
        let order = site.boot_order(MAC, ADDRESS)?.without("BOOTIF=");
        let mut server = site.boot_image_on(four_cards().memory_mib(256), &order, &image)?;
        let order = site.boot_order("52:54:00:00:00:02", "10.77.0.12")?;
        let second = ServerSpec::new("kvm02", "52:54:00:00:00:02", Firmware::Bios).memory_mib(256);
        let mut second = site.boot_image_on(second, &order, &refusing)?;
        let failed = second.wait_for("config      FAIL", TWO)?;
        let reason = "hook 90-uplink: exit status 3: no LLDP neighbour";
        assert!(failed.contains(reason), "{failed}");
        site.wait_stage(&mut server, "switch", TWO)?;
        check_console(&server);
        let said = |words: &str| {
            let line = server.serial().find(words);
            line.unwrap_or_else(|| panic!("no `{words}`\n{}", server.serial().text()))
        };
        // Kernels number NICs as their drivers come; the hook reads the fact.
        let found = said(&format!("{MAC} (10.77.0.1 answers ARP, no BOOTIF"));
        let nic = found
            .split_whitespace()
            .find(|word| word.starts_with("eth"));
        let nic = nic.unwrap_or_else(|| panic!("{found}"));
        said(&format!(
            "nic         info  hook 10-leds: leds of {nic} lit after nic"
        ));
        said("config      info  hook 20-of-this-host: appended");
        let events = site.daemon.verb("log", &["kvm02"])?;
        let events = String::from_utf8_lossy(&events.stdout).into_owned();
        assert!(
            events.contains(reason) && events.contains("hook 90-uplink: looking for LLDP"),
            "{events}"
        );
        Ok(())
    });
}

/// The repository's initrd with a hook as an operator has it built in, and one more archive with another; the same
/// with a third that holds a hook that fails.
fn images(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let [built, image, refusing] =
        ["built", "one", "two"].map(|name| dir.join(format!("{name}.img")));
    let source = dir.join("initrd");
    run(&[
        "cp",
        "-r",
        &repository().join("initrd").display().to_string(),
        &source.display().to_string(),
    ])?;
    program(&source, "hooks/nic.d/10-leds", LEDS)?;
    build(&source, &built, &[])?;
    let hooks = "lib/bridgehead/hooks/config.d";
    program(
        &dir.join("tree"),
        &format!("{hooks}/20-of-this-host"),
        "#!/bin/sh\necho appended\n",
    )?;
    append(&built, &dir.join("tree"), &image)?;
    program(&dir.join("more"), &format!("{hooks}/90-uplink"), REFUSES)?;
    append(&image, &dir.join("more"), &refusing)?;
    Ok((image, refusing))
}

//! T3 to T6: the network under the bridge, as real racks have it. The kernel is started directly.

use std::thread;
use std::time::Duration;

use super::lab::{Cable, Firmware, Nic, ServerSpec};
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
fn t05_no_carrier_at_first_and_a_daemon_that_is_silent() {
    scenario("t05", |lab, logs| {
        let mut site = site(lab, &logs)?;
        let spec = ServerSpec::new("kvm01", MAC, Firmware::Bios);
        let mut server = site.boot_directly(spec, ADDRESS, "")?;
        server.set_link(false)?;
        server.wait_for("no carrier on", SWITCH)?;
        server.set_link(true)?;
        site.wait_stage(&mut server, "switch", SWITCH)?;
        check_console(&server);
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
        site.wait_stage(&mut server, "online", ROOT)?;
        let mut agent = server.agent(ROOT)?;
        let look = "cat /sys/class/net/br0/address /sys/class/net/br0/mtu";
        assert_eq!(agent.ask(look)?, format!("{MAC}\n9000"));
        agent.ask("ip link add low address 02:00:00:00:00:01 type dummy && ip link set low mtu 1500 master br0 up")?;
        assert_eq!(agent.ask(look)?, format!("{MAC}\n9000"));
        agent.ask(
            "ip link del low && echo 3 > /proc/sys/vm/drop_caches && cat /usr/bin/* > /dev/null",
        )?;
        assert_eq!(agent.ask(look)?, format!("{MAC}\n9000"));
        Ok(())
    });
}

use super::*;
use crate::policy::discovered::{Hardware, HardwareNic, Neighbour};

const INVENTORY: &str = r#"
networks:
  boot: {subnet: 10.77.0.0/24, pool: 10.77.0.200-10.77.0.250, unknown: {policy: next-free}}
  serials: {subnet: 10.78.0.0/24, pool: 10.78.0.200-10.78.0.250, unknown: {policy: by-serial}}
  ports: {subnet: 10.79.0.0/24, pool: 10.79.0.200-10.79.0.250, unknown: {policy: by-port, inventory: kvm, lldp: true}}
  deaf: {subnet: 10.82.0.0/24, pool: 10.82.0.200-10.82.0.250, unknown: {policy: by-port, inventory: kvm}}
  told: {subnet: 10.83.0.0/24, pool: 10.83.0.200-10.83.0.250, unknown: {policy: next-free, inventory: kvm}}
  guests: {subnet: 10.80.0.0/24, pool: 10.80.0.200-10.80.0.250, unknown: {policy: next-free, virtual: true}}
  hand: {subnet: 10.81.0.0/24, pool: 10.81.0.200-10.81.0.250}
profiles: {kvm: {kernel: debian, initrd: default, root: {nfs: "/roots/kvm"}}}
hosts:
  alone: {ip: 10.77.0.9, profile: kvm}
  low: {ip: 10.77.0.10, profile: kvm, rack: r10, unit: 1}
  n[1-3]: {ip: 10.77.0.11, profile: kvm, rack: r2, unit: 8}
  n10: {ip: 10.77.0.20, profile: kvm, rack: r2}
  never: {mac: "3c:ec:ef:00:00:99", ip: 10.77.0.30, profile: kvm}
  picky: {serial: NÖT-YOURS, ip: 10.77.0.31, profile: kvm, rack: r1}
  s1: {serial: 7XKQ2M3, ip: 10.78.0.11, profile: kvm}
  s2: {serial: 7XKQ2M4, mac: "3c:ec:ef:00:02:02", ip: 10.78.0.12, profile: kvm}
  s3: {serial: 7XKQ2M5, macs: ["3c:ec:ef:00:02:03", "3c:ec:ef:00:02:13"], ip: 10.78.0.13, profile: kvm}
  p1: {switch: sw-r1, port: Gi1/0/1, ip: 10.79.0.11, profile: kvm}
  p2: {switch: sw-r1, port: Gi1/0/2, mac: "3c:ec:ef:00:03:02", ip: 10.79.0.12, profile: kvm}
  p3: {switch: 10.79.0.254, port: 1/3, ip: 10.79.0.13, profile: kvm}
  g1: {ip: 10.80.0.11, profile: kvm}
  t1: {ip: 10.83.0.11, profile: kvm}
  two: {mac: "3c:ec:ef:00:04:01", nics: {nic1: "3c:ec:ef:88:04:02"}, ip: 10.81.0.11, profile: kvm}
"#;

fn decide(
    inventory: &Inventory,
    machine: &Discovered,
    life: impl Fn(&Host) -> Life,
    now: Timestamp,
) -> Decision {
    let all = FreeHosts::of(inventory);
    let decided = super::decide(inventory, &all, &Taken::new(), machine, &life, now);
    // Of a list of machines it is the same.
    let narrowed = all.narrowed(&life, now);
    let of_list = super::decide(inventory, &narrowed, &Taken::new(), machine, &life, now);
    assert_eq!(decided, of_list);
    decided
}

fn inventory() -> Inventory {
    let parsed = crate::inventory::parse("hosts.yaml", INVENTORY);
    parsed.unwrap_or_else(|faults| panic!("{faults}")).0
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn machine(network: &str) -> Discovered {
    let mac = "3c:ec:ef:77:00:01".parse().unwrap();
    Discovered::of_report(mac, Some(network.into()), "", at(0))
}

fn with_serial(network: &str, serial: &str) -> Discovered {
    let mut machine = machine(network);
    machine.identity.serial = Some(serial.into());
    machine
}

fn plugged(circuit: &str, remote: Option<&str>) -> Discovered {
    Discovered {
        circuit_id: Some(circuit.into()),
        remote_id: remote.map(str::to_owned),
        ..machine("ports")
    }
}

/// What the switch says by LLDP, to the NIC that it boots from.
fn neighbour(machine: Discovered, switch: &str, port: &str) -> Discovered {
    let nic = HardwareNic {
        name: "eth0".into(),
        mac: machine.mac,
        driver: None,
        speed_mbps: None,
        link: true,
        neighbour: Some(Neighbour {
            switch: switch.into(),
            port: port.into(),
            port_description: None,
        }),
        lldp_error: None,
    };
    let nics = vec![nic];
    let hardware = Some(Hardware {
        nics,
        ..Hardware::default()
    });
    Discovered {
        hardware,
        ..machine
    }
}

fn life(kind: SignKind, asked: Asked) -> Life {
    Life {
        sign: Some(Sign { at: at(0), kind }),
        joined: true,
        asked,
    }
}

const NEVER: Life = Life {
    sign: None,
    joined: false,
    asked: Asked::Silent,
};

/// The decision in words; all that has a machine was last heard of so many seconds ago, and can be asked.
fn said_after(machine: &Discovered, silent_s: i64) -> String {
    let life = |host: &Host| match host.macs.is_empty() {
        true => NEVER,
        false => life(SignKind::Heard, Asked::Silent),
    };
    decide(&inventory(), machine, life, at(silent_s)).to_string()
}

fn said(machine: &Discovered) -> String {
    said_after(machine, SILENCE_S)
}

#[test]
fn the_next_free_host_is_by_rack_unit_and_name_as_people_count() {
    let mut inventory = inventory();
    let mut order = Vec::new();
    while let Some(host) = free_host(&inventory, "boot").cloned() {
        inventory.hosts.remove(&host.name);
        order.push(host.name.clone());
    }
    // One that wants a serial number is free for nobody else.
    assert_eq!(order, ["n1", "n2", "n3", "n10", "low", "alone"]);
    assert_eq!(
        said(&machine("boot")),
        "becomes n1, the next free host of network boot"
    );
    let none = said(&machine("serials"));
    assert!(
        none.starts_with("waits: it has not said its serial number"),
        "{none}"
    );
}

#[test]
fn only_a_machine_that_waits_where_the_policy_says_so_becomes_a_host() {
    let asked = Discovered {
        held: None,
        ..machine("boot")
    };
    assert!(
        said(&asked).starts_with("waits: it has not come as far"),
        "{}",
        said(&asked)
    );
    let by_hand = said(&machine("hand"));
    assert_eq!(
        by_hand,
        "waits: the policy of network hand is `hold`, so it is listed by hand"
    );
    let nowhere = Discovered {
        network: None,
        ..machine("boot")
    };
    assert_eq!(
        said(&nowhere),
        "waits: it asks on no network of the inventory"
    );
}

/// Firmware boots from any NIC.
#[test]
fn a_nic_of_a_host_is_no_machine_of_its_own() {
    for network in ["boot", "serials", "ports", "hand"] {
        let mut machine = with_serial(network, "7XKQ2M3");
        machine.mac = "3c:ec:ef:88:04:02".parse().unwrap();
        let words = said(&machine);
        assert!(
            words.starts_with("waits: it is the NIC nic1 of two: "),
            "{words}"
        );
    }
}

#[test]
fn a_guest_becomes_a_host_only_where_that_is_said() {
    let guest = |network| Discovered {
        mac: "52:54:00:77:00:01".parse().unwrap(),
        ..machine(network)
    };
    assert!(
        said(&guest("boot")).contains("virtual machine (QEMU/KVM gives"),
        "{}",
        said(&guest("boot"))
    );
    assert_eq!(
        said(&guest("guests")),
        "becomes g1, the next free host of network guests"
    );
    // By a real NIC's MAC, and its own words.
    let mut words = with_serial("serials", "7XKQ2M3");
    words.identity.manufacturer = Some("QEMU".into());
    assert!(said(&words).contains("virtual machine"), "{}", said(&words));
}

#[test]
fn a_slip_of_the_hand_is_asked_about_and_neighbours_that_came_are_not() {
    let near = Discovered {
        mac: "3c:ec:ef:00:00:98".parse().unwrap(),
        ..machine("boot")
    };
    let decided = decide(&inventory(), &near, |_| NEVER, at(0));
    assert!(
        matches!(decided, Decision::Wait(Because::Near(_))),
        "{decided}"
    );
    let words = decided.to_string();
    assert!(
        words.contains("one digit off never's 3c:ec:ef:00:00:99, which was never heard of"),
        "{words}"
    );
    assert!(said(&near).starts_with("becomes n1"), "{}", said(&near));
}

#[test]
fn a_serial_number_is_its_hosts_in_any_case_and_junk_is_nobodys() {
    let of = |serial| said(&with_serial("serials", serial));
    assert_eq!(
        of(" 7xkq2m3 "),
        "becomes s1, which has its serial number  7xkq2m3 "
    );
    assert_eq!(
        of("7XKQ2M9"),
        "waits: no host has its serial number 7XKQ2M9"
    );
    for junk in [
        "To be filled by O.E.M.",
        "Not Specified",
        "0",
        "None",
        "Default string",
    ] {
        assert!(of(junk).ends_with("which is nobody's"), "{}", of(junk));
    }
    assert_eq!(
        of("nöt-yours"),
        "waits: its serial number nöt-yours is that of picky, which is of network boot"
    );
    assert!(
        of("7XKQ2M5").contains("s3, which has several MACs"),
        "{}",
        of("7XKQ2M5")
    );
}

#[test]
fn a_host_that_is_alive_is_not_replaced() {
    let liar = with_serial("serials", "7XKQ2M4");
    assert_eq!(
        said_after(&liar, 20),
        "waits: s2 is alive (last sign 20s ago): a machine that says its serial number 7XKQ2M4 is held"
    );
    let decided = decide(
        &inventory(),
        &liar,
        |_| life(SignKind::Heard, Asked::Silent),
        at(20),
    );
    assert!(matches!(decided, Decision::Wait(because) if because.is_suspicious()));
    assert!(said_after(&liar, SILENCE_S - 1).starts_with("waits: s2 is alive"));
    // A clock that was set back proves nothing.
    assert!(said_after(&liar, -3600).starts_with("waits: s2 is alive"));
    let replaced = "becomes s2, which has its serial number 7XKQ2M4, in place of 3c:ec:ef:00:02:02";
    assert_eq!(said_after(&liar, SILENCE_S), replaced);
    assert!(said_after(&with_serial("serials", "7XKQ2M3"), 1).starts_with("becomes s1"));
}

#[test]
fn a_replaced_server_takes_its_predecessors_name_by_its_port() {
    let of = |circuit, remote| said(&plugged(circuit, remote));
    assert_eq!(
        of("GigabitEthernet1/0/2", Some("SW-R1")),
        "becomes p2, which is at port GigabitEthernet1/0/2 of SW-R1, in place of 3c:ec:ef:00:03:02"
    );
    assert_eq!(
        of("Gi1/0/1", Some("sw-r1")),
        "becomes p1, which is at port Gi1/0/1 of sw-r1"
    );
    assert_eq!(
        of("Gi1/0/11", Some("sw-r1")),
        "waits: no host is at its port Gi1/0/11 of sw-r1"
    );
    assert_eq!(
        of("Gi1/0/1", Some("sw-r2")),
        "waits: no host is at its port Gi1/0/1 of sw-r2"
    );
    let alive = said_after(&plugged("Gi1/0/2", Some("sw-r1")), 3);
    assert!(
        alive.ends_with("a machine at its port Gi1/0/2 of sw-r1 is held"),
        "{alive}"
    );
    assert!(
        said(&machine("ports")).contains("no option 82"),
        "{}",
        said(&machine("ports"))
    );
}

#[test]
fn a_relay_is_a_switch_by_its_address_and_goes_before_what_was_heard() {
    let relay = Some([10, 79, 0, 254].into());
    let relayed = Discovered {
        relay,
        ..plugged("VLAN 10 module 1 port 3", None)
    };
    assert!(
        said(&relayed).starts_with("becomes p3"),
        "{}",
        said(&relayed)
    );
    let heard = neighbour(machine("ports"), "sw-r1", "Gi1/0/1");
    assert!(said(&heard).starts_with("becomes p1"), "{}", said(&heard));
    // Anybody on the wire can send LLDP.
    let both = neighbour(plugged("Gi1/0/11", Some("sw-r1")), "sw-r1", "Gi1/0/1");
    assert!(
        said(&both).starts_with("waits: no host is at its port Gi1/0/11"),
        "{}",
        said(&both)
    );
}

#[test]
fn of_a_list_of_machines_two_hosts_of_a_network_decide_who_is_next() {
    let inventory = inventory();
    let free = FreeHosts::of(&inventory);
    let names = |free: &FreeHosts| {
        let mut names: Vec<_> = free
            .on("boot")
            .iter()
            .map(|host| host.name.clone())
            .collect();
        names.truncate(9);
        names
    };
    let all = names(&free);
    assert_eq!(all.first().map(String::as_str), Some("n1"));
    let living = |names: &'static [&str]| {
        let life = move |host: &Host| match names.contains(&&*host.name) {
            true => life(SignKind::Answered, Asked::Silent),
            false => NEVER,
        };
        free.narrowed(life, at(3))
    };
    assert_eq!(names(&living(&[])), all[..1]);
    assert_eq!(names(&living(&["n1", "n2"])), ["n1", "n3"]);
    let everyone = free.narrowed(|_| life(SignKind::Answered, Asked::Silent), at(3));
    assert_eq!(names(&everyone), ["n1"]);
}

#[test]
fn a_machine_that_asks_by_two_ports_is_the_host_at_neither() {
    let both = Discovered {
        port: Some("Gi1/0/1 of sw-r1".into()),
        elsewhere: Some("Gi1/0/2 of sw-r1".into()),
        ..plugged("Gi1/0/1", Some("sw-r1"))
    };
    let words =
        "waits: it got its lease by port Gi1/0/1 of sw-r1, and now asks by Gi1/0/2 of sw-r1";
    assert!(said(&both).starts_with(words), "{}", said(&both));
    let decision = decide(&inventory(), &both, |_| NEVER, at(0));
    assert!(matches!(decision, Decision::Wait(because) if because.is_suspicious()));
}

#[test]
fn a_host_whose_mac_is_gone_is_free_for_nobody_while_it_lives() {
    let lives = |names: &'static [&str]| {
        move |host: &Host| match names.contains(&&*host.name) {
            true => life(SignKind::Answered, Asked::Silent),
            false => NEVER,
        }
    };
    let decided = |names| decide(&inventory(), &machine("boot"), lives(names), at(3)).to_string();
    assert!(decided(&["n1", "n2"]).starts_with("becomes n3,"));
    assert_eq!(
        decided(&["n1", "n2", "n3", "n10", "low", "alone"]),
        "waits: n1 is alive (its address answered 3s ago), and the file has no `mac` for it (any more?)"
    );
    let serial = with_serial("serials", "7XKQ2M3");
    let decided = decide(&inventory(), &serial, lives(&["s1"]), at(3)).to_string();
    assert!(
        decided
            .ends_with("for it (any more?): a machine that says its serial number 7XKQ2M3 is held"),
        "{decided}"
    );
}

#[test]
fn what_could_not_be_asked_is_no_silence() {
    let old = |joined, asked| Life {
        joined,
        ..life(SignKind::Heard, asked)
    };
    let said = |life| {
        let liar = with_serial("serials", "7XKQ2M4");
        decide(&inventory(), &liar, |_| life, at(9999)).to_string()
    };
    for joined in [true, false] {
        let unknown = said(old(joined, Asked::Unknown));
        assert!(
            unknown.starts_with("waits: s2 can't be asked now whether it lives"),
            "{unknown}"
        );
        let silent = said(old(joined, Asked::Silent));
        assert!(silent.starts_with("becomes s2"), "{silent}");
    }
    assert_eq!(
        said(old(true, Asked::Mute)),
        "waits: s2 joined and can't be asked whether it lives: replace it by hand, \
         `bridgehead hosts set s2 mac=3c:ec:ef:77:00:01`: a machine that says its serial number 7XKQ2M4 is held"
    );
    let racked = said(old(false, Asked::Mute));
    assert!(racked.starts_with("becomes s2"), "{racked}");
    // The next free is not passed over for it: it is asked again.
    let next = |asked| {
        let life = |_: &Host| old(true, asked);
        decide(&inventory(), &machine("boot"), life, at(9999)).to_string()
    };
    assert!(next(Asked::Unknown).starts_with("waits: n1 can't be asked now"));
    assert!(next(Asked::Mute).starts_with("waits: n1 joined and can't"));
}

#[test]
fn who_says_by_arp_that_it_is_the_host_is_held() {
    let liar = plugged("Gi1/0/2", Some("sw-r1"));
    let usurped = |_: &Host| life(SignKind::Usurped, Asked::Silent);
    let decided = decide(&inventory(), &liar, usurped, at(7)).to_string();
    assert!(
        decided.starts_with("waits: this machine itself said that it has the address of p2 (7s"),
        "{decided}"
    );
    assert!(is_hearsay(
        &with_serial("serials", "7"),
        &Evidence::Serial("7".into())
    ));
    let at = |machine: &Discovered| {
        let life = |_: &Host| NEVER;
        let (inventory, free) = (inventory(), FreeHosts::default());
        let claim = claim(&inventory, &free, &Taken::new(), machine, life, at(0));
        is_hearsay(machine, &claim.unwrap().because)
    };
    assert!(!at(&liar), "a switch said it");
    let lldp = neighbour(machine("ports"), "sw-r1", "Gi1/0/2");
    assert!(at(&lldp), "anybody on the wire can send that");
}

#[test]
fn lldp_is_no_word_on_a_port_unless_the_network_says_so() {
    let heard = neighbour(machine("deaf"), "sw-r1", "Gi1/0/1");
    assert!(said(&heard).contains("lldp: true"), "{}", said(&heard));
}

#[test]
fn where_machines_tell_what_they_are_none_gets_a_name_before() {
    let silent = machine("told");
    assert!(said(&silent).starts_with("waits: its inventory boot has not told"));
    let told = neighbour(machine("told"), "sw-r1", "Gi1/0/1");
    assert!(said(&told).starts_with("becomes t1"), "{}", said(&told));
}

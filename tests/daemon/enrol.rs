//! Machines that nobody listed become hosts by themselves, and only those that may.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::discover::{Stranger, discover};
use crate::lab::{Site, bridgehead, io_error, output, until};
use crate::{fake, ok, site_with};

const PATIENCE: Duration = Duration::from_secs(20);

/// The fake site with a policy and other hosts.
fn inventory(policy: &str, hosts: &str) -> String {
    let (head, _) = fake::INVENTORY.split_once("hosts:\n").unwrap_or_default();
    format!("{head}hosts:   # rack by rack\n{hosts}unknown: {{policy: {policy}}}\n")
}

pub(crate) fn file(site: &Site) -> String {
    ok(fs::read_to_string(&site.inventory).map_err(io_error("read", &site.inventory)))
}

/// Waits until the daemon says something of machines that are not listed, or no more.
pub(crate) fn wait_list(site: &Site, words: &str, there: bool) -> String {
    let look = || {
        let (_, list) = discover(site, &["list"]);
        Ok((list.contains(words) == there).then_some(list))
    };
    let context = || {
        format!(
            "{}{}",
            discover(site, &["list"]).1,
            site.daemon.log().tail(30)
        )
    };
    ok(until(words, PATIENCE, look, context))
}

/// What the daemon says, in one line, however wide the screen is.
fn ask(site: &Site, args: &[&str]) -> String {
    let state = site.lab.dir().join("state").display().to_string();
    let argv = [&[bridgehead()], args, &["--state", &state]].concat();
    let said = String::from_utf8_lossy(&ok(output(&argv)).stdout).into_owned();
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Waits at its loader, as whom it says.
fn waits(stranger: &Stranger<'_>, query: &str) {
    let hold = stranger.script(query);
    assert!(
        hold.contains("is not listed") || hold.contains("listed as"),
        "{hold}"
    );
}

/// Option 82 of a switch, for udhcpc: circuit and remote ID.
pub(crate) fn option_82(circuit: &str, remote: &str) -> String {
    let part = |code: u8, text: &str| {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("{code:02x}{:02x}{hex}", text.len())
    };
    format!("0x52:{}{}", part(1, circuit), part(2, remote))
}

#[test]
fn machines_that_come_at_once_become_the_next_free_hosts_and_a_guest_none() {
    let hosts = "  # the new rack\n  kvm[01-03]: {ip: 10.77.0.11, profile: kvm-host, rack: r1, unit: 4}   # ours\n";
    let inventory = inventory("next-free", hosts);
    let Some(site) = site_with("nextfree", &inventory) else {
        return;
    };
    let status = ok(site.daemon.status());
    let note = status
        .host("kvm01")
        .and_then(|host| host.note.clone())
        .unwrap_or_default();
    assert!(
        note.contains("waits for its hardware: the next machine"),
        "{note}"
    );

    let guest = Stranger::new(&site, "guest", "52:54:00:00:00:77");
    guest.dhcp();
    waits(&guest, "?serial=GUEST");
    wait_list(&site, "it looks like a virtual machine", true);
    let macs = ["3c:ec:ef:00:00:07", "3c:ec:ef:10:00:08"];
    let machines = [0, 1].map(|n| Stranger::new(&site, ["one", "two"][n], macs[n]));
    for machine in &machines {
        assert!(machine.dhcp().starts_with("10.77.0.1"));
    }
    thread::scope(|scope| {
        for machine in &machines {
            scope.spawn(|| waits(machine, "?serial=JAB12"));
        }
    });
    for mac in macs {
        wait_list(&site, mac, false);
    }
    let written = file(&site);
    let [first, second] = macs;
    let entry =
        |a, b| format!("rack: r1, unit: 4, macs: {{kvm01: \"{a}\", kvm02: \"{b}\"}}}}   # ours\n");
    assert!(
        written.contains(&entry(first, second)) || written.contains(&entry(second, first)),
        "{written}"
    );
    assert!(
        written.contains("# rack by rack\n  # the new rack\n"),
        "{written}"
    );
    // They go on by themselves, each at an address of its own.
    let mut addresses: Vec<_> = machines.iter().map(Stranger::dhcp).collect();
    addresses.sort();
    assert_eq!(addresses, ["10.77.0.11", "10.77.0.12"]);
    let script = machines[0].script("");
    assert!(script.contains("bridgehead.host=kvm0"), "{script}");

    let third = Stranger::new(&site, "three", "3c:ec:ef:20:00:09");
    third.dhcp();
    waits(&third, "");
    // It has not said who it is: nothing is decided.
    assert!(discover(&site, &["list"]).1.contains("3c:ec:ef:20:00:09"));
    assert!(!file(&site).contains("3c:ec:ef:20:00:09"));
    waits(&third, "?serial=JAB14");
    wait_list(&site, "3c:ec:ef:20:00:09", false);
    let late = Stranger::new(&site, "four", "3c:ec:ef:30:00:10");
    late.dhcp();
    waits(&late, "?serial=JAB15");
    let list = wait_list(&site, "waits: no free host in network boot", true);
    assert!(list.contains("52:54:00:00:00:77"), "{list}");
    let metrics = late.get("/metrics");
    for line in [
        "{result=\"enrolled\"} 3",
        "{result=\"replaced\"} 0",
        "{result=\"waits\"} 2",
    ] {
        assert!(
            metrics.contains(&format!("bridgehead_enrolments_total{line}")),
            "{line}"
        );
    }
    let log = site.daemon.log().tail(200);
    assert!(
        log.contains("becomes kvm03, the next free host of network boot"),
        "{log}"
    );
}

#[test]
fn a_serial_number_makes_a_host_and_takes_none_that_is_alive() {
    let hosts = "  kvm01: {serial: JAB12, ip: 10.77.0.11, profile: kvm-host}\n  \
                 kvm02: {mac: \"3c:ec:ef:00:00:02\", serial: JAB13, ip: 10.77.0.12, profile: kvm-host}\n";
    let inventory = inventory("by-serial", hosts);
    let Some(site) = site_with("byserial", &inventory) else {
        return;
    };
    let host = Stranger::new(&site, "host", "3c:ec:ef:00:00:02");
    assert_eq!(host.dhcp(), "10.77.0.12");

    let liar = Stranger::new(&site, "liar", "3c:ec:ef:66:00:66");
    liar.dhcp();
    waits(&liar, "?serial=jab13");
    let list = wait_list(&site, "waits: kvm02 is alive", true);
    assert!(
        list.contains("a machine that says its serial number jab13 is held"),
        "{list}"
    );
    // The list may know it before the daemon has asked whether it lives.
    let log = || site.daemon.log().tail(100);
    let words = "3c:ec:ef:66:00:66 waits: kvm02 is alive";
    let said = || Ok(log().contains(words).then_some(()));
    ok(until(words, PATIENCE, said, log));
    let held = "3c:ec:ef:66:00:66 says that it is this host";
    assert!(ask(&site, &["why", "kvm02"]).contains(held));
    let why = ask(&site, &["why", "3c:ec:ef:66:00:66"]);
    assert!(why.contains("kvm02 is alive"), "{why}");
    assert!(!why.contains("discover approve"), "{why}");
    waits(&liar, "?serial=To%20be%20filled%20by%20O.E.M.");
    wait_list(&site, "which is nobody's", true);
    assert_eq!(file(&site), inventory);

    let machine = Stranger::new(&site, "bare", "3c:ec:ef:00:00:07");
    machine.dhcp();
    waits(&machine, "?serial=");
    wait_list(&site, "waits: it has not said its serial number", true);
    waits(&machine, "?serial=jab12");
    wait_list(&site, "3c:ec:ef:00:00:07", false);
    assert_eq!(machine.dhcp(), "10.77.0.11");
    let entry =
        "kvm01: {serial: JAB12, ip: 10.77.0.11, profile: kvm-host, mac: \"3c:ec:ef:00:00:07\"}";
    assert_eq!(
        file(&site),
        inventory.replace(
            "kvm01: {serial: JAB12, ip: 10.77.0.11, profile: kvm-host}",
            entry
        )
    );
}

#[test]
fn a_new_server_at_the_port_of_a_broken_one_takes_its_place() {
    let hosts = "  # one was replaced\n  \
                 kvm[01-04]: {mac: \"3c:ec:ef:00:00:01\", switch: sw-r1, port: \"Gi1/0/[1-4]\", ip: 10.77.0.11, profile: kvm-host}\n";
    let inventory = inventory("by-port", hosts);
    let Some(site) = site_with("byport", &inventory) else {
        return;
    };
    // It is up, and the daemon has never heard of it.
    let up = Stranger::new(&site, "up", "3c:ec:ef:00:00:02");
    ok(up
        .namespace
        .ip(&["addr", "add", "10.77.0.12/24", "dev", "eth0"]));
    // One that asked a moment ago.
    assert_eq!(
        Stranger::new(&site, "asked", "3c:ec:ef:00:00:03").dhcp(),
        "10.77.0.13"
    );

    let at = |name, mac, port: &str| {
        let stranger = Stranger::new(&site, name, mac);
        let option = option_82(port, "sw-r1");
        stranger.dhcp_with(&["-x", &option]);
        waits(&stranger, "?serial=NEW");
        stranger
    };
    // One that would hide the answers of the host that it says to be.
    let liar = Stranger::new(&site, "liar", "3c:ec:ef:66:66:66");
    ok(liar
        .namespace
        .ip(&["addr", "add", "10.77.0.14/32", "dev", "lo"]));
    liar.dhcp_with(&["-x", &option_82("Gi1/0/4", "sw-r1")]);
    waits(&liar, "?serial=LIAR");
    wait_list(
        &site,
        "waits: this machine itself said that it has the address of kvm04",
        true,
    );
    let second = at("second", "3c:ec:ef:62:22:02", "Gi1/0/2");
    wait_list(&site, "waits: kvm02 is alive (its address answered", true);
    let third = at("third", "3c:ec:ef:73:33:03", "GigabitEthernet1/0/3");
    wait_list(&site, "waits: kvm03 is alive", true);
    let first = at("first", "3c:ec:ef:51:11:01", "GigabitEthernet1/0/1");
    wait_list(&site, "3c:ec:ef:51:11:01", false);
    assert_eq!(first.dhcp(), "10.77.0.11");
    let entry = "profile: kvm-host, macs: {kvm01: \"3c:ec:ef:51:11:01\"}}";
    assert_eq!(
        file(&site),
        inventory.replace("profile: kvm-host}\nunknown", &format!("{entry}\nunknown"))
    );
    let log = site.daemon.log().tail(200);
    let said = "becomes kvm01, which is at port GigabitEthernet1/0/1 of sw-r1, in place of 3c:ec:ef:00:00:01";
    assert!(log.contains(said), "{log}");
    drop((second, third));
}

#[test]
fn a_host_that_runs_and_whose_mac_is_gone_from_the_file_keeps_its_name() {
    let with = "  kvm01: {mac: \"3c:ec:ef:00:00:01\", ip: 10.77.0.11, profile: kvm-host}\n  \
                kvm02: {ip: 10.77.0.12, profile: kvm-host}\n";
    let Some(site) = site_with("macgone", &inventory("next-free", with)) else {
        return;
    };
    let up = Stranger::new(&site, "up", "3c:ec:ef:00:00:01");
    ok(up
        .namespace
        .ip(&["addr", "add", "10.77.0.11/24", "dev", "eth0"]));
    let without = with.replace("mac: \"3c:ec:ef:00:00:01\", ", "");
    let edited = inventory("next-free", &without);
    ok(fs::write(&site.inventory, edited).map_err(io_error("write", &site.inventory)));
    let warned = || {
        let log = site.daemon.log().tail(100);
        Ok(log
            .contains("kvm01 (3c:ec:ef:00:00:01) lost its `mac`")
            .then_some(()))
    };
    ok(until("the warning", PATIENCE, warned, || {
        site.daemon.log().tail(30)
    }));

    let next = Stranger::new(&site, "next", "3c:ec:ef:47:11:07");
    next.dhcp();
    waits(&next, "?serial=JAB21");
    wait_list(&site, "3c:ec:ef:47:11:07", false);
    assert_eq!(next.dhcp(), "10.77.0.12");
    let last = Stranger::new(&site, "last", "3c:ec:ef:58:22:08");
    last.dhcp();
    waits(&last, "?serial=JAB22");
    wait_list(&site, "waits: kvm01 is alive (its address answered", true);
    wait_list(&site, "and the file has no `mac` for it", true);
}

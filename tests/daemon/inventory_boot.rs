//! A machine that nobody listed boots the small inventory system, tells what it is, waits and goes on.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::discover::{Stranger, approve, discover};
use crate::enrol::{file, option_82, wait_list};
use crate::lab::{APPLIANCE, Site, until};
use crate::relays::{far, stays};
use crate::{fake, ok, site_with};

const BARE: &str = "3c:ec:ef:00:00:07";
pub(crate) const REPORT: &str = "machine=x86_64\nfirmware=uefi\nuuid=00112233-4455-6677-8899-AABBCCDDEEFF\nserial=JAB12\n\
    manufacturer=Dell \"Inc.\"\nproduct=<b>R650\nmemory_kib=263842816\ncpus=64\ncpu_model=AMD EPYC 7543\n\
    nic=eth0\nmac=3c:ec:ef:00:00:07\ndriver=ixgbe\nlink=1\nspeed=10000\n\
    lldp=020704001ef7aabb800408054769312f302f33060200780a0573772d7231\n\
    nic=eth1\nmac=3c:ec:ef:00:00:08\ndriver=ixgbe\nlink=0\nspeed=-1\nlldp=\n";

fn inventory() -> String {
    fake::INVENTORY.replace("{policy: hold}", "{policy: hold, inventory: kvm-host}")
}

/// The value of a word of the script's command line, or of a line of an answer.
pub(crate) fn word<'t>(text: &'t str, key: &str) -> &'t str {
    let found = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_default()
}

impl Stranger<'_> {
    /// As its inventory boot asks.
    fn next(&self, token: &str) -> String {
        self.next_of(self.mac, token)
    }

    /// The answer, its status code last.
    fn next_of(&self, mac: &str, token: &str) -> String {
        let url = format!("http://{APPLIANCE}/boot/{mac}/next");
        let token = format!("X-Bridgehead-Token: {token}");
        let words = "curl -s -m 20 -w %{http_code} -H";
        let argv: Vec<&str> = words.split(' ').chain([&*token, &*url]).collect();
        let done = ok(self.namespace.output(&argv));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// The status code.
    pub(crate) fn post(&self, resource: &str, token: &str, body: &str) -> String {
        let name = format!("mac-{}", self.mac.replace(':', ""));
        self.post_as(&name, resource, token, body)
    }

    fn config(&self, name: &str, token: &str) -> String {
        let url = format!("http://{APPLIANCE}/v1/boot/{name}/config");
        let token = format!("X-Bridgehead-Token: {token}");
        let argv = ["curl", "-s", "-m", "20", "-H", &token, &url];
        let done = ok(self.namespace.output(&argv));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn post_as(&self, name: &str, resource: &str, token: &str, body: &str) -> String {
        let url = format!("http://{APPLIANCE}/v1/boot/{name}/{resource}");
        let token = format!("X-Bridgehead-Token: {token}");
        let argv = [
            "curl",
            "-s",
            "-m",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            &token,
            "--data-binary",
            body,
            &url,
        ];
        let done = ok(self.namespace.output(&argv));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

fn listed(site: &Site) -> String {
    discover(site, &["list"]).1
}

#[test]
fn what_an_inventory_boot_finds_is_shown_and_the_machine_goes_on_as_its_host() {
    let Some(site) = site_with("inventory", &inventory()) else {
        return;
    };
    let bare = Stranger::new(&site, "bare", BARE);
    let pooled = bare.dhcp();
    let script = bare.script("");
    let image = word(&script, "bridgehead.inventory");
    let token = word(&script, "bridgehead.token");
    assert_eq!(word(&script, "bridgehead.host"), "mac-3cecef000007");
    assert_eq!(word(&script, "bridgehead.ip"), "dhcp");
    assert!(image.len() == 32 && token.len() == 32, "{script}");
    // Of GRUB and PXELINUX it is the same.
    let grub = bare.get(&format!("/boot/{BARE}/grub.cfg"));
    assert!(
        grub.contains(&format!("bridgehead.inventory={image}")),
        "{grub}"
    );

    let event =
        "stage=inventory\nstate=ok\nuptime_ms=8770\nmessage=not listed: waits for its name\n";
    assert_eq!(bare.post("events", token, event), "200");
    assert!(bare.next(token).ends_with("hardware=unknown\n200"));
    let report = REPORT;
    assert_eq!(bare.post("inventory", "0", report), "403");
    assert_eq!(bare.post("inventory", token, report), "204");
    let next = bare.next(token);
    assert!(
        next.starts_with("next=wait\n") && !next.contains("unknown"),
        "{next}"
    );
    let list = listed(&site);
    for words in [
        "waits",
        "Dell \"Inc.\" <b>R650, serial JAB12",
        "64 CPUs (AMD EPYC 7543), 252 GiB memory",
        "eth0 3c:ec:ef:00:00:07, ixgbe, 10000 Mb/s, at Gi1/0/3 of sw-r1",
        "eth1 3c:ec:ef:00:00:08, ixgbe, no link",
    ] {
        assert!(list.contains(words), "no `{words}` in:\n{list}");
    }
    let json: Value = serde_json::from_str(&bare.get("/v1/status")).unwrap_or_default();
    assert_eq!(json["unknown"][0]["stage"], "inventory");

    // Another address is another machine.
    let other = Stranger::new(&site, "other", "3c:ec:ef:00:00:09");
    other.dhcp();
    let stolen = other.next_of(BARE, token);
    assert!(!stolen.contains("next="), "{stolen}");
    let (done, said) = approve(&site, BARE, "kvm07", &[]);
    assert!(done, "{said}");
    let stolen = other.next_of(BARE, token);
    assert!(!stolen.contains("bridgehead.token"), "{stolen}");

    // From its old address: it need not ask by DHCP before it goes on.
    let next = bare.next(token);
    assert!(next.starts_with("next=go\nhost=kvm07\n"), "{next}");
    assert_eq!(word(&next, "image"), image);
    assert!(
        next.contains("cmdline=bridgehead.url=http://10.77.0.1 "),
        "{next}"
    );
    assert_eq!(word(&next, "bridgehead.host"), "kvm07");
    assert!(!next.contains("bridgehead.inventory"), "{next}");
    assert_eq!(
        bare.next(token),
        next,
        "an answer that was lost comes again"
    );
    let log = ok(site.daemon.verb("log", &["kvm07"]));
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let told = format!("command line sent to {pooled}, which goes on from its inventory boot");
    assert_eq!(log.matches(&told).count(), 1, "{log}");
}

fn log_of(site: &Site, machine: &str) -> String {
    let log = ok(site.daemon.verb("log", &[machine]));
    String::from_utf8_lossy(&log.stdout).into_owned()
}

#[test]
fn nothing_that_runs_on_a_host_gets_the_token_of_another_boot() {
    let Some(site) = site_with("inventory-token", &inventory()) else {
        return;
    };
    let bare = Stranger::new(&site, "bare", BARE);
    bare.dhcp();
    let script = bare.script("");
    let waits = word(&script, "bridgehead.token").to_owned();
    assert!(bare.next("").ends_with("403"), "{}", bare.next(""));
    let (done, said) = approve(&site, BARE, "kvm07", &["--ip", "10.77.0.20"]);
    assert!(done, "{said}");
    assert!(bare.next("").ends_with("403"), "{}", bare.next(""));
    let next = bare.next(&waits);
    let boots = word(&next, "bridgehead.token").to_owned();
    // It comes up: its command line, with both tokens, is there for all that runs on it to read.
    let own = ["addr", "add", "10.77.0.20/24", "dev", "eth0"];
    ok(bare.namespace.ip(&["addr", "flush", "dev", "eth0"]));
    ok(bare.namespace.ip(&own));
    let config = bare.config("kvm07", &boots);
    let reports = word(&config, "report_token").to_owned();
    let joined = "stage=joined\nstate=ok\nuptime_ms=90000\nmessage=up\n";
    assert_eq!(bare.post_as("kvm07", "events", &reports, joined), "200");
    for token in [&*waits, &*boots, &*reports, "", "0"] {
        let stolen = bare.next(token);
        assert!(
            stolen.ends_with("403") && !stolen.contains("next="),
            "{stolen}"
        );
    }
    let log = log_of(&site, "kvm07");
    let begun = log.matches("seen for the first time in this boot").count();
    assert_eq!(begun, 1, "another boot began:\n{log}");
    assert!(log.contains("it has gone on as kvm07 already"), "{log}");
}

#[test]
fn a_machine_that_waits_goes_on_though_it_was_listed_while_no_daemon_ran() {
    let Some(mut site) = site_with("inventory-away", &inventory()) else {
        return;
    };
    let bare = Stranger::new(&site, "bare", BARE);
    let pooled = format!("{}/24", bare.dhcp());
    let script = bare.script("");
    let token = word(&script, "bridgehead.token");
    drop(bare);
    ok(site.daemon.signal(Signal::SIGKILL));
    ok(site.daemon.wait_exit(Duration::from_secs(20)));
    let entry =
        format!("hosts:\n  kvm07: {{mac: \"{BARE}\", ip: 10.77.0.20, profile: kvm-host}}\n");
    ok(site.edit(&inventory().replace("hosts:\n", &entry)));
    ok(site.restart());
    let bare = Stranger::new(&site, "bare", BARE);
    ok(bare.namespace.ip(&["addr", "add", &pooled, "dev", "eth0"]));
    let next = bare.next(token);
    assert!(next.starts_with("next=go\nhost=kvm07\n"), "{next}");
}

#[test]
fn where_strangers_wait_at_their_loader_nobody_gets_the_token_of_an_inventory_boot() {
    let Some(site) = site_with("inventory-none", fake::INVENTORY) else {
        return;
    };
    let guest = Stranger::new(&site, "guest", BARE);
    guest.dhcp();
    assert!(guest.script("").contains("is not listed"));
    let none = guest.next("0");
    assert!(none.contains("has no `inventory`"), "{none}");
    assert!(none.ends_with("403"), "{none}");
    assert_eq!(guest.post("inventory", "0", REPORT), "403");
    assert!(!listed(&site).contains("Gi1/0/3"), "{}", listed(&site));
}

#[test]
fn inventory_boots_that_come_to_nothing_are_held_at_the_loader() {
    let Some(site) = site_with("inventoried", &inventory()) else {
        return;
    };
    let bare = Stranger::new(&site, "bare", BARE);
    bare.dhcp();
    for _ in 0..3 {
        assert!(bare.script("").contains("bridgehead.inventory="));
    }
    let hold = bare.script("");
    assert!(hold.contains("this machine is not listed"), "{hold}");
    let log = ok(site.daemon.verb("log", &["mac-3cecef000007"]));
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("3 in a row came to nothing"), "{log}");
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Two networks, one behind a relay, whose hosts are known by their ports; `policy` is of both.
fn by_port(policy: &str) -> String {
    let far = "  far: {subnet: 10.88.0.0/24, router: 10.88.0.254, pool: 10.88.0.100-10.88.0.199}\nprofiles:";
    let hosts = "hosts:\n  \
        kvm11: {switch: 10.88.0.254, port: eth1, ip: 10.88.0.11, profile: kvm-host}\n  \
        kvm12: {switch: sw-r1, port: Gi1/0/1, ip: 10.77.0.22, profile: kvm-host}\n  \
        kvm13: {switch: sw-r1, port: Gi1/0/2, ip: 10.77.0.23, profile: kvm-host}\n";
    inventory()
        .replace("profiles:", far)
        .replace("hosts:\n", hosts)
        .replace("policy: hold", &format!("policy: {policy}"))
}

/// The daemon is killed, and served by this policy from then on.
fn killed(site: &mut Site, policy: &str) {
    ok(site.daemon.signal(Signal::SIGKILL));
    ok(site.daemon.wait_exit(Duration::from_secs(20)));
    ok(site.edit(&by_port(policy)));
    ok(site.restart());
}

/// As its initrd goes on after the daemon was away.
fn tells_again(machine: &Stranger<'_>, token: &str) {
    assert!(machine.next(token).ends_with("hardware=unknown\n200"));
    assert_eq!(machine.post("inventory", token, REPORT), "204");
}

#[test]
fn a_machine_behind_a_relay_is_named_by_its_port_after_the_daemon_was_killed() {
    let Some(mut site) = site_with("plugged", &by_port("hold")) else {
        return;
    };
    let mac = "3c:ec:ef:00:00:21";
    let far = far(&site, "plugged", mac);
    // No loader: a client that asks for an address, and nothing to boot.
    let mut client = stays(&site, &far);
    ok(client.wait_for("bound 10.88.0.", PATIENCE));
    let machine = Stranger::at(&site, far.client, mac);
    let script = machine.script("");
    let token = word(&script, "bridgehead.token").to_owned();
    tells_again(&machine, &token);
    let list = wait_list(&site, "port eth1, relay 10.88.0.254", true);
    assert!(list.contains(mac), "{list}");
    let journal = || {
        let path = site.lab.dir().join("state/leases.jsonl");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let binds = || journal().matches("\"op\":\"bind\"").count();
    let before = binds();
    // By unicast through the router, without option 82.
    ok(client.signal(Signal::SIGUSR1));
    ok(client.wait_for("renew 10.88.0.", PATIENCE));
    let renewed = || Ok((binds() > before).then_some(()));
    ok(until("the renewal", PATIENCE, renewed, journal));

    let namespace = machine.namespace;
    killed(&mut site, "by-port");
    let machine = Stranger::at(&site, namespace, mac);
    tells_again(&machine, &token);
    wait_list(&site, mac, false);
    let line = format!(
        "kvm11: {{switch: 10.88.0.254, port: eth1, ip: 10.88.0.11, profile: kvm-host, mac: \"{mac}\"}}"
    );
    assert!(file(&site).contains(&line), "{}", file(&site));
    let next = machine.next(&token);
    assert!(next.starts_with("next=go\nhost=kvm11\n"), "{next}");
}

#[test]
fn what_is_sent_in_a_machines_name_by_another_port_names_nobody() {
    let Some(mut site) = site_with("spoofed", &by_port("hold")) else {
        return;
    };
    let bare = Stranger::new(&site, "bare", BARE);
    let (one, two) = (option_82("Gi1/0/1", "sw-r1"), option_82("Gi1/0/2", "sw-r1"));
    let address = bare.dhcp_with(&["-x", &one]);
    let script = bare.script("");
    let token = word(&script, "bridgehead.token").to_owned();
    tells_again(&bare, &token);
    {
        let other = Stranger::new(&site, "other", BARE);
        assert_eq!(other.dhcp_with(&["-x", &two]), address);
    }
    let list = wait_list(&site, "asked by Gi1/0/2 of sw-r1 since", true);
    assert!(list.contains("port Gi1/0/1 of sw-r1"), "{list}");
    let log = log_of(&site, "mac-3cecef000007");
    let words = "It asks by Gi1/0/2 of sw-r1, and got its lease by Gi1/0/1 of sw-r1";
    assert!(log.contains(words), "{log}");
    // Its renewals go past the relay: it is told to ask by broadcast, until it did.
    let next = || bare.next(&token);
    assert!(next().starts_with("next=wait\nlease=ask\n"), "{}", next());
    assert_eq!(bare.dhcp_with(&["-x", &one]), address);
    assert!(!next().contains("lease=ask"), "{}", next());
    {
        let other = Stranger::new(&site, "again", BARE);
        assert_eq!(other.dhcp_with(&["-x", &two]), address);
    }
    wait_list(&site, "asked by Gi1/0/2 of sw-r1 since", true);

    let namespace = bare.namespace;
    killed(&mut site, "by-port");
    let bare = Stranger::at(&site, namespace, BARE);
    tells_again(&bare, &token);
    let list = wait_list(&site, "waits: it got its lease by port Gi1/0/1", true);
    assert!(list.contains(BARE), "{list}");
    let before = by_port("by-port");
    assert_eq!(file(&site), before);
    // It boots anew where it was.
    assert_eq!(bare.dhcp_with(&["-x", &one]), address);
    let script = bare.script("");
    let token = word(&script, "bridgehead.token");
    assert!(bare.next(token).starts_with("next=wait\n"));
    wait_list(&site, BARE, false);
    let line = format!("port: Gi1/0/1, ip: 10.77.0.22, profile: kvm-host, mac: \"{BARE}\"}}");
    assert!(file(&site).contains(&line), "{}", file(&site));
}

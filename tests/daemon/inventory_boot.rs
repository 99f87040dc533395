//! A machine that nobody listed boots the small inventory system, tells what it is, waits and goes on.

use serde_json::Value;

use crate::discover::{Stranger, approve, discover};
use crate::lab::{APPLIANCE, Site};
use crate::{fake, ok, site_with};

const BARE: &str = "3c:ec:ef:00:00:07";
const REPORT: &str = "machine=x86_64\nfirmware=uefi\nuuid=00112233-4455-6677-8899-AABBCCDDEEFF\nserial=JAB12\n\
    manufacturer=Dell \"Inc.\"\nproduct=<b>R650\nmemory_kib=263842816\ncpus=64\ncpu_model=AMD EPYC 7543\n\
    nic=eth0\nmac=3c:ec:ef:00:00:07\ndriver=ixgbe\nlink=1\nspeed=10000\n\
    lldp=020704001ef7aabb800408054769312f302f33060200780a0573772d7231\n\
    nic=eth1\nmac=3c:ec:ef:00:00:08\ndriver=ixgbe\nlink=0\nspeed=-1\nlldp=\n";

fn inventory() -> String {
    fake::INVENTORY.replace("{policy: hold}", "{policy: hold, inventory: kvm-host}")
}

/// The value of a word of the script's command line, or of a line of an answer.
fn word<'t>(text: &'t str, key: &str) -> &'t str {
    let found = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_default()
}

impl Stranger<'_> {
    fn next(&self) -> String {
        self.get(&format!("/boot/{}/next", self.mac))
    }

    /// The status code.
    fn post(&self, resource: &str, token: &str, body: &str) -> String {
        let name = format!("mac-{}", self.mac.replace(':', ""));
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
    assert!(bare.next().ends_with("hardware=unknown\n"));
    let report = REPORT;
    assert_eq!(bare.post("inventory", "0", report), "403");
    assert_eq!(bare.post("inventory", token, report), "204");
    let next = bare.next();
    assert!(
        next.starts_with("next=wait\n") && !next.contains("unknown"),
        "{next}"
    );
    assert_eq!(word(&next, "token"), token);
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
    let stolen = other.get(&format!("/boot/{BARE}/next"));
    assert!(!stolen.contains("next="), "{stolen}");
    let (done, said) = approve(&site, BARE, "kvm07", &[]);
    assert!(done, "{said}");
    let stolen = other.get(&format!("/boot/{BARE}/next"));
    assert!(!stolen.contains("bridgehead.token"), "{stolen}");

    // From its old address: it need not ask by DHCP before it goes on.
    let next = bare.next();
    assert!(next.starts_with("next=go\nhost=kvm07\n"), "{next}");
    assert_eq!(word(&next, "image"), image);
    assert!(
        next.contains("cmdline=bridgehead.url=http://10.77.0.1 "),
        "{next}"
    );
    assert_eq!(word(&next, "bridgehead.host"), "kvm07");
    assert!(!next.contains("bridgehead.inventory"), "{next}");
    assert_eq!(bare.next(), next, "an answer that was lost comes again");
    let log = ok(site.daemon.verb("log", &["kvm07"]));
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let told = format!("command line sent to {pooled}, which goes on from its inventory boot");
    assert_eq!(log.matches(&told).count(), 1, "{log}");
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

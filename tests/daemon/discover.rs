//! A machine that nobody listed boots, waits, is approved and goes on as a host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use serde_json::Value;

use crate::broken::get;
use crate::lab::{APPLIANCE, Namespace, Site, bridgehead, io_error, output};
use crate::{fake, ok, site, site_with};

pub(crate) const BARE: &str = "3c:ec:ef:00:00:07";
const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

pub(crate) struct Stranger<'a> {
    site: &'a Site,
    pub(crate) namespace: Namespace,
    pub(crate) mac: &'a str,
}

impl<'a> Stranger<'a> {
    pub(crate) fn new(site: &'a Site, name: &str, mac: &'a str) -> Self {
        let namespace = ok(site.lab.client(name, mac));
        Self::at(site, namespace, mac)
    }

    /// Somewhere else.
    pub(crate) fn at(site: &'a Site, namespace: Namespace, mac: &'a str) -> Self {
        Self {
            site,
            namespace,
            mac,
        }
    }

    /// DISCOVER to ACK as iPXE does it; it takes the address.
    pub(crate) fn dhcp(&self) -> String {
        self.dhcp_with(&[])
    }

    /// The same with further options.
    pub(crate) fn dhcp_with(&self, more: &[&str]) -> String {
        let file = |kind: &str| self.site.lab.dir().join(format!("{}.{kind}", self.mac));
        let (script, answer) = (file("sh"), file("answer"));
        let text = format!(
            "#!/bin/sh\n[ -z \"$ip\" ] || echo $ip >{}\n",
            answer.display()
        );
        ok(fs::write(&script, text).map_err(io_error("write", &script)));
        let runs = fs::Permissions::from_mode(0o755);
        ok(fs::set_permissions(&script, runs).map_err(io_error("change", &script)));
        let script = script.display().to_string();
        let mut argv: Vec<&str> =
            "busybox udhcpc -i eth0 -f -q -n -t 5 -x 0x4d:69505845 -x 0x5d:0007 -s"
                .split(' ')
                .collect();
        argv.push(&script);
        argv.extend(more);
        ok(self.namespace.run(&argv));
        let address = ok(fs::read_to_string(&answer).map_err(io_error("read", &answer)));
        let address = address.trim().to_owned();
        ok(self.namespace.ip(&["addr", "flush", "dev", "eth0"]));
        let own = format!("{address}/24");
        ok(self.namespace.ip(&["addr", "add", &own, "dev", "eth0"]));
        address
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let url = format!("http://{APPLIANCE}{path}");
        let done = ok(self.namespace.output(&["curl", "-s", "-m", "20", &url]));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    pub(crate) fn script(&self, query: &str) -> String {
        self.get(&format!("/boot/{}/script.ipxe{query}", self.mac))
    }
}

/// `bridgehead discover …`: whether it did it, and what it said.
pub(crate) fn discover(site: &Site, args: &[&str]) -> (bool, String) {
    let state = site.lab.dir().join("state").display().to_string();
    let argv = [&[bridgehead(), "discover"], args, &["--state", &state]].concat();
    let done = ok(output(&argv));
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (done.status.success(), said)
}

pub(crate) fn approve(site: &Site, mac: &str, name: &str, more: &[&str]) -> (bool, String) {
    let fixed = ["approve", mac, "--name", name, "--profile", "kvm-host"];
    discover(site, &[&fixed, more].concat())
}

#[test]
fn a_machine_that_waits_is_shown_approved_and_goes_on_as_a_host() {
    let Some(site) = site("discover") else {
        return;
    };
    assert!(
        discover(&site, &["list"])
            .1
            .contains("no machine that is not listed is known")
    );
    let stranger = Stranger::new(&site, "bare", BARE);
    let pooled = stranger.dhcp();
    assert!(pooled.starts_with("10.77.0.1") && pooled.len() == "10.77.0.100".len());
    let hold = stranger.script("");
    assert!(hold.contains("this machine is not listed"), "{hold}");
    // As iPXE expands the hold script's own line.
    let who = format!("?uuid={UUID}&serial=JAB12&manufacturer=Dell%20Inc.&product=%3Cb%3ER650");
    let hold = stranger.script(&who);
    assert!(hold.contains("${serial:uristring}"), "{hold}");

    let (_, list) = discover(&site, &["list"]);
    for words in [
        BARE,
        "waits",
        "boot",
        "Dell Inc. <b>R650, serial JAB12",
        UUID,
    ] {
        assert!(list.contains(words), "no `{words}` in:\n{list}");
    }
    let json: Value = serde_json::from_str(&stranger.get("/v1/discovered")).unwrap_or_default();
    assert_eq!(json["machines"][0]["mac"], BARE);
    assert_eq!(json["machines"][0]["waiting"], true);
    assert_eq!(json["machines"][0]["virtual"], Value::Null);
    let page = stranger.get("/");
    assert!(
        page.contains("serial JAB12") && !page.contains("<b>R650"),
        "{page}"
    );

    let before = ok(fs::read_to_string(&site.inventory).map_err(io_error("read", &site.inventory)));
    let (done, said) = approve(&site, BARE, "kvm01", &[]);
    assert!(!done && said.contains("kvm01 is there already"), "{said}");
    let (done, said) = approve(&site, BARE, "kvm07", &["--ip", "10.77.0.12"]);
    assert!(!done && said.contains("10.77.0.12"), "{said}");
    let same = ok(fs::read_to_string(&site.inventory).map_err(io_error("read", &site.inventory)));
    assert_eq!(same, before);

    let (done, said) = approve(&site, BARE, "kvm07", &["--rack", "r1", "--unit", "9"]);
    let words = "10.77.0.14 is the next free address of network boot, outside its pool";
    assert!(done && said.contains(words), "{said}");
    assert!(said.contains("is kvm07, and goes on by itself"), "{said}");
    let line =
        format!("kvm07: {{mac: \"{BARE}\", ip: 10.77.0.14, profile: kvm-host, rack: r1, unit: 9}}");
    let after = ok(fs::read_to_string(&site.inventory).map_err(io_error("read", &site.inventory)));
    assert_eq!(after.replace(&format!("  {line}\n"), ""), before, "{after}");

    // What the hold script does next, without a power cycle.
    assert_eq!(stranger.dhcp(), "10.77.0.14");
    let script = stranger.script(&who);
    assert!(script.contains("bridgehead.host=kvm07"), "{script}");
    assert!(!discover(&site, &["list"]).1.contains(BARE));
    let (done, said) = approve(&site, BARE, "kvm77", &[]);
    assert!(!done && said.contains("is listed already"), "{said}");
}

#[test]
fn a_guest_is_not_approved_unasked_and_one_name_goes_to_one_machine() {
    let Some(site) = site("enlist") else { return };
    // One digit off kvm01's.
    let guests = ["52:54:00:00:10:01", "52:54:00:00:00:66"];
    let [first, second] = guests;
    for (name, mac) in [("one", first), ("two", second)] {
        Stranger::new(&site, name, mac).dhcp();
    }
    let (_, list) = discover(&site, &["list"]);
    assert!(list.contains("one digit off kvm01's"), "{list}");
    assert!(list.contains("virtual: QEMU/KVM"), "{list}");
    let (done, said) = approve(&site, first, "kvm07", &[]);
    assert!(!done && said.contains("say so (--virtual"), "{said}");

    let at_once = |names: [&str; 2]| {
        thread::scope(|scope| {
            let approves = |mac, name| {
                let site = &site;
                scope.spawn(move || approve(site, mac, name, &["--virtual"]))
            };
            let both = [approves(first, names[0]), approves(second, names[1])];
            both.map(|one| one.join().unwrap_or_default())
        })
    };
    let said = at_once(["kvm07", "kvm07"]);
    let done = said.iter().filter(|(done, _)| *done).count();
    assert_eq!(done, 1, "{said:?}");
    let refused = said.iter().find(|(done, _)| !done);
    let refused = refused.is_some_and(|(_, said)| said.contains("kvm07 is there already"));
    assert!(refused, "{said:?}");
}

#[test]
fn two_that_are_approved_at_once_have_addresses_of_their_own() {
    let Some(site) = site("together") else { return };
    let macs = ["3c:ec:ef:00:00:08", "3c:ec:ef:00:00:09"];
    for (name, mac) in ["one", "two"].into_iter().zip(macs) {
        Stranger::new(&site, name, mac).dhcp();
    }
    let said = thread::scope(|scope| {
        let approves = |(mac, name): (&'static str, &'static str)| {
            let site = &site;
            scope.spawn(move || approve(site, mac, name, &[]))
        };
        let both = macs.into_iter().zip(["kvm08", "kvm09"]).map(approves);
        let both: Vec<_> = both.collect();
        both.into_iter()
            .map(|one| one.join().unwrap_or_default())
            .collect::<Vec<_>>()
    });
    assert!(said.iter().all(|(done, _)| *done), "{said:?}");
    let all = format!("{said:?}");
    for address in ["10.77.0.14 is the next", "10.77.0.15 is the next"] {
        assert!(all.contains(address), "{all}");
    }
}

#[test]
fn a_listed_host_that_waits_for_its_hardware_gets_it_by_its_name() {
    let hosts = "  kvm[01-03]: {ip: 10.77.0.11, profile: kvm-host, rack: r1, serials: [ONE, TWO, JAB12]}   # ours\n";
    let (head, _) = fake::INVENTORY.split_once("  kvm01:").unwrap_or_default();
    let text = format!("{head}{hosts}unknown: {{policy: hold}}\n");
    let Some(site) = site_with("fill", &text) else {
        return;
    };
    let stranger = Stranger::new(&site, "bare", BARE);
    stranger.dhcp();
    stranger.script("?uuid=&serial=JAB12&manufacturer=Dell&product=R650");
    let approve = |name: &str, more: &[&str]| {
        discover(&site, &[&["approve", BARE, "--name", name], more].concat())
    };
    for (name, more, words) in [
        (
            "kvm04",
            &[][..],
            "no host kvm04 is listed; say what a new one boots",
        ),
        (
            "kvm[03-03]",
            &["--profile", "kvm-host"],
            "is how a range is written",
        ),
        (
            "kvm03",
            &["--profile", "kwm"],
            "kvm03 is listed with profile kvm-host, not kwm",
        ),
        (
            "kvm03",
            &["--ip", "10.77.0.14"],
            "with address 10.77.0.13, not 10.77.0.14",
        ),
        ("kvm03", &["--rack", "r2"], "with rack r1, not r2"),
        ("kvm03", &["--unit", "7"], "with unit none, not 7"),
        (
            "kvm02",
            &[],
            "its serial number is TWO, and the machine says JAB12",
        ),
    ] {
        let (done, said) = approve(name, more);
        assert!(!done && said.contains(words), "{name}: {said}, not {words}");
        let file =
            ok(fs::read_to_string(&site.inventory).map_err(io_error("read", &site.inventory)));
        assert_eq!(file, text);
    }
    // The page's form has the host that is meant.
    let form = get(&site, &format!("/approve/{BARE}"));
    for part in [
        "value=\"kvm03\" required",
        "<option value=\"\">as it is listed</option>",
        "<option value=\"kvm01\">",
    ] {
        assert!(form.contains(part), "no {part} in {form}");
    }
    let (done, said) = approve("kvm03", &["--rack", "r1"]);
    assert!(
        done && said.contains("is kvm03, and goes on by itself"),
        "{said}"
    );
    let file = ok(fs::read_to_string(&site.inventory).map_err(io_error("read", &site.inventory)));
    let macs = format!(", macs: {{kvm03: \"{BARE}\"}}}}   # ours\n");
    assert_eq!(file, text.replace("}   # ours\n", &macs));
    assert_eq!(stranger.dhcp(), "10.77.0.13");
    assert!(stranger.script("").contains("bridgehead.host=kvm03"));
    let log = ok(site.daemon.verb("log", &["kvm03", "--all"]));
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let words = format!("{BARE} was approved as kvm03 over the control socket");
    assert!(log.contains(&words), "{log}");
}

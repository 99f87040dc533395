//! What the operator is told: who is missing, who asks instead, and what each would be answered.

use std::time::Duration;

use crate::host_files::{Booting, KVM01};
use crate::lab::{APPLIANCE, Capture, Namespace, Process, bridgehead, output, until};
use crate::{fake, ok, site, site_with};

/// One digit off kvm01's.
const STRANGER: &str = "52:54:00:00:10:01";

pub(crate) fn boots(client: &Namespace) {
    ok(client.run(&[
        "busybox",
        "udhcpc",
        "-i",
        "eth0",
        "-f",
        "-q",
        "-n",
        "-t",
        "5",
        "-s",
        "/bin/true",
        "-V",
        "PXEClient:Arch:00007:UNDI:003016",
        "-x",
        "0x5d:0007",
    ]));
}

#[test]
fn a_mistyped_mac_is_named_and_captured_packets_are_answered_as_they_were() {
    let Some(site) = site("story") else { return };
    let said = |verb: &str, args: &[&str]| {
        let done = ok(site.daemon.verb(verb, args));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let never = said("why", &["kvm01"]);
    assert!(
        never.contains("nothing was ever heard of its 52:54:00:00:00:01"),
        "{never}"
    );

    let logs = site.lab.dir().join("logs");
    let capture = ok(Capture::start(&site.lab, &logs, "asked", "udp"));
    let client = ok(site.lab.client("client", STRANGER));
    boots(&client);
    // tcpdump has them a moment later: DISCOVER, OFFER, REQUEST and ACK.
    let file = logs.join("asked.pcap");
    let written = || std::fs::metadata(&file).map_or(0, |file| file.len());
    let probe = || Ok((written() > 4 * 342).then_some(()));
    let bytes = || format!("{} bytes", written());
    ok(until("the capture", Duration::from_secs(10), probe, bytes));
    let _ = ok(capture.stop());

    let status = said("status", &[]);
    assert!(
        status.contains("one digit off kvm01's 52:54:00:00:00:01"),
        "{status}"
    );
    let host = status.lines().find(|line| line.starts_with("kvm01 "));
    assert!(
        host.is_some_and(|line| line.contains(&format!("{STRANGER} asks, one digit off"))),
        "{status}"
    );
    let why = said("why", &["kvm01"]);
    assert!(
        why.contains(&format!("1. {STRANGER} asks, one digit off")),
        "{why}"
    );
    let log = said("log", &["mac-525400001001"]);
    assert!(log.contains("acknowledged  gave 10.77.0."), "{log}");

    let (inventory, data) = (
        site.inventory.display().to_string(),
        site.data.display().to_string(),
    );
    let files = [
        "--inventory",
        &inventory,
        "--data",
        &data,
        "--server",
        APPLIANCE,
    ];
    let dry = |args: &[&str]| {
        let done = ok(output(&[&[bridgehead()], args, &files].concat()));
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{args:?}: {error}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    // The same address and loader as on the wire, in the same words.
    let gave = log
        .lines()
        .find_map(|line| line.split_once("gave ").map(|(_, gave)| gave));
    let replayed = dry(&["replay", &file.display().to_string()]);
    assert!(
        gave.is_some_and(|gave| replayed.contains(gave)),
        "{log}\n{replayed}"
    );
    assert!(
        replayed.contains(" 0 without an answer, 0 refused"),
        "{replayed}"
    );
    let explained = dry(&["explain", STRANGER]);
    for words in [
        "one digit off kvm01's",
        "boot file  snponly.efi",
        "it waits, and asks again",
    ] {
        assert!(explained.contains(words), "no `{words}` in:\n{explained}");
    }
}

/// Into a pipe nothing is redrawn in place, and who watches ends with the reader.
#[test]
fn what_is_watched_ends_where_nobody_reads_and_is_plain_where_nobody_looks() {
    let Some(site) = site("unread") else { return };
    let client = ok(site.lab.client("client", KVM01));
    boots(&client);
    let state = site.lab.dir().join("state").display().to_string();
    let watch = format!(
        "timeout 60 {} status --watch --state {state} | head -1",
        bridgehead()
    );
    let done = ok(output(&["bash", "-o", "pipefail", "-c", &watch]));
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        said.starts_with("HOST ") && !said.contains('\x1b'),
        "{said}"
    );
    // With 124 it had to be ended.
    assert_eq!(done.status.code(), Some(0));
}

/// What an operator types for a machine, and types wrongly.
#[test]
fn a_machine_goes_by_its_name_or_mac_however_written_and_what_is_none_is_said_to_be_none() {
    let named = fake::INVENTORY.replace("kvm-host}\nunknown", "kvm-host, rack: r1}\nunknown");
    let Some(site) = site_with("named", &named) else {
        return;
    };
    let client = ok(site.lab.client("client", STRANGER));
    boots(&client);
    let told = |args: &[&str]| {
        let done = ok(site.daemon.verb(args[0], &args[1..]));
        let text = [done.stdout, done.stderr].concat();
        (
            String::from_utf8_lossy(&text).into_owned(),
            done.status.code(),
        )
    };
    for verb in ["status", "why", "log"] {
        for (typed, name) in [
            ("KVM01", "kvm01"),
            ("5254.0000.0001", "kvm01"),
            ("52-54-00-00-00-01", "kvm01"),
            (STRANGER, "mac-525400001001"),
            ("525400001001", "mac-525400001001"),
        ] {
            let (text, code) = told(&[verb, typed, "--json"]);
            let words = format!("\"host\":\"{name}\"");
            assert!(
                text.contains(&words) && code == Some(0),
                "{verb} {typed}: {text}"
            );
        }
        for (typed, words) in [
            ("kvm1", "did you mean `kvm01`?"),
            ("", "an empty text is neither a host's name nor a MAC"),
            (
                "kvm[03-01]",
                match verb {
                    "log" => "is a list of hosts, and this is told of one alone",
                    _ => "is not a list of hosts",
                },
            ),
            (
                "52:54:00:00:77:77",
                "is neither listed nor was it ever seen",
            ),
            (
                "r1",
                "r1 is a rack, and no host: `bridgehead status --rack r1`",
            ),
            ("kvm-host", "kvm-host is a profile, and no host"),
        ] {
            let (text, code) = told(&[verb, typed]);
            assert!(
                text.contains(words) && code == Some(1),
                "{verb} {typed}: {text}"
            );
        }
    }
    // Who holds what, and that nobody is in trouble.
    let (why, _) = told(&["why", STRANGER]);
    assert!(why.contains("; it has 10.77.0.1"), "{why}");
    let (text, code) = told(&["status", "--trouble"]);
    assert!(text.starts_with("no machine needs a look"), "{text}");
    assert_eq!(code, Some(0));
    let (text, _) = told(&["status", "--rack", "r11"]);
    assert!(text.contains("in rack `r11`; did you mean `r1`?"), "{text}");
    let state = site.lab.dir().join("state").display().to_string();
    let (inventory, data) = (&site.inventory, &site.data);
    let explained = |machine: &str| {
        let done = ok(output(&[
            bridgehead(),
            "explain",
            machine,
            "--server",
            APPLIANCE,
            "--inventory",
            &inventory.display().to_string(),
            "--data",
            &data.display().to_string(),
            "--state",
            &state,
        ]));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let stranger = explained("5254.0000.1001");
    let now = "Just now, says the daemon, mac-525400001001 is running in dhcp, for ";
    assert!(stranger.contains(now), "{stranger}");
    assert!(stranger.contains("; it has 10.77.0.1"), "{stranger}");
    let listed = explained("KVM02");
    assert!(listed.contains("kvm02 is unseen."), "{listed}");
}

#[test]
fn log_follows_a_boot_that_begins() {
    let Some(site) = site("follow") else { return };
    let state = site.lab.dir().join("state").display().to_string();
    let argv = [bridgehead(), "log", "kvm02", "--follow", "--state", &state];
    let log = site.lab.dir().join("followed.log");
    let switch = site.lab.switch().name();
    let client = ok(site.lab.client("client", "52:54:00:00:00:02"));
    let mut following = ok(Process::spawn("follow", switch, &argv, &log));
    boots(&client);
    ok(following.wait_for("gave 10.77.0.12", Duration::from_secs(20)));
    let story = || {
        let done = site.daemon.verb("status", &["kvm02"])?;
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let probe = || {
        Ok(story()?
            .contains("acknowledged  gave 10.77.0.12")
            .then_some(()))
    };
    let patience = Duration::from_secs(10);
    ok(until(
        "the stage with how it is known",
        patience,
        probe,
        || story().unwrap_or_default(),
    ));
}

#[test]
fn a_hosts_last_words_are_said_in_plain_ones() {
    let Some(site) = site("lastwords") else {
        return;
    };
    let host = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let token = host.config(&host.boot_token())("report_token");
    let post = |what: &str, body: &str| {
        let path = format!("/v1/boot/kvm01/{what}");
        host.get(&path, &token, &["--data-binary", body])
    };
    let failed = "stage=root\nstate=fail\nmessage=no answer\nnext=reboots\nuptime_ms=9000\n";
    assert_eq!(post("events", failed), "200");
    let log = "[ 8.1] nfs: server 10.77.0.1 not responding, still trying\u{1b}[2J\n";
    assert_eq!(post("log", log), "204");
    let said = |verb: &str| {
        let done = ok(site.daemon.verb(verb, &["kvm01"]));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let status = said("status");
    let note = "the server of the root or the pool does not answer; no answer -> reboots";
    assert!(status.contains(note), "{status}");
    let why = said("why");
    let console = "Its console says\n  [ 8.1] nfs: server 10.77.0.1 not responding";
    assert!(
        why.contains(console) && why.contains("1. look whether that server runs"),
        "{why}"
    );
    // The next boot's trouble is another.
    let next = ok(site.lab.client("again", KVM01));
    boots(&next);
    let why = said("why");
    assert!(!why.contains("Its console says"), "{why}");
}

#[test]
fn what_stops_ipxe_is_told_by_ipxe_alone_and_until_the_host_speaks() {
    let Some(site) = site("ipxefails") else {
        return;
    };
    let host = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    boots(&host.namespace);
    let token = host.boot_token();
    let failed = format!("/boot/{KVM01}/failed?step=kernel&errno=0x2e008081");
    let said = |verb: &str, args: &[&str]| {
        let done = ok(site.daemon.verb(verb, &[&["kvm01"], args].concat()));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let other = Booting::new(&site, "kvm02", "52:54:00:00:00:02", "10.77.0.12");
    assert_eq!(other.get(&failed, "", &[]), "403", "{}", other.text());
    let told = "iPXE could not load the kernel: the file is not for this firmware";
    assert!(!said("log", &[]).contains(told));

    assert_eq!(host.get(&failed, "", &[]), "200", "{}", host.text());
    let status = said("status", &[]);
    assert!(
        status.contains(told) && status.contains("unproven"),
        "{status}"
    );
    let why = said("why", &[]);
    for words in [
        told,
        "https://ipxe.org/2e008081",
        "1. `bridgehead explain HOST` shows which loader",
    ] {
        assert!(why.contains(words), "no `{words}` in:\n{why}");
    }
    // Of a flood a few are kept.
    for _ in 0..20 {
        assert_eq!(host.get(&failed, "", &[]), "200");
    }
    assert_eq!(said("log", &[]).matches(told).count(), 12);
    // Once the host speaks for itself, what anybody at its address says of its loader is nothing.
    let report = host.config(&token)("report_token");
    crate::page::report(&host, &report, "root", "mounted");
    assert_eq!(host.get(&failed.replace("kernel", "boot"), "", &[]), "200");
    let log = said("log", &[]);
    assert!(!log.contains("could not start"), "{log}");
}

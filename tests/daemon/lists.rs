//! Lists of hosts on the command line, and scripts that wait for them.

use std::time::Duration;

use crate::fake::INVENTORY;
use crate::host_files::{Booting, KVM01};
use crate::lab::{Process, Site, bridgehead, output};
use crate::{ok, site, site_with};

/// What a command prints, both streams, and its exit code.
fn said(argv: &[&str]) -> (String, String, Option<i32>) {
    let done = ok(output(&[&[bridgehead()], argv].concat()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&done.stdout), text(&done.stderr), done.status.code())
}

fn state(site: &Site) -> String {
    site.lab.dir().join("state").display().to_string()
}

#[test]
fn hosts_are_named_by_lists_and_one_that_is_none_by_its_near_name() {
    let Some(site) = site("lists") else { return };
    let state = state(&site);
    let inventory = site.inventory.display().to_string();
    let asked = |args: &[&str]| said(&[args, &["--state", &state]].concat());
    let file = |args: &[&str]| said(&[args, &["--inventory", &inventory]].concat());
    let hosts = |text: &str| -> Vec<String> {
        let first = text
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        let hosts = first.filter(|word| word.starts_with("kvm"));
        hosts.map(String::from).collect()
    };
    for (list, names) in [
        (&["kvm[02-03]"][..], &["kvm02", "kvm03"][..]),
        (&["KVM[01,03]"], &["kvm01", "kvm03"]),
        (&["kvm01,kvm02", "kvm[02-03]"], &["kvm01", "kvm02", "kvm03"]),
    ] {
        let (table, error, code) = asked(&[&["status"], list].concat());
        assert_eq!(
            (hosts(&table).as_slice(), code),
            (
                &names.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
                Some(0)
            ),
            "{table}{error}"
        );
        let (table, error, code) = file(&[&["hosts", "list"], list].concat());
        assert_eq!(
            (hosts(&table).len(), code),
            (names.len(), Some(0)),
            "{table}{error}"
        );
        let (told, error, code) = asked(&[&["why"], list].concat());
        assert_eq!(
            (told.matches("Likely cause").count(), code),
            (names.len(), Some(0)),
            "{told}{error}"
        );
        let (told, error, code) = file(&[&["hosts", "show", "--json"], list].concat());
        assert_eq!(
            (told.lines().count(), code),
            (names.len(), Some(0)),
            "{told}{error}"
        );
    }
    let (story, ..) = asked(&["status", "kvm[02-02]"]);
    assert!(
        story.contains("`bridgehead why kvm02` says what to try."),
        "{story}"
    );
    let (shown, ..) = file(&["hosts", "show", "kvm[01-02]"]);
    assert!(
        shown.starts_with("kvm01\n") && shown.contains("\n\nkvm02\n"),
        "{shown}"
    );

    let status = |list| asked(&["status", list]);
    let why = |list| asked(&["why", list]);
    let list = |list| file(&["hosts", "list", list]);
    let show = |list| file(&["hosts", "show", list]);
    let told: [&dyn Fn(&'static str) -> _; 4] = [&status, &why, &list, &show];
    for told in told {
        for (list, words) in [
            ("kvm[01-04]", "did you mean `kvm0"),
            (
                "kvm[03-01]",
                "`kvm[03-01]` is not a list of hosts: write kvm[01-16]",
            ),
        ] {
            let (out, error, code) = told(list);
            assert!(
                out.is_empty() && error.contains(words) && code == Some(1),
                "{list}: {out}{error}"
            );
        }
    }
    let (_, error, code) = asked(&["log", "kvm[01-02]"]);
    assert!(
        error.contains("told of one alone") && code == Some(1),
        "{error}"
    );
}

/// Boots as the firmware does, and gets what it reports with.
fn boot(host: &Booting) -> String {
    crate::story::boots(&host.namespace);
    host.config(&host.boot_token())("report_token")
}

fn report(host: &Booting, token: &str, body: &str) {
    let answer = host.get("/v1/boot/kvm01/events", token, &["--data-binary", body]);
    assert_eq!(answer, "200", "{}", host.text());
}

const JOINED: &str = "stage=joined\nstate=ok\nuptime_ms=60000\nmessage=joined\n";

#[test]
fn a_script_waits_for_the_next_boot_and_not_for_one_that_stays_failed() {
    let held = INVENTORY.replace(
        "    kernel: debian\n",
        "    kernel: debian\n    on_failure: hold\n",
    );
    let Some(site) = site_with("waits", &held) else {
        return;
    };
    let state = state(&site);
    let host = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    report(&host, &boot(&host), JOINED);
    let waits = ["status", "kvm01", "--state", &state, "--wait", "joined"];
    let (_, error, code) = said(&[&waits[..], &["--timeout", "20s"]].concat());
    assert_eq!(code, Some(0), "{error}");
    let (_, error, code) = said(&[&waits[..], &["--new", "--timeout", "1s"]].concat());
    let words = "kvm01 has begun no new boot and is done in joined";
    assert!(error.contains(words) && code == Some(5), "{error}");

    let switch = site.lab.switch().name();
    let begin = |name: &str| {
        let argv = [&[bridgehead()], &waits[..], &["--new", "--timeout", "60s"]].concat();
        let log = site.lab.dir().join(format!("{name}.log"));
        let mut waiting = ok(Process::spawn(name, switch, &argv, &log));
        ok(waiting.wait_for("boots that begin from now on", Duration::from_secs(20)));
        waiting
    };
    let ends = |mut waiting: Process| ok(waiting.wait_exit(Duration::from_secs(20))).code();
    let mut waiting = begin("again");
    let token = boot(&host);
    ok(waiting.check_alive());
    report(&host, &token, JOINED);
    assert_eq!(ends(waiting), Some(0));

    // A host that holds is not waited for; one that reboots is.
    let waiting = begin("held");
    let failed = "stage=root\nstate=fail\nmessage=no answer\nnext=stays as it is\nuptime_ms=9000\n";
    report(&host, &boot(&host), failed);
    assert_eq!(ends(waiting), Some(1));
    let (_, error, code) = said(&waits);
    let words = "by itself nothing goes on (`on_failure: hold`): kvm01 is failed in root";
    assert!(error.contains(words) && code == Some(1), "{error}");
    let reboots = failed.replace("stays as it is", "reboot");
    report(&host, &boot(&host), &reboots);
    let (_, error, code) = said(&[&waits[..], &["--timeout", "1s"]].concat());
    assert!(
        error.contains("within 1 s: kvm01 is failed") && code == Some(5),
        "{error}"
    );
}

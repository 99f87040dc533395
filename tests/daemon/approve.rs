//! Machines are approved by the daemon: by whom, how, and what is left of the operator's file.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::broken::get;
use crate::discover::{BARE, Stranger, approve};
use crate::fake::{self, INVENTORY};
use crate::lab::{Lab, Namespace, Site, io_error, until};
use crate::scribe::scribe;
use crate::tls::write_keys;
use crate::{ok, site};

const SERVER: &str =
    "server: {write: token, tls: {certificate: tls.pem, key: tls.key, port: 8443}}";
const HTTPS: &str = "https://10.77.0.1:8443";
const HTTP: &str = "http://10.77.0.1";
const PATIENCE: Duration = Duration::from_secs(20);
const AS_KVM07: &str = r#"{"name": "kvm07", "profile": "kvm-host", "rack": "r1", "unit": 9}"#;

/// With these lines in place of `unknown:` and behind `site:`.
pub(crate) fn inventory(server: &str, policy: &str) -> String {
    INVENTORY
        .replace("site: test", &format!("site: test\n{server}"))
        .replace("policy: hold", &format!("policy: {policy}"))
}

pub(crate) fn start(name: &str) -> Option<Site> {
    let lab = Lab::for_test(name)?;
    let data = ok(fake::data_dir(lab.dir()));
    write_keys(lab.dir());
    let logs = lab.dir().join("logs");
    Some(ok(Site::start(
        lab,
        &inventory(SERVER, "approve"),
        &data,
        &logs,
    )))
}

pub(crate) fn token(site: &Site, name: &str) -> String {
    let file = site.lab.dir().join("state").join(name);
    let token = ok(fs::read_to_string(&file).map_err(io_error("read", &file)));
    token.trim().to_owned()
}

/// Somebody with curl.
struct Caller<'a> {
    site: &'a Site,
    from: &'a Namespace,
}

impl Caller<'_> {
    /// Status and body.
    fn ask(&self, url: &str, more: &[&str]) -> (String, String) {
        let ca = self.site.lab.dir().join("tls.pem").display().to_string();
        let fixed = [
            "curl",
            "-sS",
            "-m",
            "40",
            "--cacert",
            &ca,
            "-w",
            "\n%{http_code}",
        ];
        let said = ok(self.from.run(&[&fixed, more, &[url]].concat()));
        let (body, status) = said.rsplit_once('\n').unwrap_or(("", &said));
        (status.to_owned(), body.to_owned())
    }

    /// Asks that a machine be a host.
    fn approve(&self, at: &str, token: &str, body: &str, more: &[&str]) -> (String, String) {
        let bearer = format!("Authorization: Bearer {token}");
        let mut argv = vec!["-H", "Content-Type: application/json", "-d", body];
        if !token.is_empty() {
            argv.extend(["-H", &bearer]);
        }
        argv.extend(more);
        self.ask(&format!("{at}/v1/discovered/{BARE}/approve"), &argv)
    }
}

/// Waits until the scribe has the directory open: an edit waits for its lock.
fn wait_open(site: &Site, scribe: Pid, dir: &Path) {
    let fds = Path::new("/proc").join(scribe.to_string()).join("fd");
    let waits = || {
        let open = fs::read_dir(&fds).map_err(io_error("list", &fds))?;
        let mut open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        Ok(open.any(|path| path == dir).then_some(()))
    };
    ok(until("the edit", PATIENCE, waits, || {
        site.daemon.log().tail(9)
    }));
}

fn text(path: &Path) -> String {
    ok(fs::read_to_string(path).map_err(io_error("read", path)))
}

#[test]
fn a_machine_is_approved_over_the_network_by_who_has_the_token_and_not_in_the_clear() {
    let Some(site) = start("byhttps") else { return };
    let stranger = Stranger::new(&site, "bare", BARE);
    stranger.dhcp();
    stranger.script("");
    let caller = Caller {
        site: &site,
        from: &stranger.namespace,
    };
    let right = token(&site, "write.token");
    let refused = |at: &str, token: &str, body: &str, more: &[&str], status: &str, words: &str| {
        let (found, said) = caller.approve(at, token, body, more);
        assert!(
            found == status && said.contains(words),
            "{found}: {said}, not {status}: {words}"
        );
    };
    // Reading is open, and all who listen have the token all the same.
    let log = site.daemon.log();
    let bearer = format!("Authorization: Bearer {right}");
    let (status, _) = caller.ask(&format!("{HTTP}/v1/status"), &["-H", &bearer]);
    assert_eq!(status, "200");
    assert!(
        log.text()
            .contains("the write token came in the clear from")
    );
    let way = "in the clear, for guests share this network: come by HTTPS (`server: {tls: ...}` in hosts.yaml), or from the server itself: ssh -L 8080:10.77.0.1:80 10.77.0.1";
    refused(HTTP, &right, AS_KVM07, &[], "403", way);
    assert!(
        log.text()
            .contains("the write token came in the clear from")
    );
    refused(HTTPS, "", AS_KVM07, &[], "401", "write.token");
    refused(
        HTTPS,
        &token(&site, "read.token"),
        AS_KVM07,
        &[],
        "401",
        "write.token",
    );
    assert!(
        log.text().contains("showed a wrong token (1 since"),
        "{}",
        log.tail(5)
    );
    for header in [
        "Origin: https://evil.example.org",
        "Sec-Fetch-Site: cross-site",
    ] {
        refused(
            HTTPS,
            &right,
            AS_KVM07,
            &["-H", header],
            "403",
            "another site's page",
        );
    }
    refused(HTTPS, &right, "{\"name\": 7}", &[], "422", "name");
    refused(
        HTTPS,
        &right,
        "{\"name\": \"a\", \"profile\": \"b\", \"root\": 1}",
        &[],
        "422",
        "unknown field `root`",
    );
    let unknown = AS_KVM07.replace("kvm-host", "kvm-hots");
    refused(HTTPS, &right, &unknown, &[], "422", "hosts.yaml:2");
    refused(
        HTTPS,
        &right,
        &AS_KVM07.replace("kvm07", "kvm01"),
        &[],
        "409",
        "kvm01 is there already",
    );
    let metrics = caller.ask(&format!("{HTTPS}/metrics"), &[]).1;
    for line in [
        "bridgehead_http_wrong_tokens_total 1\n",
        "bridgehead_troubles{part=\"scribe\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let before = text(&site.inventory);
    assert_eq!(before, inventory(SERVER, "approve"));
    let dry = AS_KVM07.replace('}', ", \"dry_run\": true}");
    let (status, said) = caller.approve(HTTPS, &right, &dry, &[]);
    assert!(
        status == "200" && said.contains("\"served\":false"),
        "{status}: {said}"
    );
    assert_eq!(text(&site.inventory), before);

    let own = [
        "-H",
        "Origin: https://10.77.0.1:8443",
        "-H",
        "Sec-Fetch-Site: same-origin",
    ];
    let (status, said) = caller.approve(HTTPS, &right, AS_KVM07, &own);
    let answer: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{status}: {said}"));
    assert_eq!(answer["host"], "kvm07");
    assert_eq!(
        (&answer["served"], &answer["waiting"]),
        (&true.into(), &true.into())
    );
    let line = format!(
        "  kvm07: {{mac: \"{BARE}\", ip: 10.77.0.14, profile: kvm-host, rack: r1, unit: 9}}\n"
    );
    assert_eq!(text(&site.inventory).replace(&line, ""), before);
    assert_eq!(stranger.dhcp(), "10.77.0.14");
    refused(HTTPS, &right, AS_KVM07, &[], "404", "is listed already");
    let log = ok(site.daemon.verb("log", &["kvm07", "--all"]));
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let who = format!("{BARE} was approved as kvm07 with the write token by HTTPS from 10.77.0.1");
    assert!(log.contains(&who), "{log}");
}

#[test]
fn who_may_not_is_told_what_would_let_them() {
    let Some(site) = start("notallowed") else {
        return;
    };
    let stranger = Stranger::new(&site, "bare", BARE);
    stranger.dhcp();
    let right = token(&site, "write.token");
    let edit = |site: &Site, server: &str, policy: &str, told: usize| {
        ok(site.edit(&inventory(server, policy)));
        let daemon = &site.daemon;
        let reloaded =
            || Ok((daemon.log().text().matches("reloaded: ").count() >= told).then_some(()));
        ok(until("a reload", PATIENCE, reloaded, || {
            daemon.log().tail(9)
        }));
    };
    edit(&site, SERVER, "hold", 1);
    let tell = |site: &Site, from: &Namespace, at: &str| {
        Caller { site, from }.approve(at, &right, AS_KVM07, &[])
    };
    let (status, said) = tell(&site, &stranger.namespace, HTTPS);
    let words = "network boot, whose machines are not approved over the network (`unknown: {policy: hold}`)";
    assert!(status == "403" && said.contains(words), "{status}: {said}");
    // Nobody types a form that is refused; on the server it is none.
    let bearer = format!("Authorization: Bearer {right}");
    let form = |more: &[&str]| {
        let from = &stranger.namespace;
        let argv = [&["-H", &bearer], more].concat();
        Caller { site: &site, from }.ask(&format!("{HTTPS}/approve/{BARE}"), &argv)
    };
    let command = format!("<code>bridgehead discover approve {BARE} --name NAME");
    for (more, expected) in [(&[][..], "200"), (&["-d", "name=kvm07"][..], "403")] {
        let (status, page) = form(more);
        assert_eq!(status, expected, "{page}");
        assert!(
            page.contains(&command) && page.contains("policy: hold"),
            "{page}"
        );
        assert!(!page.contains("<form"), "{page}");
    }
    assert!(get(&site, &format!("/approve/{BARE}")).contains("<form"));
    // Who may read by one token may by the other, where nobody else hears it.
    edit(
        &site,
        &SERVER.replace("write", "read: token, write"),
        "approve",
        2,
    );
    for (at, expected) in [(HTTPS, "200"), (HTTP, "401")] {
        let from = &stranger.namespace;
        let bearer = format!("Authorization: Bearer {right}");
        let (status, _) =
            Caller { site: &site, from }.ask(&format!("{at}/v1/status"), &["-H", &bearer]);
        assert_eq!(status, expected, "{at}");
    }
    edit(
        &site,
        &SERVER.replace("write: token", "write: off"),
        "approve",
        3,
    );
    let (status, said) = tell(&site, &stranger.namespace, HTTPS);
    assert!(
        status == "403" && said.contains("server: {write: token}"),
        "{status}: {said}"
    );
    assert_eq!(
        text(&site.inventory),
        inventory(&SERVER.replace("write: token", "write: off"), "approve")
    );
    // A tunnel of ssh ends on the server itself.
    edit(&site, SERVER, "approve", 4);
    let (status, said) = tell(&site, site.lab.appliance(), HTTP);
    assert!(
        status == "200" && said.contains("10.77.0.14"),
        "{status}: {said}"
    );
    let log = ok(site.daemon.verb("log", &["kvm07", "--all"]));
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("on the server itself (10.77.0.1)"), "{log}");
}

/// The daemon has no right to write here, and the owner stays the owner.
#[test]
fn the_file_of_another_user_stays_that_users() {
    let Some(site) = site("othersfile") else {
        return;
    };
    let (file, dir) = (site.inventory.clone(), site.lab.dir().to_owned());
    let change = |path: &Path, mode| {
        let given = chown(path, Some(1000), Some(1001));
        let mode = fs::Permissions::from_mode(mode);
        ok(given
            .and_then(|()| fs::set_permissions(path, mode))
            .map_err(io_error("give away", path)));
    };
    change(&file, 0o640);
    change(&dir, 0o755);
    Stranger::new(&site, "bare", BARE).dhcp();
    let (done, said) = approve(&site, BARE, "kvm07", &[]);
    assert!(done && said.contains("is kvm07"), "{said}");
    let now = ok(fs::metadata(&file).map_err(io_error("look at", &file)));
    assert_eq!(
        (now.uid(), now.gid(), now.mode() & 0o7777),
        (1000, 1001, 0o640)
    );
    assert!(text(&file).contains("kvm07: {mac:"));
}

#[test]
fn an_edit_under_way_is_finished_before_the_end_and_what_the_disk_says_is_told() {
    let Some(mut site) = site("underway") else {
        return;
    };
    Stranger::new(&site, "bare", BARE).dhcp();
    let pid = scribe(&site);
    // What a write begins with can't be made.
    let new = site.lab.dir().join(format!(".hosts.yaml.new-{pid}"));
    ok(fs::create_dir(&new).map_err(io_error("make", &new)));
    let before = text(&site.inventory);
    let (done, said) = approve(&site, BARE, "kvm07", &[]);
    assert!(
        !done && said.contains("cannot write") && said.contains("File exists"),
        "{said}"
    );
    assert_eq!(text(&site.inventory), before);
    ok(fs::remove_dir(&new).map_err(io_error("remove", &new)));

    // Somebody else edits.
    let dir = site.lab.dir().to_owned();
    let other = ok(File::open(&dir).map_err(io_error("open", &dir)));
    ok(other.lock().map_err(io_error("lock", &dir)));
    thread::scope(|scope| {
        let approving = scope.spawn(|| approve(&site, BARE, "kvm07", &[]));
        wait_open(&site, pid, &dir);
        let daemon = site.daemon.pid();
        for to in [pid, daemon] {
            kill(to, Signal::SIGTERM).unwrap_or_else(|error| panic!("{error}"));
        }
        ok(site
            .daemon
            .log()
            .wait_for("finishing what is under way", PATIENCE));
        ok(other.unlock().map_err(io_error("unlock", &dir)));
        // The daemon that ends serves no edit any more.
        let (_, said) = approving.join().unwrap_or_default();
        assert!(said.contains("is written"), "{said}");
    });
    let status = ok(site.daemon.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0), "{}", site.daemon.log().tail(20));
    assert!(text(&site.inventory).contains("kvm07: {mac:"));
}

/// A stolen token must leave a trace, also where its bearer does not wait for the answer.
#[test]
fn who_approves_and_hangs_up_is_written_down() {
    let Some(site) = start("hungup") else { return };
    let stranger = Stranger::new(&site, "bare", BARE);
    stranger.dhcp();
    let dir = site.lab.dir().to_owned();
    let other = ok(File::open(&dir).map_err(io_error("open", &dir)));
    ok(other.lock().map_err(io_error("lock", &dir)));
    let bearer = format!("Authorization: Bearer {}", token(&site, "write.token"));
    let url = format!("{HTTPS}/v1/discovered/{BARE}/approve");
    let mut caller = Command::new("ip")
        .args(["netns", "exec", stranger.namespace.name(), "curl", "-sk"])
        .args(["-H", "Content-Type: application/json", "-d", AS_KVM07])
        .args(["-H", &bearer, &url])
        .spawn()
        .unwrap_or_else(|error| panic!("{error}"));
    wait_open(&site, scribe(&site), &dir);
    let ended = caller.kill().and_then(|()| caller.wait());
    ok(ended.map_err(io_error("end", "curl".as_ref())));
    ok(other.unlock().map_err(io_error("unlock", &dir)));
    let told = || {
        let log = ok(site.daemon.verb("log", &["kvm07", "--all"]));
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        Ok(log
            .contains("was approved as kvm07 with the write token by HTTPS from")
            .then_some(()))
    };
    ok(until("who it was", PATIENCE, told, || {
        site.daemon.log().tail(20)
    }));
    assert!(text(&site.inventory).contains("kvm07: {mac:"));
}

#[test]
fn a_write_token_that_is_no_good_closes_that_way_and_keeps_nobody_from_booting() {
    let Some(mut site) = start("badtoken") else {
        return;
    };
    let file = site.lab.dir().join("state/write.token");
    ok(fs::write(&file, "short\n").map_err(io_error("write", &file)));
    ok(site.daemon.signal(Signal::SIGTERM));
    ok(site.daemon.wait_exit(PATIENCE));
    ok(site.restart());
    let said = ok(site
        .daemon
        .wait_for("nobody changes anything over the network", PATIENCE));
    assert!(
        said.contains("write.token") && said.contains("16 characters"),
        "{said}"
    );
    let stranger = Stranger::new(&site, "bare", BARE);
    stranger.dhcp();
    let ask = |token: &str| {
        let from = &stranger.namespace;
        Caller { site: &site, from }.approve(HTTPS, token, AS_KVM07, &[])
    };
    for wrong in ["short", ""] {
        assert_eq!(ask(wrong).0, "401");
    }
    ok(fs::remove_file(&file).map_err(io_error("remove", &file)));
    ok(site.daemon.signal(Signal::SIGHUP));
    let made = || Ok(file.exists().then_some(()));
    ok(until("another token", PATIENCE, made, || {
        site.daemon.log().tail(9)
    }));
    ok(site.daemon.log().wait_for("reloaded: ", PATIENCE));
    let (status, said) = ask(&token(&site, "write.token"));
    assert_eq!(status, "200", "{said}");
}

/// By DNS rebinding a page of another site asks through the operator's tunnel, which ends on the server.
#[test]
fn a_site_whose_name_leads_to_the_server_itself_reads_nothing() {
    let Some(site) = site("rebound") else { return };
    let from = site.lab.appliance();
    let caller = Caller { site: &site, from };
    let ask = |host: &str| {
        let host = format!("Host: {host}");
        caller.ask(&format!("{HTTP}/v1/status"), &["-H", &host])
    };
    let (status, said) = ask("evil.example.org:8080");
    assert!(
        status == "421" && said.contains("ask for localhost"),
        "{status}: {said}"
    );
    assert!(!said.contains("kvm01"), "{said}");
    for own in ["localhost:8080", "10.77.0.1"] {
        assert_eq!(ask(own).0, "200", "{own}");
    }
}

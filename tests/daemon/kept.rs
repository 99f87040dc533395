//! What was served last outlives the daemon: a start at which the operator's files have faults serves it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::broken::{get, said};
use crate::clients::{Program, lease};
use crate::discover::{BARE, Stranger, approve};
use crate::fake::INVENTORY;
use crate::host_files::{self, Booting, KVM01, SECRET, put};
use crate::lab::{Daemon, Site, io_error, until};
use crate::{ok, site};

const PATIENCE: Duration = Duration::from_secs(30);
/// What is wrong with the edit.
const FAULT: &str = "10.78.0.12 lies in no network";

fn kept(site: &Site) -> PathBuf {
    site.lab.dir().join("state/inventory.kept")
}

fn read(path: &Path) -> String {
    ok(fs::read_to_string(path).map_err(io_error("read", path)))
}

/// Waits until what is kept has this text, or lacks it.
fn wait_kept(site: &Site, text: &str, has: bool) {
    let file = kept(site);
    let found = || fs::read_to_string(&file).is_ok_and(|kept| kept.contains(text) == has);
    let probe = || Ok(found().then_some(()));
    ok(until("what is kept", PATIENCE, probe, || {
        site.daemon.log().tail(20)
    }));
}

fn power_cut(site: &mut Site) {
    ok(site.daemon.signal(Signal::SIGKILL));
    ok(site.daemon.wait_exit(PATIENCE));
}

fn faulty(inventory: &str) -> String {
    inventory.replace("10.77.0.12,", "10.78.0.12,")
}

/// Starts the daemon, which must refuse.
fn refusal(site: &Site, inventory: &Path) -> String {
    ends(site, inventory, 3)
}

/// Starts the daemon, which must end by itself.
fn ends(site: &Site, inventory: &Path, code: i32) -> String {
    let log = site.logs.join("refused.log");
    let mut daemon = ok(Daemon::spawn(&site.lab, inventory, &site.data, &log));
    let status = ok(daemon.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(code), "{}", daemon.log().text());
    daemon.log().text()
}

#[test]
fn after_a_power_cut_in_the_middle_of_an_edit_a_site_boots_as_before() {
    let Some(mut site) = host_files::site("powercut") else {
        return;
    };
    let good = format!("include: \"more*.yaml\"\n{}", host_files::inventory());
    let more = site.lab.dir().join("more.yaml");
    let kvm44 =
        "hosts:\n  kvm44: {mac: \"52:54:00:00:00:44\", ip: 10.77.0.44, profile: kvm-host}\n";
    put(&more, kvm44.as_bytes());
    ok(site.edit(&good));
    ok(site.daemon.wait_for("+ host kvm44", PATIENCE));
    wait_kept(&site, "10.77.0.44", true);
    // Everything goes wrong at once.
    ok(site.edit(&faulty(&good)));
    ok(site.daemon.wait_for("reload refused", PATIENCE));
    for gone in ["more.yaml", "secrets.yaml", "templates/files/own/etc/key"] {
        let path = site.lab.dir().join(gone);
        ok(fs::remove_file(&path).map_err(io_error("remove", &path)));
    }
    put(&site.lab.dir().join("templates/cmdline.txt"), b"{% if %}");
    power_cut(&mut site);
    ok(site.restart());

    ok(site.daemon.wait_for(
        "the last good inventory goes on serving, as it was on ",
        PATIENCE,
    ));
    assert!(site.daemon.log().text().contains(FAULT));
    let words = "the last edit of the inventory is not served; the one before it is";
    for told in [said(&site, "status", &[]), get(&site, "/readyz")] {
        assert!(told.contains(words) && told.contains(FAULT), "{told}");
    }
    assert!(get(&site, "/").contains(&words[1..]));
    let metrics = get(&site, "/metrics");
    assert!(
        metrics.contains("bridgehead_inventory_reload_success 0\n"),
        "{metrics}"
    );

    let client = ok(site.lab.client("client", "52:54:00:00:00:44"));
    let given = ok(lease(Program::Udhcpc, &client, site.lab.dir(), None));
    assert_eq!(given.address.to_string(), "10.77.0.44");
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let report = kvm01.config(&kvm01.boot_token())("report_token");
    assert_eq!(kvm01.files("kvm01", &report, &[]), "200");
    assert!(
        kvm01.text().contains(SECRET),
        "its secret is not in its files"
    );

    // Nobody edits over a fault.
    let stranger = Stranger::new(&site, "bare", BARE);
    stranger.dhcp();
    stranger.script("");
    let (approved, why) = approve(&site, BARE, "kvm07", &[]);
    assert!(!approved && why.contains(FAULT), "{why}");
    assert_eq!(read(&site.inventory), faulty(&good));

    // What is served is what an edit differs from, and where it stands.
    put(&more, kvm44.replace(".44,", ".45,").as_bytes());
    host_files::write_files(site.lab.dir());
    ok(site.edit(&good));
    ok(site
        .daemon
        .wait_for("~ host kvm44 ip: 10.77.0.44 -> 10.77.0.45", PATIENCE));
    assert!(!said(&site, "status", &[]).contains(words));
    assert_eq!(get(&site, "/readyz"), "ready\n");
    wait_kept(&site, "10.77.0.45", true);
}

#[test]
fn what_is_kept_is_of_this_inventory_and_whole_or_is_not_served() {
    let Some(mut site) = site("unkept") else {
        return;
    };
    wait_kept(&site, "kvm03", true);
    power_cut(&mut site);
    let other = site.lab.dir().join("other.yaml");
    put(&other, faulty(INVENTORY).as_bytes());
    let refused = refusal(&site, &other);
    for words in [FAULT, "hosts.yaml and not of ", "it is not served"] {
        assert!(refused.contains(words), "{words} is not in: {refused}");
    }

    ok(site.edit(&faulty(INVENTORY)));
    let whole = read(&kept(&site));
    let newer = whole.replacen("\"format\":1", "\"format\":2", 1);
    for (text, words) in [
        (
            &whole[..whole.len() - 9],
            "is damaged (its checksum is another)",
        ),
        (&whole[..20], "is damaged ("),
        ("", "is damaged ("),
        (
            &newer,
            "was written by a newer bridgehead (format 2, and this one knows 1)",
        ),
    ] {
        put(&kept(&site), text.as_bytes());
        let refused = refusal(&site, &site.inventory);
        assert!(refused.contains(FAULT), "{refused}");
        assert!(refused.contains(words), "{words} is not in: {refused}");
    }
    // What it names in the data directory is of now.
    put(&kept(&site), whole.as_bytes());
    let kernel = site.data.join("kernels/debian/vmlinuz");
    let aside = kernel.with_extension("aside");
    ok(fs::rename(&kernel, &aside).map_err(io_error("rename", &kernel)));
    // Its disk may be mounted late, whatever else is wrong.
    let refused = ends(&site, &site.inventory, 1);
    let words = "can't be served either:\nerror[artefacts::missing_kernel]";
    assert!(refused.contains(words), "{words} is not in: {refused}");
    ok(fs::rename(&aside, &kernel).map_err(io_error("rename", &aside)));

    // A good one is served whatever was kept, and takes its place.
    put(&kept(&site), b"torn");
    ok(site.edit(INVENTORY));
    ok(site.restart());
    ok(site.daemon.wait_for("is damaged (", PATIENCE));
    wait_kept(&site, "kvm03", true);
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_hosts_are_served() {
    let Some(mut site) = site("keepless") else {
        return;
    };
    wait_kept(&site, "kvm03", true);
    // As root no mode would stop it.
    let beside = kept(&site).with_extension("new");
    ok(fs::create_dir(&beside).map_err(io_error("make", &beside)));
    ok(site.edit(&INVENTORY.replace("kvm03", "kvm33")));
    ok(site.daemon.wait_for("+ host kvm33", PATIENCE));
    let words = "the inventory that is served can't be kept for a restart, cannot write ";
    ok(site.daemon.wait_for(words, PATIENCE));
    assert!(said(&site, "status", &[]).starts_with(words));
    let ready = get(&site, "/readyz");
    assert!(
        ready.starts_with(&format!("ready\nkept: {words}")),
        "{ready}"
    );
    assert!(get(&site, "/metrics").contains("bridgehead_troubles{part=\"kept\"} 1"));
    // What is served is kept, whatever an editor does meanwhile.
    let aside = site.inventory.with_extension("aside");
    ok(fs::rename(&site.inventory, &aside).map_err(io_error("rename", &aside)));
    ok(fs::remove_dir(&beside).map_err(io_error("remove", &beside)));
    ok(site.daemon.wait_for("is kept again", PATIENCE));
    let kept = read(&kept(&site));
    assert!(kept.contains("kvm33") && !kept.contains("kvm03"), "{kept}");
}

#[test]
fn an_address_that_comes_late_is_waited_for_and_nothing_else_served() {
    let Some(mut site) = site("renumbered") else {
        return;
    };
    wait_kept(&site, "kvm03", true);
    power_cut(&mut site);
    ok(site.edit(&INVENTORY.replace("10.77.", "10.78.")));
    let said = ends(&site, &site.inventory, 1);
    assert!(!said.contains("goes on serving"), "{said}");
    assert!(said.contains("has no address in a network"), "{said}");
}

#[test]
fn a_file_that_was_cut_short_is_told_at_the_start_and_what_it_was_stays() {
    let Some(mut site) = site("cut") else {
        return;
    };
    wait_kept(&site, "kvm03", true);
    power_cut(&mut site);
    let short = INVENTORY.split_once("  kvm02").map(|(short, _)| short);
    ok(site.edit(short.unwrap_or_default()));
    ok(site.restart());
    let old = site.lab.dir().join("state/inventory.kept.old");
    let log = site.daemon.log().text();
    for words in [
        "edited since it was served last: hosts: 2 removed",
        "- host kvm02 ",
        "no hosts any more: kvm02, kvm03. ",
        &old.display().to_string(),
    ] {
        assert!(log.contains(words), "{words} is not in: {log}");
    }
    wait_kept(&site, "kvm03", false);
    // As the operator's guide says.
    let kept = read(&old);
    let body = kept.lines().nth(1).unwrap_or_default();
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    assert_eq!(body["texts"][0]["text"], INVENTORY);
    // What is served is what it says now, and the next start has nothing to tell.
    power_cut(&mut site);
    ok(site.restart());
    assert!(!site.daemon.log().text().contains("edited since"));
}

#[test]
fn who_has_not_the_state_directory_says_nothing_of_what_is_kept_in_it() {
    let Some(mut site) = site("second") else {
        return;
    };
    wait_kept(&site, "kvm03", true);
    ok(site.edit(&faulty(INVENTORY)));
    ok(site.daemon.wait_for("reload refused", PATIENCE));
    let said = ends(&site, &site.inventory, 1);
    assert!(said.contains("another bridgehead (process "), "{said}");
    assert!(!said.contains("last good"), "{said}");
}

/// What in the state directory others than its owner could read.
fn open_to_others(directory: &Path) -> Vec<String> {
    let entries = ok(fs::read_dir(directory).map_err(io_error("list", directory)));
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let metadata = ok(fs::metadata(&path).map_err(io_error("look at", &path)));
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            found.push(format!("{} {mode:o}", path.display()));
        }
        if metadata.is_dir() {
            found.extend(open_to_others(&path));
        }
    }
    found
}

#[test]
fn what_the_daemon_writes_is_for_its_eyes_and_becomes_so() {
    let Some(mut site) = site("private") else {
        return;
    };
    let state = site.lab.dir().join("state");
    wait_kept(&site, "kvm03", true);
    let client = ok(site.lab.client("client", "52:54:00:00:00:01"));
    ok(lease(Program::Udhcpc, &client, site.lab.dir(), None));
    let socket = format!("{} 660", state.join("bridgehead.sock").display());
    assert_eq!(open_to_others(&state), std::slice::from_ref(&socket));
    power_cut(&mut site);
    let open = |path: PathBuf, mode: u32| {
        let mode = fs::Permissions::from_mode(mode);
        ok(fs::set_permissions(&path, mode).map_err(io_error("chmod", &path)));
    };
    put(&state.join("console/kvm01/old.log"), b"last words");
    for name in [
        "events.jsonl",
        "leases.jsonl",
        "roots.json",
        "console/kvm01/old.log",
    ] {
        open(state.join(name), 0o644);
    }
    open(state.join("console"), 0o755);
    // An operator let a group read it: Prometheus, say. And it may be any directory.
    open(state.join("read.token"), 0o640);
    let others = ["theirs", "inventory.yaml", "leases.txt", "lockers/a"];
    let lockers = state.join("lockers");
    ok(fs::create_dir_all(&lockers).map_err(io_error("make", &lockers)));
    for other in others {
        put(&state.join(other), b"");
        open(state.join(other), 0o664);
    }
    open(lockers, 0o775);
    ok(site.restart());
    let mut left = open_to_others(&state);
    left.sort();
    let at = |(name, mode): (&str, u32)| format!("{} {mode}", state.join(name).display());
    let mut theirs = others.map(|name| at((name, 664))).to_vec();
    theirs.extend([("lockers", 775), ("read.token", 640)].map(at));
    theirs.push(socket);
    theirs.sort();
    assert_eq!(left, theirs);
}

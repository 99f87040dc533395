//! Boots of virtual bare servers with real firmware, from power-on to where each must come.
//!
//! At most two servers run at once: two cores emulate them. `make test` runs what is quick, `make test-boot`
//! all (the rest is marked `ignore`); `cargo test --test boot -- --include-ignored NAME` runs one. All of
//! it needs root (network namespaces, tap devices) and what `make kernel initrd root loaders` build.
#![allow(missing_docs, clippy::print_stderr)]

mod beside;
mod bonds;
mod cases;
mod control;
mod failures;
mod firmware;
mod handover;
mod hosts;
mod image;
mod inventory;
mod menus;
mod network;
mod outages;
mod rescue;

#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use lab::{
    Lab, Result, Site, VirtualServer, data_dir, hand_over, repository, require_boot_files,
    with_kernel,
};

/// From power-on to *joined*; a boot takes some two minutes where two share two slow cores.
const JOIN: Duration = Duration::from_secs(480);
/// From power-on to the end of the initrd.
const SWITCH: Duration = Duration::from_secs(300);
/// From *online*, which is early in the root, to a guest agent that answers; on a busy machine most of a boot.
const AGENT: Duration = Duration::from_secs(240);

const INITRD_STAGES: [&str; 13] = [
    "early",
    "drivers",
    "nic",
    "link",
    "bridge",
    "address",
    "config",
    "identity",
    "storage-net",
    "root",
    "overlay",
    "verify",
    "switch",
];

/// `no_timer_check`: where many share two cores, an emulated timer is late, and Linux panics with "IO-APIC + timer
/// doesn't work".
const INVENTORY: &str = r#"
site: lab
networks:
  boot:
    subnet: 10.77.0.0/24
    router: 10.77.0.1
    dns: [10.77.0.1]
    dhcp: server
    pool: 10.77.0.100-10.77.0.199
profiles:
  base:
    kernel: debian
    initrd: default
    cmdline: [no_timer_check, console=tty0, "console=ttyS0,115200"]
    bridge: {name: br0, mtu: 1500}
    root: {nfs: "/roots/kvm-host", overlay: 512M}
  kvm-host:
    extends: base
    image_pool: {moosefs: "10.77.0.5", mount: /var/lib/libvirt/images}
  by-pxelinux: {extends: base, loader: pxelinux}
  by-grub: {extends: base, loader: grub}
  from-nfs-server:
    extends: base
    root: {nfs: "10.77.0.5:/srv/roots/kvm-host", version: 4.2}
    image_pool: {nfs: "10.77.0.5:/srv/images", mount: /var/lib/libvirt/images}
hosts:
  kvm01: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm-host}
  kvm02: {mac: "52:54:00:00:00:02", ip: 10.77.0.12, profile: kvm-host}
  kvm03: {mac: "52:54:00:00:00:03", ip: 10.77.0.13, profile: by-pxelinux}
  kvm04: {mac: "52:54:00:00:00:04", ip: 10.77.0.14, profile: by-grub}
  kvm05: {mac: "52:54:00:00:00:05", ip: 10.77.0.15, profile: by-grub}
  kvm06: {mac: "52:54:00:00:00:06", ip: 10.77.0.16, profile: from-nfs-server}
unknown: {policy: hold}
"#;

/// One scenario at a time, whatever `--test-threads` says.
static MACHINE: Mutex<()> = Mutex::new(());

/// Runs a scenario in a lab of its own; says so and passes where there is no root.
fn scenario(name: &str, story: impl FnOnce(Lab, PathBuf) -> Result<()>) {
    let _turn = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = Lab::for_test(name) else {
        return;
    };
    let logs = repository().join("build/test").join(name);
    let _last_words = LastWords {
        logs: logs.clone(),
        began: SystemTime::now(),
    };
    let end = story(lab, logs.clone());
    if let Err(error) = end.and(hand_over(&logs)) {
        panic!("{error}");
    }
}

/// Shows the end of each console of a scenario that fails, by whatever check.
struct LastWords {
    logs: PathBuf,
    began: SystemTime,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", last_words(&self.logs, self.began));
        }
    }
}

/// The last lines of the serial logs in `logs` that were written to since `began`.
fn last_words(logs: &Path, began: SystemTime) -> String {
    let entries = fs::read_dir(logs).into_iter().flatten().flatten();
    let mut consoles: Vec<PathBuf> = entries
        .filter(|entry| {
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            changed.is_ok_and(|changed| changed >= began)
        })
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "serial")
        })
        .collect();
    consoles.sort();
    let shown = consoles.iter().map(|path| {
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines
            .get(lines.len().saturating_sub(40)..)
            .unwrap_or_default();
        format!("the end of {}:\n{}\n", path.display(), end.join("\n"))
    });
    shown.collect()
}

#[test]
fn a_failed_scenario_shows_the_end_of_its_consoles() {
    let logs = tempfile::tempdir().unwrap();
    let before = SystemTime::now() - Duration::from_secs(1);
    let lines: Vec<String> = (1..=100).map(|number| format!("line {number}")).collect();
    fs::write(logs.path().join("kvm01.serial"), lines.join("\n")).unwrap();
    fs::write(logs.path().join("daemon.log"), "not a console").unwrap();
    let shown = last_words(logs.path(), before);
    assert!(shown.contains("kvm01.serial:\nline 61\n"), "{shown}");
    assert!(shown.ends_with("line 100\n"), "{shown}");
    assert!(!shown.contains("not a console"), "{shown}");
    let later = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(last_words(logs.path(), later), "");
}

/// The daemon on the inventory that most scenarios share.
fn site(lab: Lab, logs: &Path) -> Result<Site> {
    site_of(lab, logs, INVENTORY)
}

/// The daemon on an inventory.
fn site_of(lab: Lab, logs: &Path, inventory: &str) -> Result<Site> {
    let data = data_dir();
    require_boot_files(&data)?;
    Site::start(lab, &with_kernel(inventory), &data, logs)
}

/// `bridgehead log HOST`.
fn said(site: &Site, host: &str) -> Result<String> {
    let output = site.daemon.verb("log", &[host])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every stage of the initrd said that it is done, the bridge before the address before the root: the order is the
/// point.
fn check_console(server: &VirtualServer) {
    let text = server.serial().text();
    let mut last = 0;
    for stage in INITRD_STAGES {
        let line = text.lines().position(|line| is_passed(line, stage));
        let line = line.unwrap_or_else(|| panic!("no `{stage} ok`\n{}", server.serial().tail(60)));
        assert!(
            line >= last,
            "{stage} came too early\n{}",
            server.serial().tail(60)
        );
        last = line;
    }
}

/// `bridgehead: [    4.31] address     ok    …`. An `info` line is a remark on the way, which hooks, bonds and the
/// watchdog make too; `drivers` alone ends with one, where no NIC is there yet.
fn is_passed(line: &str, stage: &str) -> bool {
    let words = line
        .split_once("bridgehead: [")
        .and_then(|(_, rest)| rest.split_once(']'));
    let (_, words) = words.unwrap_or_default();
    let mut said = words.split_whitespace();
    match (said.next(), said.next()) {
        (Some(name), Some("ok")) => name == stage,
        (Some("drivers"), Some("info")) => {
            stage == "drivers" && words.contains(" no Ethernet interface yet;")
        }
        _ => false,
    }
}

#[test]
fn only_the_last_word_of_a_stage_is_its_end() {
    for (said, stage, expected) in [
        ("link        ok    eth0 up", "link", true),
        ("link        ok    eth0 up", "nic", false),
        ("link        retry no carrier", "link", false),
        ("link        info  bond0 goes without a NIC", "link", false),
        (
            "drivers     info  no Ethernet interface yet; none",
            "drivers",
            true,
        ),
        ("drivers     info  hook 10-a: ok", "drivers", false),
    ] {
        let line = format!("login: bridgehead: [    4.31] {said}");
        assert_eq!(is_passed(&line, stage), expected, "{line}");
        assert!(!is_passed(said, stage), "{said}");
    }
}

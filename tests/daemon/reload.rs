//! A changed inventory serves at once; a bad one never does.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::broken::{get, said};
use crate::clients::{Program, lease};
use crate::fake::INVENTORY;
use crate::host_files::{Booting, KVM01};
use crate::lab::{Namespace, Site, output, until};
use crate::{ok, site, site_with};

const MAC: &str = "52:54:00:00:00:44";

fn with_kvm44(ip: &str) -> String {
    let line = format!("hosts:\n  kvm44: {{mac: \"{MAC}\", ip: {ip}, profile: kvm-host}}\n");
    INVENTORY.replace("hosts:\n", &line)
}

/// Asks again and again until the address is that.
fn wait_address(site: &Site, client: &Namespace, address: &str) {
    let probe = || {
        let given = lease(Program::Udhcpc, client, site.lab.dir(), None)?;
        Ok((given.address.to_string() == address).then_some(()))
    };
    let what = format!("the address {address}");
    ok(until(&what, Duration::from_secs(20), probe, || {
        site.daemon.log().tail(20)
    }));
}

#[test]
fn a_saved_file_and_a_sighup_are_taken_up_and_a_bad_edit_is_not() {
    let Some(mut site) = site("reload") else {
        return;
    };
    let client = ok(site.lab.client("client", MAC));
    ok(site.edit(&with_kvm44("10.77.0.44")));
    wait_address(&site, &client, "10.77.0.44");

    ok(site.edit(&with_kvm44("10.77.0.45")));
    ok(site.daemon.signal(Signal::SIGHUP));
    wait_address(&site, &client, "10.77.0.45");

    let fault = "10.78.0.46";
    ok(site.edit(&with_kvm44(fault)));
    ok(site.daemon.signal(Signal::SIGHUP));
    ok(site.daemon.wait_for(fault, Duration::from_secs(10)));
    wait_address(&site, &client, "10.77.0.45");
}

/// Sockets are bound at the start alone: an edit that needs another one is not half served.
#[test]
fn dhcp_that_is_switched_on_by_an_edit_needs_a_restart_and_is_said_to() {
    let off = INVENTORY.replace("dhcp: server", "dhcp: \"off\"");
    let Some(mut site) = site_with("unbound", &off) else {
        return;
    };
    ok(site.edit(INVENTORY));
    ok(site.daemon.wait_for(
        "DHCP on boot0 is not served since the start: restart the daemon",
        Duration::from_secs(10),
    ));
}

/// What `check --diff` says of a file.
fn diff(site: &Site, file: &std::path::Path, args: &[&str]) -> std::process::Output {
    let (file, data) = (file.display().to_string(), site.data.display().to_string());
    let files = ["--inventory", &file, "--data", &data, "--diff"];
    ok(site.daemon.verb("check", &[&files, args].concat()))
}

fn text(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_reload_says_what_changed_and_check_says_it_before() {
    let Some(mut site) = site("difference") else {
        return;
    };
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    powers_on(&kvm01);
    kvm01.boot_token();

    assert!(text(&diff(&site, &site.inventory, &[])).contains("nothing changed"));
    let edited = INVENTORY
        .replace("overlay: 512M", "overlay: 1G")
        .replace("  kvm03:", "  kvm04:")
        .replace("site: test", "site: edited");
    let file = site.lab.dir().join("edited.yaml");
    std::fs::write(&file, &edited).unwrap();
    let wanted = [
        "site: test -> edited",
        "~ profile kvm-host root.overlay: 512M -> 1G  (kvm01, kvm02, kvm04)",
        "- host kvm03 ip 10.77.0.13",
        "+ host kvm04 ip 10.77.0.13",
        "kvm01 is booting (attempt ",
        "): applies at its next boot",
    ];
    let told = text(&diff(&site, &file, &[]));
    let summary = "hosts: 1 added, 1 removed; profiles: 1 changed; site: 1 changed";
    for line in wanted.iter().chain([&summary]) {
        assert!(told.contains(line), "{line} is not in:\n{told}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&diff(&site, &file, &["--json"]).stdout).unwrap();
    assert_eq!(json["errors"], 0);
    assert_eq!(json["diff"]["schema"], 1);
    assert!(json["diff"]["under_way"]["kvm01"].is_string(), "{json}");

    ok(site.edit(&edited));
    for line in wanted.iter().chain([&summary]) {
        ok(site.daemon.wait_for(line, Duration::from_secs(20)));
    }
}

#[test]
fn included_files_are_watched_and_a_refused_edit_is_told_until_it_is_mended() {
    let Some(mut site) = site("included") else {
        return;
    };
    let patience = Duration::from_secs(20);
    let more = site.lab.dir().join("hosts.d");
    std::fs::create_dir(&more).unwrap();
    ok(site.edit(&format!("include: \"hosts.d/*.yaml\"\n{INVENTORY}")));
    ok(site
        .daemon
        .wait_for("nothing changed in the inventory", patience));

    let file = more.join("more.yaml");
    let host =
        |ip: &str| format!("hosts: {{kvm44: {{mac: \"{MAC}\", ip: {ip}, profile: kvm-host}}}}\n");
    std::fs::write(&file, host("10.77.0.44")).unwrap();
    ok(site.daemon.wait_for("+ host kvm44 ip 10.77.0.44", patience));

    std::fs::write(&file, host("10.78.0.44")).unwrap();
    ok(site.daemon.wait_for("reload refused", patience));
    let status = ok(site.daemon.verb("status", &[]));
    let status = format!("{status:?}");
    assert!(status.contains("10.78.0.44 lies in no network"), "{status}");

    std::fs::write(&file, host("10.77.0.45")).unwrap();
    ok(site
        .daemon
        .wait_for("~ host kvm44 ip: 10.77.0.44 -> 10.77.0.45", patience));
    let status = format!("{:?}", ok(site.daemon.verb("status", &[])));
    assert!(!status.contains("lies in no network"), "{status}");
}

#[test]
fn a_refused_edit_that_is_undone_is_no_longer_told() {
    let Some(mut site) = site("undone") else {
        return;
    };
    let patience = Duration::from_secs(20);
    // As editors keep the file that they replace: the very same one comes back.
    let backup = site.lab.dir().join("hosts.yaml~");
    std::fs::rename(&site.inventory, &backup).unwrap();
    ok(site.edit(&with_kvm44("10.78.0.44")));
    ok(site.daemon.wait_for("reload refused", patience));
    let words = "the last edit of the inventory is not served; the one before it is";
    let verb = |args: &[&str]| {
        let done = ok(site.daemon.verb(args[0], &args[1..]));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    for told in [
        verb(&["status"]),
        verb(&["why", "kvm01"]),
        get(&site, "/readyz"),
    ] {
        assert!(told.contains(words), "{told}");
    }
    assert!(get(&site, "/").contains(&words[1..]));
    std::fs::rename(&backup, &site.inventory).unwrap();
    ok(site
        .daemon
        .wait_for("the refused edit was undone", patience));
    let status = format!("{:?}", ok(site.daemon.verb("status", &[])));
    assert!(!status.contains("is not served"), "{status}");
}

/// Whoever opens a pipe waits for its other end: the daemon must not.
#[test]
fn a_pipe_in_the_place_of_a_file_is_a_refused_edit_and_nothing_waits_for_it() {
    let Some(mut site) = site("pipe") else { return };
    let patience = Duration::from_secs(20);
    let refused = |site: &mut Site, path: &Path| {
        let words = format!("{}: it is no regular file", path.display());
        ok(site.daemon.wait_for(&words, patience));
        let status = said(site, "status", &[]);
        assert!(status.contains(&words), "{status}");
    };
    let pipe = |path: &Path| nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let inventory = site.inventory.clone();
    std::fs::remove_file(&inventory).unwrap();
    pipe(&inventory);
    refused(&mut site, &inventory);
    std::fs::remove_file(&inventory).unwrap();
    let secrets = site.lab.dir().join("secrets.yaml");
    pipe(&secrets);
    ok(site.edit(&format!("secrets: secrets.yaml\n{INVENTORY}")));
    refused(&mut site, &secrets);
    // Asked anew, it reads the tokens as well.
    let token = site.lab.dir().join("state/read.token");
    std::fs::remove_file(&token).unwrap();
    pipe(&token);
    ok(site.edit(&with_kvm44("10.77.0.44")));
    ok(site
        .daemon
        .wait_for("read.token: it is no regular file", patience));
    ok(site.daemon.wait_for("+ host kvm44", patience));
    ok(site.daemon.signal(Signal::SIGTERM));
    assert!(ok(site.daemon.wait_exit(patience)).success());
}

/// The firmware's DISCOVER, as the first thing of a boot.
fn powers_on(host: &Booting) {
    let firmware = "udhcpc -i eth0 -f -q -n -t 3 -T 1 -s /bin/true -V PXEClient:Arch:00000:UNDI:002001 -x 0x5d:0000";
    let argv: Vec<_> = firmware.split(' ').collect();
    ok(host.namespace.output(&argv));
}

/// A kernel of another name beside the first.
fn add_kernel(site: &Site, name: &str) {
    let (old, new) = (
        site.data.join("kernels/debian"),
        site.data.join("kernels").join(name),
    );
    let (old, new) = (old.display().to_string(), new.display().to_string());
    ok(output(&["cp", "-r", &old, &new]));
    let kernel = format!("{new}/vmlinuz");
    ok(output(&["sh", "-c", &format!("echo other >> {kernel}")]));
}

fn wait_served(site: &Site, words: &str) {
    ok(site.daemon.log().wait_for(words, Duration::from_secs(20)));
}

#[test]
fn a_boot_under_way_goes_on_with_what_it_began_with_and_the_next_one_gets_the_edit() {
    let Some(site) = site("pinned") else { return };
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let kvm02 = Booting::new(&site, "kvm02", "52:54:00:00:00:02", "10.77.0.12");
    powers_on(&kvm01);
    let boot = kvm01.boot_token();
    assert_eq!(kvm01.get("/files/kernels/debian/vmlinuz", "", &[]), "200");
    let first = kvm01.body();
    // An edit between the script and the rest: another kernel, another overlay.
    add_kernel(&site, "edge");
    let edited = INVENTORY
        .replace("overlay: 512M", "overlay: 1G")
        .replace("kernel: debian", "kernel: edge");
    ok(site.edit(&edited));
    wait_served(&site, "): applies at its next boot");
    let status = ok(site.daemon.verb("status", &["kvm01"]));
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("that applies at its next boot"), "{status}");
    // Nobody else has that kernel any more.
    let kernel = "/files/kernels/debian/vmlinuz";
    assert_eq!(kvm02.get(kernel, "", &[]), "404");
    assert_eq!(kvm01.get(kernel, "", &[]), "200");
    assert_eq!(kvm01.body(), first);
    // A script that is asked for again is the same one, and so is what DHCP begins nothing by.
    assert_eq!(kvm01.boot_token(), boot);
    assert!(kvm01.text().contains("kernels/debian/vmlinuz"));
    let bytes = |mib: u64| (mib << 20).to_string();
    assert_eq!(kvm01.config(&boot)("overlay_bytes"), bytes(512));
    // Whoever begins now, begins with the edit.
    powers_on(&kvm02);
    let other = kvm02.boot_token();
    assert!(kvm02.text().contains("kernels/edge/vmlinuz"));
    assert_eq!(kvm02.config(&other)("overlay_bytes"), bytes(1024));
    // A second edit does not bring the first one to the boot.
    ok(site.edit(&edited.replace("overlay: 1G", "overlay: 2G")));
    wait_served(&site, "1G -> 2G");
    let report = kvm01.config(&boot);
    assert_eq!(report("overlay_bytes"), bytes(512));
    assert_eq!(kvm02.config(&other)("overlay_bytes"), bytes(1024));
    // What has failed is mended by an edit.
    let failed = [
        "--data-binary",
        "stage=root\nstate=fail\nmessage=no answer\nuptime_ms=9\n",
    ];
    let token = report("report_token");
    assert_eq!(kvm01.get("/v1/boot/kvm01/events", &token, &failed), "200");
    assert_eq!(kvm01.config(&token)("overlay_bytes"), bytes(2048));
    // Switched on anew.
    powers_on(&kvm02);
    let other = kvm02.boot_token();
    assert_eq!(kvm02.config(&other)("overlay_bytes"), bytes(2048));
}

#[test]
fn a_boot_that_fell_silent_keeps_its_files_and_the_next_one_gets_those_that_were_mended() {
    let Some(site) = site("mended") else { return };
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let kernel = "/files/kernels/debian/vmlinuz";
    let mended = |kvm01: &Booting| {
        assert_eq!(kvm01.get(kernel, "", &[]), "200");
        kvm01.text().contains("mended")
    };
    powers_on(&kvm01);
    kvm01.boot_token();
    assert!(!mended(&kvm01));
    // The same name, built anew; and an edit, by which the reload is seen.
    let file = site.data.join("kernels/debian/vmlinuz");
    ok(output(&[
        "sh",
        "-c",
        &format!("echo mended >> {}", file.display()),
    ]));
    ok(site.edit(&INVENTORY.replace("overlay: 512M", "overlay: 1G")));
    wait_served(&site, "512M -> 1G");
    assert!(!mended(&kvm01), "it is still under way");
    powers_on(&kvm01);
    kvm01.boot_token();
    assert!(mended(&kvm01));
}

#[test]
fn a_host_that_is_removed_or_has_another_address_gets_no_more_of_its_boot() {
    let Some(site) = site("unpinned") else { return };
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let kvm02 = Booting::new(&site, "kvm02", "52:54:00:00:00:02", "10.77.0.12");
    powers_on(&kvm01);
    powers_on(&kvm02);
    let (one, two) = (kvm01.boot_token(), kvm02.boot_token());
    let moved = INVENTORY.replace("10.77.0.12", "10.77.0.22");
    let line = moved.lines().find(|line| line.contains("kvm01:"));
    let without = moved.replace(line.unwrap_or_default(), "");
    ok(site.edit(&without));
    for host in ["kvm01", "kvm02"] {
        wait_served(&site, &format!("{host} is booting (attempt "));
    }
    wait_served(&site, "it gets no more of its boot");
    assert_eq!(kvm01.get("/v1/boot/kvm01/config", &one, &[]), "404");
    assert_eq!(kvm02.get("/v1/boot/kvm02/config", &two, &[]), "403");
}

//! A host's own files go to that host alone, in one boot attempt.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fake::{self, INVENTORY};
use crate::lab::{self, APPLIANCE, Lab, Namespace, Site, bridgehead, io_error, output, repository};
use crate::ok;

pub(crate) const KVM01: &str = "52:54:00:00:00:01";
const KVM02: &str = "52:54:00:00:00:02";
pub(crate) const SECRET: &str = "correct-horse-battery";
/// Larger than what sockets buffer, so that a cut is seen.
const LARGE: usize = 12 << 20;

pub(crate) fn put(path: &Path, bytes: &[u8]) {
    if let Some(parent) = path.parent() {
        ok(fs::create_dir_all(parent).map_err(io_error("create", parent)));
    }
    ok(fs::write(path, bytes).map_err(io_error("write", path)));
}

pub(crate) fn inventory() -> String {
    INVENTORY
        .replace("site: test\n", "site: test\nsecrets: secrets.yaml\n")
        .replace(
            "    kernel: debian\n",
            "    kernel: debian\n    files: [own]\n",
        )
}

/// Templates with the tree `own`, and the secrets file.
pub(crate) fn write_files(dir: &Path) {
    let templates = repository().join("templates").display().to_string();
    ok(output(&[
        "cp",
        "-r",
        &templates,
        &dir.display().to_string(),
    ]));
    let tree = dir.join("templates/files/own");
    put(
        &tree.join("etc/motd"),
        b"{{ machine }} {{ address }} {{ bridge.name }}\n",
    );
    put(&tree.join("etc/key"), b"{{ secrets.key }}\n");
    put(&tree.join("var/large"), &vec![0; LARGE]);
    put(
        &tree.join("_files.yaml"),
        b"etc/motd: {mode: 0640, group: 4}\n",
    );
    let secrets = dir.join("secrets.yaml");
    let text = format!("all: {{key: nobody's}}\nhosts:\n  kvm01: {{key: {SECRET}}}\n");
    put(&secrets, text.as_bytes());
    chmod(&secrets, 0o600);
}

fn chmod(path: &Path, mode: u32) {
    let mode = fs::Permissions::from_mode(mode);
    ok(fs::set_permissions(path, mode).map_err(io_error("chmod", path)));
}

pub(crate) fn site(name: &str) -> Option<Site> {
    let lab = Lab::for_test(name)?;
    let data = ok(fake::data_dir(lab.dir()));
    write_files(lab.dir());
    let logs = lab.dir().join("logs");
    Some(ok(Site::start(lab, &inventory(), &data, &logs)))
}

/// A host on the network, and what it has of its boot attempt.
pub(crate) struct Booting {
    pub(crate) namespace: Namespace,
    name: &'static str,
    mac: &'static str,
    out: PathBuf,
}

impl Booting {
    pub(crate) fn new(site: &Site, name: &'static str, mac: &'static str, ip: &str) -> Self {
        let namespace = ok(site.lab.client(name, mac));
        ok(namespace.ip(&["addr", "add", &format!("{ip}/24"), "dev", "eth0"]));
        let out = site.lab.dir().join(format!("{name}.out"));
        Self {
            namespace,
            name,
            mac,
            out,
        }
    }

    pub(crate) fn get(&self, path: &str, token: &str, more: &[&str]) -> String {
        let url = format!("http://{APPLIANCE}{path}");
        let header = format!("X-Bridgehead-Token: {token}");
        let out = self.out.display().to_string();
        let _ = fs::remove_file(&self.out);
        let fixed = [
            "curl",
            "-s",
            "-m",
            "20",
            "-H",
            &header,
            "-o",
            &out,
            "-w",
            "%{http_code}",
        ];
        let argv = [&fixed, more, &[url.as_str()]].concat();
        let done = ok(self.namespace.output(&argv));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        fs::read(&self.out).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }

    pub(crate) fn boot_token(&self) -> String {
        assert_eq!(
            self.get(&format!("/boot/{}/script.ipxe", self.mac), "", &[]),
            "200"
        );
        let text = self.text();
        let words = text.split_whitespace();
        let token = words
            .into_iter()
            .find_map(|w| w.strip_prefix("bridgehead.token="));
        token
            .unwrap_or_else(|| panic!("no token in:\n{text}"))
            .to_owned()
    }

    /// Fetches the configuration; a value of it by its key.
    pub(crate) fn config(&self, boot_token: &str) -> impl Fn(&str) -> String + use<> {
        let path = format!("/v1/boot/{}/config", self.name);
        assert_eq!(self.get(&path, boot_token, &[]), "200", "{}", self.text());
        let text = self.text();
        move |key| {
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {key} in:\n{text}"))
                .to_owned()
        }
    }

    pub(crate) fn files(&self, of: &str, token: &str, more: &[&str]) -> String {
        self.get(&format!("/v1/boot/{of}/files"), token, more)
    }
}

fn log_of(site: &Site, host: &str) -> String {
    let done = ok(site.daemon.verb("log", &[host]));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Waits until the story of `host` has the word: the end of a transfer is told when its socket is.
fn told(site: &Site, host: &str, word: &str) {
    let found = || Ok(log_of(site, host).contains(word).then_some(()));
    let what = format!("`{word}` in the log of {host}");
    let patience = Duration::from_secs(10);
    ok(lab::until(&what, patience, found, || log_of(site, host)));
}

#[test]
fn files_go_to_their_host_once_and_a_cut_transfer_is_repeated() {
    let Some(site) = site("hostfiles") else {
        return;
    };
    let kvm01 = Booting::new(&site, "kvm01", KVM01, "10.77.0.11");
    let boot = kvm01.boot_token();
    let config = kvm01.config(&boot);
    let report = config("report_token");

    assert_eq!(kvm01.files("kvm01", &boot, &[]), "403", "the boot token");
    told(&site, "kvm01", "it takes the report token");
    assert_eq!(kvm01.files("kvm01", "", &[]), "403", "no token");
    let kvm02 = Booting::new(&site, "kvm02", KVM02, "10.77.0.12");
    assert_eq!(
        kvm02.files("kvm01", &report, &[]),
        "403",
        "another host's address"
    );
    told(&site, "kvm02", "its address is 10.77.0.11, not 10.77.0.12");
    assert_eq!(kvm02.files("kvm02", &report, &[]), "403", "a foreign token");

    // The host's kernel must not take the whole transfer in its stead.
    let small = "echo 4096 16384 65536 > /proc/sys/net/ipv4/tcp_rmem";
    ok(kvm01.namespace.run(&["sh", "-c", small]));
    kvm01.files("kvm01", &report, &["--limit-rate", "200k", "-m", "2"]);
    assert!(kvm01.body().len() < LARGE, "the cut came too late");
    told(&site, "kvm01", "files were cut off after");

    // What was announced is delivered, though a reload comes between.
    let motd = site.lab.dir().join("templates/files/own/etc/motd");
    put(&motd, b"changed\n");
    ok(site.daemon.signal(nix::sys::signal::Signal::SIGHUP));
    ok(site
        .daemon
        .log()
        .wait_for("reloaded:", Duration::from_secs(30)));
    assert_eq!(kvm01.files("kvm01", &report, &[]), "200");
    let archive = kvm01.body();
    assert_eq!(archive.len().to_string(), config("files_bytes"));
    use sha2::{Digest, Sha256};
    assert_eq!(fake::hex(&Sha256::digest(&archive)), config("files_sha256"));
    check_archive(&site, &kvm01.out);

    // What was sent may not have arrived: the host says when it has them.
    told(&site, "kvm01", "this host's files sent to 10.77.0.11");
    assert_eq!(kvm01.files("kvm01", &report, &[]), "200", "it was lost");
    assert_eq!(kvm01.body(), archive);
    let overlay = ["--data-binary", "stage=overlay\nstate=ok\nuptime_ms=9\n"];
    assert_eq!(kvm01.get("/v1/boot/kvm01/events", &report, &overlay), "200");
    assert_eq!(kvm01.files("kvm01", &report, &[]), "403", "it has them");
    told(
        &site,
        "kvm01",
        "asked for the files of kvm01 and got nothing: the host has said that it has the files of this boot attempt",
    );
    let log = site.daemon.log().text() + &log_of(&site, "kvm01");
    assert!(!log.contains(SECRET), "the secret is in a log");

    next_attempt(&site, &kvm01, &report);
}

/// Switched on again: the new attempt gets its files, the old token nothing.
fn next_attempt(site: &Site, host: &Booting, old: &str) {
    let firmware = "udhcpc -i eth0 -f -q -n -t 3 -T 1 -s /bin/true -V PXEClient:Arch:00000:UNDI:002001 -x 0x5d:0000";
    let argv: Vec<_> = firmware.split(' ').collect();
    ok(host.namespace.output(&argv));
    let boot = host.boot_token();
    let config = host.config(&boot);
    let report = config("report_token");
    assert_ne!(report, old, "{}", log_of(site, host.name));
    assert_eq!(host.files(host.name, old, &[]), "403", "an old token");
    assert_eq!(host.files(host.name, &report, &[]), "200");
    assert!(host.text().contains("changed\n"));
}

fn check_archive(site: &Site, archive: &Path) {
    let archive = archive.display().to_string();
    let listed = ok(output(&["tar", "--numeric-owner", "-tvf", &archive]));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for (start, end) in [
        ("-rw------- 0/0", "etc/key"),
        ("-rw-r----- 0/4", "etc/motd"),
        ("-rw-r--r-- 0/0", "var/large"),
    ] {
        let found = listed
            .lines()
            .any(|line| line.starts_with(start) && line.ends_with(end));
        assert!(found, "no {start} {end} in:\n{listed}");
    }
    let dir = site.lab.dir().join("unpacked");
    ok(fs::create_dir_all(&dir).map_err(io_error("create", &dir)));
    ok(output(&[
        "busybox",
        "tar",
        "-x",
        "-f",
        &archive,
        "-C",
        &dir.display().to_string(),
    ]));
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    assert_eq!(read("etc/key"), format!("{SECRET}\n"));
    assert_eq!(read("etc/motd"), "kvm01 10.77.0.11 br0\n");
}

#[test]
fn check_rehearses_files_and_refuses_secrets_that_others_can_read() {
    let Some(lab) = Lab::for_test("hostfaults") else {
        return;
    };
    let data = ok(fake::data_dir(lab.dir()));
    write_files(lab.dir());
    let file = lab.dir().join("hosts.yaml");
    put(&file, inventory().as_bytes());
    let (file, data) = (file.display().to_string(), data.display().to_string());
    let check = || {
        let argv = [bridgehead(), "check", "--inventory", &file, "--data", &data];
        let done = ok(output(&argv));
        let words = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        (done.status.code(), words.into_owned())
    };
    let (code, said) = check();
    assert_eq!(code, Some(0), "{said}");
    let secrets = lab.dir().join("secrets.yaml");
    chmod(&secrets, 0o644);
    let (code, said) = check();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("mode 0644") && said.contains("chmod 0600"),
        "{said}"
    );
    chmod(&secrets, 0o600);
    let tree = lab.dir().join("templates/files/own");
    put(&tree.join("etc/bad"), b"{{ secrets.nothing }}\n");
    put(&tree.join("_files.yaml"), b"etc/key: {mode: \"0644\"}\n");
    let (code, said) = check();
    assert_eq!(code, Some(3), "{said}");
    for word in [
        "files/own/etc/bad",
        "for kvm01",
        "for kvm03",
        "lets every user of the host at it",
    ] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    assert!(!said.contains(SECRET), "{said}");
}

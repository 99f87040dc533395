//! `bridgehead-ear` in a network namespace, and at the other end of its cables a switch that says what it likes.
#![allow(clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Namespace, lldpdu, run, say_lldp, until};

const PATIENCE: Duration = Duration::from_secs(20);

/// A program that ends with its test.
struct Ear {
    child: Child,
    file: PathBuf,
}

impl Ear {
    fn start(host: &Namespace, file: PathBuf, nics: &[&str]) -> Self {
        let child = Command::new("ip")
            // Its /sys is the namespace's.
            .args(["netns", "exec", host.name()])
            .arg(env!("CARGO_BIN_EXE_bridgehead-ear"))
            .arg(&file)
            .args(nics)
            .spawn()
            .expect("start the ear");
        Self { child, file }
    }

    fn lines(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Waits until it says of the NIC what `right` holds for; gives the line without the name.
    fn until(&self, nic: &str, what: &str, right: impl Fn(&str) -> bool) -> String {
        let said = || {
            let lines = self.lines();
            let mut lines = lines.lines();
            let line = lines.find_map(|line| line.strip_prefix(nic)?.strip_prefix(' '));
            let line = line.unwrap_or_default();
            Ok(right(line).then(|| line.to_owned()))
        };
        until(&format!("{nic}: {what}"), PATIENCE, said, || self.lines()).expect("the ear says it")
    }

    /// Waits until it says that this stands at the other end; gives the number of the carrier's changes.
    fn hears(&self, nic: &str, frame: &[u8]) -> u32 {
        self.hears_if(nic, frame, || {})
    }

    /// As `hears`, where `say` says it again and again.
    fn hears_if(&self, nic: &str, frame: &[u8], say: impl Fn()) -> u32 {
        let hex: String = frame.iter().map(|octet| format!("{octet:02x}")).collect();
        let line = self.until(nic, "the frame", |line| {
            say();
            line.ends_with(&format!(" {hex}"))
        });
        let (changes, _) = line.split_once(' ').expect("two words");
        changes.parse().expect("a number")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a PID");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn frame(name: &str) -> Vec<u8> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/lldp");
    fs::read(corpus.join(name)).expect("the corpus")
}

fn pdu(port: &str, ttl_s: u16) -> Vec<u8> {
    lldpdu("sw1", port, ttl_s)
}

fn cable(host: &Namespace, nic: &str, switch: &Namespace, port: &str) {
    let cable = format!(
        "ip link add {nic} netns {} type veth peer name {port} netns {}",
        host.name(),
        switch.name()
    );
    run(&cable.split(' ').collect::<Vec<_>>()).expect("veth");
    for (namespace, device) in [(host, nic), (switch, port)] {
        // Nothing else is said on it.
        let quiet = format!("net.ipv6.conf.{device}.disable_ipv6=1");
        namespace.run(&["sysctl", "-qw", &quiet]).expect("sysctl");
        let up = ["link", "set", device, "up"];
        namespace.ip(&up).expect("it goes up");
    }
}

#[test]
fn the_ear_knows_who_is_at_the_other_end_for_as_long_as_that_holds() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: network namespaces need root; run it with sudo");
        return;
    }
    let namespace = |role| Namespace::new("ear", role).expect("a namespace");
    let (host, switch) = (namespace("host"), namespace("switch"));
    cable(&host, "eth0", &switch, "p0");
    cable(&host, "eth1", &switch, "p1");
    // It has no addresses, and takes no membership.
    let tun = ["tuntap", "add", "dev", "tun0", "mode", "tun"];
    host.ip(&tun).expect("a tun device");
    host.ip(&["link", "set", "tun0", "up"]).expect("it goes up");
    let folder = tempfile::tempdir().expect("a directory");
    let nics = ["gone", "tun0", "eth0", "eth1"];
    let mut ear = Ear::start(&host, folder.path().join("lldp"), &nics);
    let says = |port: &str, frame: &[u8]| say_lldp(&switch, port, frame).expect("it is sent");

    ear.until("gone", "no such NIC", |line| line.starts_with("! ENODEV"));
    ear.until("tun0", "no membership", |line| line.starts_with("! EINVAL"));
    let ios = frame("ios.bin");
    for bad in [&b""[..], b"\0\0", &[0xff; 1400], &ios[..20]] {
        says("p0", bad);
    }
    says("p0", &ios);
    let changes = ear.hears("eth0", &ios);
    // A switch on the way that passes LLDP on; nobody takes the port over, or leaves, for another.
    says("p0", &pdu("8", 120));
    says("p0", &pdu("8", 0));
    // What interrupts its calls does not end it.
    ear.signal(Signal::SIGSTOP);
    ear.signal(Signal::SIGCONT);
    let brief = pdu("9", 2);
    ear.hears_if("eth1", &brief, || says("p1", &brief));
    ear.until("eth1", "nothing, as the time is over", str::is_empty);
    assert_eq!(ear.hears("eth0", &ios), changes);

    // The cable is moved.
    let set = |state| switch.ip(&["link", "set", "p0", state]).expect("a link");
    set("down");
    ear.until("eth0", "nothing, as the cable is out", str::is_empty);
    set("up");
    // The first might come before the ear has seen the new cable.
    let moved = pdu("4", 120);
    assert!(ear.hears_if("eth0", &moved, || says("p0", &moved)) > changes);
    says("p0", &pdu("4", 0));
    ear.until("eth0", "nothing, as it left", str::is_empty);

    // A NIC goes, and comes again as another of its name.
    host.ip(&["link", "del", "eth1"]).expect("it goes");
    ear.until("eth1", "no such NIC", |line| line.starts_with("! ENODEV"));
    says("p0", &ios);
    ear.hears("eth0", &ios);
    cable(&host, "eth1", &switch, "p1");
    let again = pdu("9", 120);
    ear.hears_if("eth1", &again, || says("p1", &again));

    // Nothing of it is left on the NICs.
    let groups = || host.run(&["cat", "/proc/net/dev_mcast"]).expect("proc");
    assert!(groups().contains("0180c200000e"), "{}", groups());
    ear.child.kill().expect("it runs");
    ear.child.wait().expect("it ends");
    assert!(!groups().contains("0180c2"), "{}", groups());
}

#[test]
fn a_nic_that_is_down_is_said_to_be_and_heard_as_soon_as_it_is_up() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: network namespaces need root; run it with sudo");
        return;
    }
    let namespace = |role| Namespace::new("down", role).expect("a namespace");
    let (host, switch) = (namespace("host"), namespace("switch"));
    cable(&host, "eth0", &switch, "p0");
    let set = |state| host.ip(&["link", "set", "eth0", state]).expect("a link");
    set("down");
    let folder = tempfile::tempdir().expect("a directory");
    let ear = Ear::start(&host, folder.path().join("lldp"), &["eth0"]);
    let frame = pdu("4", 120);
    for _ in 0..2 {
        ear.until("eth0", "down", |line| line.starts_with("! ENETDOWN"));
        set("up");
        ear.hears_if("eth0", &frame, || {
            say_lldp(&switch, "p0", &frame).expect("it is sent");
        });
        set("down");
    }
    ear.until("eth0", "down", |line| line.starts_with("! ENETDOWN"));
}

//! A soak: good and bad traffic together, over every protocol; afterwards the daemon's memory and descriptors are
//! where they were, its state directory is small, and it serves.
//!
//! Half a minute in `make test`; `make soak` is ten minutes (`SOAK_SECONDS`). Needs root, for a network of its own.
#![allow(missing_docs, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[path = "../daemon/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "../lab/mod.rs"]
mod lab;
mod traffic;

use lab::{Lab, Namespace, Site, until};
use nix::unistd::Pid;
use traffic::Counts;

/// Of the resident memory after the first part, MiB: what allocators keep between two peaks.
const SLACK: u64 = 24;

/// The state directory: two files of events, a journal before it is rewritten, and room.
const STATE: u64 = 48 << 20;

/// Silent clients are let go within this: TFTP after 30 s, HTTP after 30 s, NFS records after 30 s.
const SETTLED: Duration = Duration::from_secs(90);

/// Addresses that the bad ones send from.
const BAD: std::ops::Range<u8> = 200..216;

#[test]
fn memory_and_descriptors_come_back() {
    let Some(lab) = Lab::for_test("soak") else {
        return;
    };
    let seconds = std::env::var("SOAK_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(30));
    let mut site = start(lab);
    let (good, bad) = (good(&site), bad(&site));
    let idle = Usage::of(&site);
    // The first part fills what is bounded by number: machines that are not listed, buffers, the allocator.
    run(&good, &bad, seconds / 3);
    let first = Usage::of(&site);
    let counts = run(&good, &bad, seconds * 2 / 3);
    let peak = Usage::of(&site);
    let last = settled(&site, idle.descriptors);
    eprintln!(
        "{counts:?}\nidle {idle:?}\nafter a third {first:?}\nat the end {peak:?}\nsettled {last:?}"
    );
    let log = site.daemon.log().clone();
    ok(site.daemon.check_alive());
    assert!(!log.text().contains("panicked"), "{}", log.tail(40));
    assert!(counts.served_all(), "{counts:?}\n{}", log.tail(20));
    assert!(
        last.resident <= first.resident + SLACK,
        "memory grows: {first:?}, then {last:?}"
    );
    assert!(last.state < STATE, "{last:?}");
}

/// What the daemon has.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "printed")]
struct Usage {
    descriptors: usize,
    threads: usize,
    /// MiB.
    resident: u64,
    /// Bytes of the state directory.
    state: u64,
}

impl Usage {
    fn of(site: &Site) -> Self {
        let pid = site.daemon.pid();
        let count = |what: &str| fs::read_dir(proc(pid, what)).map_or(0, Iterator::count);
        let status = fs::read_to_string(proc(pid, "status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = resident
            .and_then(|rest| rest.trim().split(' ').next()?.parse().ok())
            .unwrap_or(0);
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            resident: kib >> 10,
            state: size(&site.lab.dir().join("state")),
        }
    }
}

fn proc(pid: Pid, what: &str) -> std::path::PathBuf {
    Path::new("/proc").join(pid.to_string()).join(what)
}

fn size(directory: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(directory).into_iter().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|found| found.len())
        .sum()
}

/// Waits until as many descriptors are open as at the start.
fn settled(site: &Site, descriptors: usize) -> Usage {
    let probe = || {
        let usage = Usage::of(site);
        Ok((usage.descriptors <= descriptors).then_some(usage))
    };
    let context = || {
        format!(
            "{:?}, and {descriptors} descriptors at the start",
            Usage::of(site)
        )
    };
    ok(until(
        "the descriptors to come back",
        SETTLED,
        probe,
        context,
    ))
}

fn start(lab: Lab) -> Site {
    let data = ok(fake::data_dir(lab.dir()));
    // The NFS part of the corpus was captured from a root of this name.
    let root = data.join("roots/demo");
    fs::rename(data.join("roots/kvm-host"), &root).expect("a root");
    fs::create_dir_all(root.join("usr/bin")).expect("a directory");
    fs::write(root.join("usr/bin/tool"), vec![7; 3_000_000]).expect("a file");
    let inventory = fake::INVENTORY.replace("/roots/kvm-host", "/roots/demo");
    let logs = lab.dir().join("logs");
    ok(Site::start(lab, &inventory, &data, &logs))
}

fn good(site: &Site) -> Namespace {
    let client = ok(site.lab.client("good", "52:54:00:00:00:01"));
    ok(client.ip(&["addr", "add", "10.77.0.11/24", "dev", "eth0"]));
    client
}

fn bad(site: &Site) -> Namespace {
    let client = ok(site.lab.client("bad", "52:54:00:00:00:66"));
    for last in BAD {
        let address = format!("10.77.0.{last}/24");
        ok(client.ip(&["addr", "add", &address, "dev", "eth0"]));
    }
    client
}

/// All kinds of traffic at once, for so long.
fn run(good: &Namespace, bad: &Namespace, seconds: Duration) -> Counts {
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let counts = Counts::default();
    let done = || stop.load(Ordering::Relaxed);
    let (told, done) = (&counts, &done);
    thread::scope(|scope| {
        for work in traffic::WELL {
            scope.spawn(move || ok(good.enter(|| work(told, done))));
        }
        for work in traffic::ILL {
            scope.spawn(move || ok(bad.enter(|| work(told, done))));
        }
        while began.elapsed() < seconds {
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
    });
    counts
}

fn ok<T>(result: lab::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

//! `make bench BENCH=storm`: hosts that power on together, from the firmware's DISCOVER to the last byte of the initrd,
//! beside dnsmasq (DHCP, TFTP) with nginx (HTTP); and ours up to *joined*.
//!
//! `BENCH_HOSTS` (1000), `BENCH_RUNS` (5), `BENCH_CONTENDERS` and `BENCH_CASES`; a table and all samples stay in
//! `build/bench/storm.md` and `.json`.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[path = "../../tests/daemon/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "../../tests/lab/mod.rs"]
mod lab;
#[path = "../../tests/openmetrics/mod.rs"]
mod openmetrics;
mod peers;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../../tests/storm/sim/mod.rs"]
mod sim;

use lab::{LabError, Result, io_error};
use peers::Peers;
use rig::{Aim, Measure, Report, Usage, Wire, drops};
use sim::{Site, Stage, Storm, Tally};

/// Hosts that power on in the same moment, without `BENCH_HOSTS`.
const HOSTS: u16 = 1000;
const RUNS: usize = 5;
const OURS: &str = "bridgehead";
const THEIRS: &str = "dnsmasq+nginx";

const MEASURES: [Measure; 14] = [
    Measure::new("failed", "failed", 0),
    Measure::new("last host, s", "last_s", 2),
    Measure::new("all p50, s", "all_p50_s", 2),
    Measure::new("all p99, s", "all_p99_s", 2),
    Measure::new("dhcp p99, s", "dhcp_p99_s", 3),
    Measure::new("loader p99, s", "loader_p99_s", 3),
    Measure::new("ipxe-dhcp p99, s", "ipxe_dhcp_p99_s", 3),
    Measure::new("script p99, s", "script_p99_s", 3),
    Measure::new("kernel p99, s", "kernel_p99_s", 2),
    Measure::new("initrd p99, s", "initrd_p99_s", 2),
    Measure::new("sent again", "retries", 0),
    Measure::new("drops", "drops", 0),
    Measure::new("CPU s", "cpu_s", 2),
    Measure::new("peak MiB", "peak_mib", 0),
];

/// A case: its name, the loss, whether hosts report, and whether nobody has listed them.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    loss_percent: f64,
    report: bool,
    unlisted: bool,
}

impl Case {
    /// The peers have nothing to report to, and name nobody.
    fn is_for(&self, contender: &str) -> bool {
        !(self.report || self.unlisted) || contender == OURS
    }
}

const CALM: &str = "all at once, up to the initrd";
const LOSSY: &str = "1 % of datagrams lost, up to the initrd";

const CASES: [Case; 4] = [
    Case {
        name: CALM,
        loss_percent: 0.0,
        report: false,
        unlisted: false,
    },
    Case {
        name: LOSSY,
        loss_percent: 1.0,
        report: false,
        unlisted: false,
    },
    Case {
        name: "all at once, up to joined",
        loss_percent: 0.0,
        report: true,
        unlisted: false,
    },
    Case {
        name: "nobody listed them, up to a name for each",
        loss_percent: 0.0,
        report: false,
        unlisted: true,
    },
];

const AIMS: [Aim; 2] = [
    Aim {
        case: CALM,
        key: "last_s",
        beside: &[THEIRS],
        ratio: 1.0,
        more: false,
    },
    Aim {
        case: LOSSY,
        key: "last_s",
        beside: &[THEIRS],
        ratio: 1.0,
        more: false,
    },
];

fn main() -> ExitCode {
    rig::run_bench("storm", bench)
}

fn bench(out: &Path) -> Result<()> {
    let hosts = env::var("BENCH_HOSTS").ok().and_then(|n| n.parse().ok());
    let hosts = hosts.unwrap_or(HOSTS).clamp(1, 4096);
    let runs = rig::runs(RUNS, 20);
    let contenders = rig::chosen("BENCH_CONTENDERS", &[OURS, THEIRS], |name| name)?;
    let cases = rig::chosen("BENCH_CASES", &[0_usize, 1, 2, 3], |case| {
        ["calm", "lossy", "joined", "named"][case]
    })?;
    let dir = tempfile::tempdir().map_err(io_error("make a directory in", &env::temp_dir()))?;
    let listed = Site::make(dir.path(), hosts)?;
    let unlisted =
        tempfile::tempdir().map_err(io_error("make a directory in", &env::temp_dir()))?;
    let logs = out.join("storm");
    std::fs::create_dir_all(&logs).map_err(io_error("create", &logs))?;
    let mut report = Report::new("storm", OURS, &MEASURES);
    for case in cases.into_iter().map(|case| CASES[case]) {
        let able = contenders.iter().copied().filter(|one| case.is_for(one));
        let contenders: Vec<_> = able.collect();
        let name = |name| name;
        report.case(case.name, runs, &contenders, name, |round, contender| {
            // Each run begins without names.
            let free = case
                .unlisted
                .then(|| Site::of(unlisted.path(), &sim::free(hosts)));
            let free = free.transpose()?;
            let site = free.as_ref().unwrap_or(&listed);
            let storm = Storm {
                unlisted: case.unlisted,
                hosts,
                loss_percent: case.loss_percent,
                delay: Duration::ZERO,
                seed: round as u64,
                report: case.report,
                files: site.files.clone(),
            };
            one(&storm, contender, site, dir.path(), &logs)
        })?;
    }
    report.aims = AIMS.to_vec();
    report.notes = NOTES.to_owned();
    report.conditions = conditions(hosts);
    report.write(out)
}

const NOTES: &str = "\
Every second host is UEFI (EDK2: size probe, 1468 bytes x window 4, a loader of 174 kB), every other BIOS (lock-step, 1432
bytes, 74 kB); then iPXE's DHCP, its script, a kernel of 8.2 MB and an initrd of 7.6 MB by HTTP. All power on in one moment
and take no time of their own, so that more comes at once than real hosts can send; the simulator runs on the same
cores. Reservations in all; the leases of ours are on disk before their ACK, dnsmasq writes its file anew. up to joined:
with configuration, files and eleven reports of initrd and root, which the peers have nothing like. up to a name: each
waits in its inventory boot and asks every 2 s who it is, on an inventory of as many free hosts. drops: what the
kernel threw away for want of room in a server's receive buffer.";

/// One storm against one contender, fresh.
fn one(storm: &Storm, contender: &str, site: &Site, dir: &Path, logs: &Path) -> Result<Vec<f64>> {
    let wire = Wire::new("storm")?;
    if contender == OURS {
        let ours = site.serve(&wire, &logs.join("bridgehead.log"))?;
        let watch = ours.server.watch();
        let tally = storm.blow(&wire)?;
        return values(&tally, &[watch.stop()], &wire);
    }
    let peers = Peers::start(&wire, site, storm.hosts, &dir.join("peers"))?;
    let watches = [peers.dnsmasq.watch(), peers.nginx.watch()];
    let tally = storm.blow(&wire)?;
    values(&tally, &watches.map(|watch| watch.stop()), &wire)
}

fn values(tally: &Tally, usage: &[Usage], wire: &Wire) -> Result<Vec<f64>> {
    eprint!("{tally}");
    let lost_here = drops(wire.client())?;
    if lost_here > 0 {
        return Err(LabError::Answer {
            peer: "the simulator".to_owned(),
            answer: format!(
                "it lost {lost_here} datagrams itself: these figures are not the servers'"
            ),
        });
    }
    let retries = tally.dhcp_retries + tally.tftp_retries + tally.http_retries;
    let p99 = |stage| tally.stage(stage, 0.99);
    Ok(vec![
        tally.failures.len() as f64,
        tally.wall.as_secs_f64(),
        tally.total(0.5),
        tally.total(0.99),
        p99(Stage::Dhcp),
        p99(Stage::Loader),
        p99(Stage::IpxeDhcp),
        p99(Stage::Script),
        p99(Stage::Kernel),
        p99(Stage::Initrd),
        retries as f64,
        drops(wire.server())? as f64,
        usage.iter().map(|usage| usage.cpu).sum(),
        usage.iter().map(|usage| usage.peak).sum(),
    ])
}

/// How many there were, and versions of the peers.
fn conditions(hosts: u16) -> Vec<(String, String)> {
    let version = |argv: &[&str]| {
        let done = lab::output(argv).map(|done| [done.stdout, done.stderr].concat());
        let text = String::from_utf8_lossy(&done.unwrap_or_default()).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    };
    vec![
        ("hosts".to_owned(), hosts.to_string()),
        ("dnsmasq".to_owned(), version(&["dnsmasq", "--version"])),
        ("nginx".to_owned(), version(&["nginx", "-v"])),
    ]
}

//! `make bench BENCH=tftp`: Bridgehead's TFTP beside dnsmasq, tftpd-hpa, atftpd and async-tftp.
//!
//! Every server has the same files and the same clients (`client`): one and 32 in lock-step as iPXE asks (1432 bytes)
//! and in windows as EDK2 asks (1468 bytes, four blocks), and a hall of 500 that powers on: each asks for the size,
//! aborts, and fetches the loader. `BENCH_CONTENDERS="bridgehead dnsmasq"` and `BENCH_CASES="32x1432w1"` measure
//! only those.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod contenders;
mod fetch;

#[path = "../../tests/lab/mod.rs"]
mod lab;
#[path = "../rig/mod.rs"]
mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use client::{Load, Result as Measured};
use contenders::{ASYNC_TFTP, Contender};
use fetch::Ask;
use lab::{LabError, Result, io_error};
use rig::{Aim, Measure, Report, Wire, drops};

const RUNS: usize = 5;

/// How long the cases without end are run.
const LASTS: Duration = Duration::from_secs(3);

const MEASURES: &[Measure] = &[
    Measure::new("MB/s", "mb_per_s", 0),
    Measure::new("server CPU s/GB", "cpu_s_per_gb", 2),
    Measure::new("p50 of a file, s", "p50_s", 3),
    Measure::new("p99 of a file, s", "p99_s", 3),
    Measure::new("memory, MiB", "peak_mib", 0),
    Measure::new("time-outs", "timeouts", 0),
    Measure::new("drops", "drops", 0),
];

/// What is asked of a server.
#[derive(Debug, Clone, Copy)]
struct Case {
    key: &'static str,
    title: &'static str,
    file: &'static str,
    block_size: u16,
    window: u16,
    clients: usize,
    /// One file for each client, after a probe; without it files one after another for [`LASTS`].
    storm: bool,
}

const CASES: &[Case] = &[
    Case {
        key: "1x1432w1",
        title: "1 client, blocks of 1432, lock-step",
        file: "large",
        block_size: 1432,
        window: 1,
        clients: 1,
        storm: false,
    },
    Case {
        key: "1x1468w4",
        title: "1 client, blocks of 1468, window 4",
        file: "large",
        block_size: 1468,
        window: 4,
        clients: 1,
        storm: false,
    },
    Case {
        key: "32x1432w1",
        title: "32 clients, blocks of 1432, lock-step",
        file: "small",
        block_size: 1432,
        window: 1,
        clients: 32,
        storm: false,
    },
    Case {
        key: "32x1468w4",
        title: "32 clients, blocks of 1468, window 4",
        file: "small",
        block_size: 1468,
        window: 4,
        clients: 32,
        storm: false,
    },
    Case {
        key: "500-loader",
        title: "500 clients: size probe, abort, loader of 1 MiB by 1468, window 4",
        file: "loader",
        block_size: 1468,
        window: 4,
        clients: 500,
        storm: true,
    },
];

/// Names and sizes of what is served, bytes.
const FILES: [(&str, usize); 3] = [("large", 32 << 20), ("small", 4 << 20), ("loader", 1 << 20)];

/// Where everything is.
struct Bench {
    wire: Wire,
    /// The data directory of ours; `loaders/` in it is the root of the others.
    data: PathBuf,
    logs: PathBuf,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(ASYNC_TFTP) {
        return contenders::serve_async_tftp(arguments.next().unwrap_or_default().as_ref());
    }
    rig::run_bench("tftp", bench)
}

fn bench(out: &Path) -> Result<()> {
    let contenders = rig::chosen("BENCH_CONTENDERS", &Contender::ALL, Contender::name)?;
    let cases = rig::chosen("BENCH_CASES", CASES, |case| case.key)?;
    let bench = Bench {
        wire: Wire::new("tftp")?,
        data: out.join("tftp/data"),
        logs: out.join("tftp"),
    };
    let files = bench.write_files()?;
    let mut report = Report::new("tftp", Contender::Bridgehead.name(), MEASURES);
    report.conditions = contenders::conditions(&contenders);
    report.aims = aims();
    report.notes = NOTES.to_owned();
    let (runs, name) = (rig::runs(RUNS, 99), Contender::name);
    for case in cases {
        let (_, content) = &files[FILES.iter().position(|f| f.0 == case.file).unwrap_or(0)];
        report.case(case.title, runs, &contenders, name, |_, contender| {
            bench.measure(contender, &case, content)
        })?;
    }
    report.write(out)
}

impl Bench {
    /// Bytes that don't repeat at any block size, so that a block in the wrong place is seen.
    fn write_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let root = self.data.join("loaders");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        FILES
            .into_iter()
            .map(|(name, size)| {
                let content: Vec<u8> = (0_u32..)
                    .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes())
                    .take(size)
                    .collect();
                let file = root.join(name);
                fs::write(&file, &content).map_err(io_error("write", &file))?;
                Ok((name, content))
            })
            .collect()
    }

    /// One contender, started anew, in one case.
    fn measure(&self, contender: Contender, case: &Case, content: &[u8]) -> Result<Vec<f64>> {
        let server = contender.start(self)?;
        let dropped = drops(self.wire.server())?;
        let watch = server.watch();
        let load = Load {
            clients: case.clients,
            lasts: (!case.storm).then_some(LASTS),
            ask: Ask {
                name: case.file,
                block_size: case.block_size,
                window: case.window,
                probe: case.storm,
                content,
            },
        };
        let Measured {
            bytes,
            elapsed,
            times,
            timeouts,
        } = self
            .wire
            .client()
            .enter(|| client::run(&load))?
            .map_err(|error| LabError::Answer {
                peer: contender.name().to_owned(),
                answer: error.to_string(),
            })?;
        let usage = watch.stop();
        Ok(vec![
            bytes as f64 / 1e6 / elapsed.as_secs_f64(),
            usage.cpu / (bytes as f64 / 1e9),
            rig::percentile(&times, 0.5),
            rig::percentile(&times, 0.99),
            usage.peak,
            timeouts as f64,
            (drops(self.wire.server())? - dropped) as f64,
        ])
    }
}

/// Issue and README say these.
fn aims() -> Vec<Aim> {
    let of = |case: &Case| {
        let windows = case.window > 1;
        let aim = |key, ratio, more| Aim {
            case: case.title,
            key,
            beside: &["dnsmasq", "tftpd-hpa", "atftpd", "async-tftp"],
            ratio,
            more,
        };
        [
            aim("mb_per_s", if windows { 2.0 } else { 1.0 }, true),
            aim("cpu_s_per_gb", 1.0, false),
        ]
    };
    CASES.iter().flat_map(of).collect()
}

const NOTES: &str = "\
MB/s: bytes of whole files that arrived right. The server's CPU time has its children's and its threads' in it, and what \
the kernel does for it: on a veth pair a datagram is carried up to the client's socket by who sends it. Time-outs: a \
client heard nothing for a second and sent its last packet again. Drops: datagrams for which the server's side had no \
room. dnsmasq before 2.92 and tftpd-hpa have no windows: they answer those cases in lock-step.";

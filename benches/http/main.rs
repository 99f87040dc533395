//! `make bench BENCH=http`: boot files by HTTP beside nginx with sendfile, one worker per core, on the same network.
//!
//! A client's kernel throws away what it gets, so that the servers are measured and not the clients. `BENCH_CASES=64`
//! measures only that many clients, `BENCH_CONTENDERS=bridgehead` only ours.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod client;

#[path = "../../tests/daemon/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "../../tests/lab/mod.rs"]
mod lab;
#[path = "../rig/mod.rs"]
mod rig;

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use client::Target;
use lab::{LabError, Result, io_error, output};
use rig::{Aim, Measure, Report, Server, Wire};

/// A small initrd for any machine, or a large one for some.
const SIZE: usize = 60_000_000;
const FILE: &str = "loaders/sixty";
/// Fetches in a case: it lasts seconds.
const FETCHES: usize = 128;
const CASES: [usize; 2] = [1, 64];
const RUNS: usize = 5;
const NGINX_PORT: u16 = 8080;

const MEASURES: [Measure; 4] = [
    Measure::new("MB/s", "mb_per_s", 0),
    Measure::new("CPU s per GB", "cpu_s_per_gb", 3),
    Measure::new("p99 of a file, s", "p99_s", 3),
    Measure::new("memory at most, MiB", "peak_mib", 0),
];

const NOTES: &str = "Each fetch has a connection of its own, and each client an address of its own. The files lie in \
    memory: ours holds them as part of itself, nginx in the page cache, which is not counted as its memory.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Bridgehead,
    Nginx,
}

impl Contender {
    const ALL: [Self; 2] = [Self::Bridgehead, Self::Nginx];

    fn name(self) -> &'static str {
        match self {
            Self::Bridgehead => "bridgehead",
            Self::Nginx => "nginx",
        }
    }

    fn target(self) -> Target {
        let (port, prefix) = match self {
            Self::Bridgehead => (80, "/files"),
            Self::Nginx => (NGINX_PORT, ""),
        };
        Target {
            server: SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), port),
            path: format!("{prefix}/{FILE}"),
            size: SIZE,
        }
    }

    fn start(self, wire: &Wire, dir: &Path, out: &Path) -> Result<Server> {
        let log = out.join(format!("http-{}.log", self.name()));
        let target = self.target();
        let answers = move || client::fetch(&target, client_address(0)).is_ok();
        let data = dir.join("data");
        match self {
            Self::Bridgehead => {
                let inventory = dir.join("hosts.yaml");
                let text = fake::INVENTORY.replace("10.77.0.0/24", "10.77.0.0/16");
                fs::write(&inventory, text).map_err(io_error("write", &inventory))?;
                Server::bridgehead(wire, &inventory, &data, &dir.join("state"), &log, answers)
            }
            Self::Nginx => {
                let config = nginx_config(dir, &data)?;
                Server::start(wire, &["nginx", "-c", &config], &log, answers)
            }
        }
    }
}

/// The address of client `n`, as [`Wire::add_clients`] gives them.
fn client_address(n: usize) -> Ipv4Addr {
    let part = |n: usize| u8::try_from(1 + n).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, part(n / 250), part(n % 250))
}

fn nginx_config(dir: &Path, data: &Path) -> Result<String> {
    let (at, root) = (dir.display(), data.display());
    let scratch: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/{kind}; "))
        .collect();
    let config = format!(
        "daemon off; user root; worker_processes auto; worker_rlimit_nofile 65536; pid {at}/nginx.pid;\n\
         error_log stderr;\n\
         events {{ worker_connections 16384; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; {scratch}\n\
         server {{ listen {NGINX_PORT} backlog=4096; root {root}; }} }}\n"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config).map_err(io_error("write", &path))?;
    Ok(path.display().to_string())
}

fn main() -> ExitCode {
    rig::run_bench("http", bench)
}

fn bench(out: &Path) -> Result<()> {
    let contenders = rig::chosen("BENCH_CONTENDERS", &Contender::ALL, Contender::name)?;
    let cases = rig::chosen("BENCH_CASES", &CASES, |clients| clients)?;
    fs::create_dir_all(out).map_err(io_error("create", out))?;
    let mut report = Report::new("http", Contender::Bridgehead.name(), &MEASURES);
    report.notes = NOTES.to_owned();
    report.aims = vec![aim("1 client"), aim("64 clients")];
    report
        .conditions
        .push(("nginx".to_owned(), nginx_version()?));
    let dir = tempfile::tempdir().map_err(io_error("make a directory in", "/tmp".as_ref()))?;
    let data = fake::data_dir(dir.path())?;
    fs::write(data.join(FILE), file()).map_err(io_error("write", &data))?;
    let wire = Wire::new("http")?;
    wire.add_clients(64)?;
    let (runs, name) = (rig::runs(RUNS, 99), Contender::name);
    for clients in cases {
        let plural = if clients == 1 { "" } else { "s" };
        let case = format!("{clients} client{plural}");
        report.case(&case, runs, &contenders, name, |_, contender| {
            let server = contender.start(&wire, dir.path(), out)?;
            measure(&wire, &server, contender, clients)
        })?;
    }
    report.write(out)
}

fn aim(case: &'static str) -> Aim {
    Aim {
        case,
        key: "mb_per_s",
        beside: &["nginx"],
        ratio: 0.9,
        more: true,
    }
}

fn measure(wire: &Wire, server: &Server, contender: Contender, clients: usize) -> Result<Vec<f64>> {
    let target = contender.target();
    let addresses: Vec<Ipv4Addr> = (0..clients).map(client_address).collect();
    let (watch, began) = (server.watch(), Instant::now());
    let times = FETCHES / clients;
    let fetched = wire
        .client()
        .enter(|| client::fetch_all(&target, &addresses, times))?;
    let took = began.elapsed().as_secs_f64();
    let usage = watch.stop();
    let seconds = fetched.map_err(|source| LabError::Io {
        doing: format!("fetch {} from {}: {source}", target.path, contender.name()),
        source,
    })?;
    let bytes = (seconds.len() * SIZE) as f64;
    Ok(vec![
        bytes / took / 1e6,
        usage.cpu / (bytes / 1e9),
        rig::percentile(&seconds, 0.99),
        usage.peak,
    ])
}

/// Differs from page to page.
fn file() -> Vec<u8> {
    (0..SIZE)
        .map(|at| ((at >> 3) ^ (at >> 12)).to_le_bytes()[0])
        .collect()
}

fn nginx_version() -> Result<String> {
    let said = output(&["nginx", "-v"])?;
    let text = String::from_utf8_lossy(&said.stderr);
    Ok(text.trim().trim_start_matches("nginx version: ").to_owned())
}

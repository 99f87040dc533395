//! `make bench BENCH=initrd`: Bridgehead's initrd beside dracut's, on the same kernel, root and virtual machine.
//!
//! Each round builds every image anew and boots every contender once, the next round in the opposite order, so
//! that a machine that grows slower is as slow for both. Every mark is a line that the kernel of the virtual
//! machine stamped with its own clock. `BENCH_CONTENDERS="bridgehead-dhcp dracut-narrow"` measures only those.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod boot;
mod image;
mod report;

#[path = "../../tests/lab/mod.rs"]
mod lab;
#[path = "../rig/mod.rs"]
mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use boot::Marks;
use image::{Builder, Built};
use lab::{Lab, Result, Site, data_dir, io_error, kernel_dir, require, with_kernel};

const RUNS: usize = 5;
const HOSTS: usize = 99;

/// A host for every boot: without a firmware that asks for an address, the next boot of the same host would be taken
/// for the same attempt.
const INVENTORY: &str = r#"
site: bench
networks:
  boot: {subnet: 10.77.0.0/24, router: 10.77.0.1, dns: [10.77.0.1], dhcp: server, pool: 10.77.0.200-10.77.0.249}
profiles:
  kvm-host:
    kernel: debian
    initrd: default
    bridge: {name: br0, mtu: 1500}
    root: {nfs: "/roots/kvm-host", overlay: 512M}
    image_pool: none
hosts:
  kvm[01-99]: {mac: "52:54:00:00:00:01", ip: 10.77.0.11, profile: kvm-host}
unknown: {policy: hold}
"#;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    /// With the address that the daemon writes on the command line: as it is meant to be used.
    Bridgehead,
    /// With DHCP on the bridge: the same work as dracut's.
    BridgeheadDhcp,
    /// dracut with no more than a network boot needs, and with the NIC drivers that ours has.
    DracutNarrow,
    /// dracut as it comes, for any machine, with the network and NFS added.
    DracutGeneric,
}

impl Contender {
    const ALL: [Self; 4] = [
        Self::Bridgehead,
        Self::BridgeheadDhcp,
        Self::DracutNarrow,
        Self::DracutGeneric,
    ];

    /// In tables, and of files: short.
    fn name(self) -> &'static str {
        match self {
            Self::Bridgehead => "bridgehead",
            Self::BridgeheadDhcp => "bridgehead-dhcp",
            Self::DracutNarrow => "dracut-narrow",
            Self::DracutGeneric => "dracut-generic",
        }
    }

    fn builder(self) -> Builder {
        match self {
            Self::Bridgehead | Self::BridgeheadDhcp => Builder::Bridgehead,
            Self::DracutNarrow => Builder::DracutNarrow,
            Self::DracutGeneric => Builder::DracutGeneric,
        }
    }
}

/// One contender in one round.
#[derive(Debug, Clone)]
struct Run {
    contender: Contender,
    built: Built,
    marks: Marks,
    cmdline: String,
}

/// Where everything is.
#[derive(Debug)]
struct Bench {
    contenders: Vec<Contender>,
    kernel: PathBuf,
    data: PathBuf,
    out: PathBuf,
    site: Site,
}

fn main() -> ExitCode {
    rig::run_bench("initrd", bench)
}

fn bench(out: &Path) -> Result<()> {
    // dracut-generic is what takes longest.
    let contenders = rig::chosen("BENCH_CONTENDERS", &Contender::ALL, Contender::name)?;
    let data = data_dir();
    let kernel = kernel_dir(&data)?;
    let artefacts = [
        ("initrds/default.img", "initrd"),
        ("roots/kvm-host", "root"),
        ("roots/lab-dracut", "root ROOT=lab-dracut"),
    ];
    require(&data, &artefacts)?;
    let logs = out.join("initrd");
    fs::create_dir_all(&logs).map_err(io_error("create", &logs))?;
    let site = Site::start(Lab::new("bench")?, &with_kernel(INVENTORY), &data, &logs)?;
    let bench = Bench {
        contenders,
        kernel,
        data,
        out: logs,
        site,
    };
    let machine = report::Machine::look(&bench)?;
    let runs = rounds(&bench)?;
    report::write(&runs, &machine, out)
}

/// `BENCH_RUNS` rounds of every contender.
fn rounds(bench: &Bench) -> Result<Vec<Run>> {
    let most = HOSTS / bench.contenders.len();
    let mut runs: Vec<Run> = Vec::new();
    for round in 1..=rig::runs(RUNS, most) {
        let images = image::build_all(bench, round)?;
        for contender in rig::order(round, &bench.contenders) {
            let built = &images[&contender.builder()];
            let (marks, cmdline) = boot::measure(bench, contender, &built.file, runs.len() + 1)?;
            eprintln!("round {round}: {:<16} {marks}", contender.name());
            runs.push(Run {
                contender,
                built: built.clone(),
                marks,
                cmdline,
            });
        }
    }
    Ok(runs)
}

//! The table and the same as JSON: medians, ranges, and the ratio of ours to dracut's round by round.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::lab::{Result, io_error, run};
use super::rig::{self, IDLE, median, read, spread};
use super::{Bench, Contender, Run};

/// Half of dracut's size and time or better.
const AIM: f64 = 0.5;

/// Who is to reach the aim beside whom: they do the same work.
const JUDGED: (Contender, Contender) = (Contender::BridgeheadDhcp, Contender::DracutNarrow);

/// What was measured: its title, its unit's decimals, how to read it off a run.
type Measure = (&'static str, usize, fn(&Run) -> f64);

const MEASURES: [Measure; 5] = [
    ("size, bytes", 0, |run| run.built.bytes as f64),
    ("build, s", 1, |run| run.built.seconds),
    ("bridge up, s", 2, |run| run.marks.bridge),
    ("root mounted, s", 2, |run| run.marks.root),
    ("switch_root, s", 2, |run| run.marks.switch),
];

/// What the numbers were measured on.
#[derive(Debug)]
pub(super) struct Machine {
    host: rig::Machine,
    emulator: String,
    kernel: String,
    root: String,
    dracut: String,
}

impl Machine {
    /// Looks before the first round, so that the load is others'.
    pub(super) fn look(bench: &Bench) -> Result<Self> {
        let tree = bench.data.join("roots/lab-dracut").display().to_string();
        let format = "${Package} ${Version}, ";
        let packages = [
            "dracut-network",
            "isc-dhcp-client",
            "nfs-common",
            "systemd",
            "zstd",
        ];
        let query = ["chroot", &tree, "dpkg-query", "-W", "-f", format];
        let dracut = run(&[&query[..], &packages].concat())?;
        let qemu = run(&["qemu-system-x86_64", "--version"])?;
        Ok(Self {
            host: rig::Machine::look(),
            emulator: qemu.lines().next().unwrap_or_default().to_owned(),
            kernel: read(bench.kernel.join("release")),
            root: read(bench.data.join("roots/kvm-host/etc/bridgehead-image")),
            dracut: dracut.trim_end_matches([',', ' ']).to_owned(),
        })
    }

    fn lines(&self) -> [(&'static str, String); 5] {
        [
            ("machine", self.host.line()),
            (
                "virtual machine",
                format!(
                    "{}, TCG, 1 CPU, 1536 MiB, virtio-net, no firmware",
                    self.emulator
                ),
            ),
            ("kernel", self.kernel.clone()),
            (
                "root",
                format!(
                    "{} by NFS v3 from bridgehead serve, also for dracut",
                    self.root
                ),
            ),
            ("dracut", format!("Debian bookworm: {}", self.dracut)),
        ]
    }
}

/// Prints the table and keeps it beside the JSON in `out`.
pub(super) fn write(runs: &[Run], machine: &Machine, out: &Path) -> Result<()> {
    let text = table(runs, machine);
    print!("\n{text}");
    for (name, content) in [
        ("initrd.txt", text),
        ("initrd.json", format!("{:#}\n", as_json(runs, machine))),
    ] {
        let file = out.join(name);
        fs::write(&file, content).map_err(io_error("write", &file))?;
    }
    println!(
        "\nKept as {}/initrd.txt and .json; consoles in initrd/.",
        out.display()
    );
    Ok(())
}

fn table(runs: &[Run], machine: &Machine) -> String {
    let mut text = format!("{:<16}", "median (min-max)");
    for (title, _, _) in MEASURES {
        let _ = write!(text, " {title:>22}");
    }
    text.push('\n');
    for contender in measured(runs) {
        let _ = write!(text, "{:<16}", contender.name());
        for (_, decimals, of) in MEASURES {
            let _ = write!(
                text,
                " {:>22}",
                spread(&values(runs, contender, of), decimals)
            );
        }
        text.push('\n');
    }
    text.push_str("\nours / dracut's, round by round\n");
    for (ours, theirs) in pairs(runs) {
        let _ = writeln!(text, "{} / {}", ours.name(), theirs.name());
        let _ = write!(text, "{:<16}", "");
        for (_, _, of) in MEASURES {
            let _ = write!(text, " {:>22}", spread(&ratios(runs, ours, theirs, of), 2));
        }
        text.push('\n');
    }
    let _ = writeln!(text, "\naim: {}\n", verdict(runs));
    if machine.host.idle < IDLE {
        text.push_str("warning: others were at work on this machine: the times are theirs as much as ours\n\n");
    }
    text.push_str(NOTES);
    for (key, value) in machine.lines() {
        let _ = writeln!(text, "{key}: {value}");
    }
    for contender in measured(runs) {
        if let Some(run) = runs.iter().find(|run| run.contender == contender) {
            let (name, command) = (contender.name(), &run.built.command);
            let _ = writeln!(text, "{name}: {command}\n  boots with: {}", run.cmdline);
        }
    }
    text
}

const NOTES: &str = "\
Seconds are of the virtual machine's kernel clock. bridge up: the port forwards (the kernel's own line); root mounted:\n\
a hook's line in dracut, the stage's in bridgehead; switch_root: the first line of the root's systemd, the same program\n\
in all. Every image is made of zstd -19, from nothing, each round. bridgehead has its address from the command line, as\n\
the daemon writes it, bridgehead-dhcp and dracut by DHCP on the bridge. bridgehead also fetches its configuration, lays\n\
an overlay and verifies; dracut mounts the root read-only. dracut-narrow is limited to base, network-legacy and NFS and\n\
to the NIC drivers that ours has; dracut-generic is what dracut packs for any machine, with network-legacy and NFS.\n\n";

/// Who of all took part.
fn measured(runs: &[Run]) -> Vec<Contender> {
    let took_part = |one: &Contender| runs.iter().any(|run| run.contender == *one);
    Contender::ALL.into_iter().filter(took_part).collect()
}

/// Which ratios are shown, if both took part: the same work first, which the aim is about.
fn pairs(runs: &[Run]) -> Vec<(Contender, Contender)> {
    let measured = measured(runs);
    let mut pairs = vec![
        JUDGED,
        (Contender::Bridgehead, Contender::DracutNarrow),
        (Contender::BridgeheadDhcp, Contender::DracutGeneric),
    ];
    pairs.retain(|(ours, theirs)| measured.contains(ours) && measured.contains(theirs));
    pairs
}

fn verdict(runs: &[Run]) -> String {
    let (ours, theirs) = JUDGED;
    if !pairs(runs).contains(&JUDGED) {
        return format!("not judged without {} and {}", ours.name(), theirs.name());
    }
    let judge = |(title, _, of): Measure| {
        let ratio = median(&ratios(runs, ours, theirs, of));
        let word = if ratio <= AIM { "met" } else { "missed" };
        let name = title.split(',').next().unwrap_or(title);
        format!("{name} {ratio:.2} {word}")
    };
    let judged: Vec<String> = MEASURES.into_iter().map(judge).collect();
    format!(
        "at most {AIM} of dracut's, {} / {}: {}",
        ours.name(),
        theirs.name(),
        judged.join(", ")
    )
}

fn values(runs: &[Run], contender: Contender, of: fn(&Run) -> f64) -> Vec<f64> {
    runs.iter()
        .filter(|run| run.contender == contender)
        .map(of)
        .collect()
}

/// Both of a round ran on the machine in the same state, as near as can be.
fn ratios(runs: &[Run], ours: Contender, theirs: Contender, of: fn(&Run) -> f64) -> Vec<f64> {
    let (ours, theirs) = (values(runs, ours, of), values(runs, theirs, of));
    ours.iter().zip(&theirs).map(|(a, b)| a / b).collect()
}

fn as_json(runs: &[Run], machine: &Machine) -> Value {
    let conditions: serde_json::Map<_, _> = machine
        .lines()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect();
    let runs: Vec<Value> = runs
        .iter()
        .map(|run| {
            json!({
                "contender": run.contender.name(), "bytes": run.built.bytes, "build_s": run.built.seconds,
                "bridge_s": run.marks.bridge, "root_s": run.marks.root, "switch_root_s": run.marks.switch,
            })
        })
        .collect();
    json!({ "schema": 1, "bench": "initrd", "conditions": conditions, "runs": runs })
}

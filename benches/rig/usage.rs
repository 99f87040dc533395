//! What a server costs: CPU seconds and memory, of all its threads and of its children, from its control group or
//! else from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::unistd::{Pid, SysconfVar, sysconf};

use super::group;

/// Between two looks at the memory.
const STEP: Duration = Duration::from_millis(100);

/// What was used from [`Watch::start`] to [`Watch::stop`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system time of all threads and children, seconds. Without a control group only of children that are
    /// there or were waited for, and in hundredths: let a case last seconds.
    pub cpu: f64,
    /// Most resident memory at once, MiB: of children together, pages that they share counted for each.
    pub peak: f64,
}

/// Looks after one process and its children.
#[derive(Debug)]
pub struct Watch {
    pid: Pid,
    group: Option<PathBuf>,
    before: f64,
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to count. The process is one that a benchmark started for itself: its high-water mark is its own.
    pub(super) fn start(pid: Pid, group: Option<PathBuf>) -> Self {
        let (peak, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let watch = (peak.clone(), over.clone());
        let looking = thread::spawn(move || {
            let (peak, over) = watch;
            while !over.load(Ordering::Relaxed) {
                let family = Family::of(pid);
                peak.fetch_max(family.sum("VmRSS:"), Ordering::Relaxed);
                thread::sleep(STEP);
            }
        });
        Self {
            pid,
            before: cpu(pid, group.as_deref()),
            group,
            peak,
            over,
            looking: Some(looking),
        }
    }

    /// What was used, and ends the looking. Call it while the process lives.
    pub fn stop(self) -> Usage {
        self.so_far()
    }

    /// What was used so far.
    pub fn so_far(&self) -> Usage {
        let highest = status(self.pid.as_raw(), "VmHWM:");
        let peak = self.peak.load(Ordering::Relaxed).max(highest);
        Usage {
            cpu: cpu(self.pid, self.group.as_deref()) - self.before,
            peak: peak as f64 / 1024.0,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(looking) = self.looking.take() {
            let _ = looking.join();
        }
    }
}

fn cpu(pid: Pid, group: Option<&Path>) -> f64 {
    let counted = group.and_then(group::cpu);
    counted.unwrap_or_else(|| Family::of(pid).cpu())
}

/// A process and all its descendants that are there now.
pub(super) struct Family(Vec<i32>);

impl Family {
    pub(super) fn of(pid: Pid) -> Self {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            if let Some(parent) = stat(pid).get(PARENT) {
                children.entry(*parent as i32).or_default().push(pid);
            }
        }
        let mut family = vec![pid.as_raw()];
        let mut next = 0;
        while let Some(one) = family.get(next) {
            family.extend(children.remove(one).unwrap_or_default());
            next += 1;
        }
        Self(family)
    }

    /// Their process ids, the process's own first.
    pub(super) fn members(&self) -> &[i32] {
        &self.0
    }

    /// Each one's own time and that of its children that ended: those that are there stand for themselves.
    fn cpu(&self) -> f64 {
        let ticks: f64 = self
            .0
            .iter()
            .flat_map(|pid| stat(*pid).into_iter().skip(TIMES).take(4))
            .sum();
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        ticks / per_second.unwrap_or(100) as f64
    }

    /// KiB of all of them.
    fn sum(&self, key: &str) -> u64 {
        self.0.iter().map(|pid| status(*pid, key)).sum()
    }
}

/// Where the parent stands in what [`stat`] gives.
const PARENT: usize = 0;
/// Where utime, stime, cutime and cstime begin.
const TIMES: usize = 10;

/// The numbers of proc_pid_stat(5) from field 4 on; the name before them may hold anything.
fn stat(pid: i32) -> Vec<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let words = rest.split_whitespace().skip(1);
    words.map(|word| word.parse().unwrap_or(0.0)).collect()
}

/// A value of proc_pid_status(5), KiB.
fn status(pid: i32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

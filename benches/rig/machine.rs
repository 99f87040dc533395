//! The machine that is measured on.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Below it, times are others' as much as ours.
pub const IDLE: f64 = 0.9;

/// What the numbers were measured on.
#[derive(Debug, Clone)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    /// How much of the cores nobody used before the first round, 0 to 1.
    pub idle: f64,
}

impl Machine {
    /// Looks before the first round, so that the load is others'.
    pub fn look() -> Self {
        Self {
            cpu: line_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            idle: idle(),
        }
    }

    /// One line for the foot of a table.
    pub fn line(&self) -> String {
        let Self {
            cpu, cores, kernel, ..
        } = self;
        let percent = self.idle * 100.0;
        format!("{cpu}, {cores} cores, Linux {kernel}, {percent:.0} % idle before it")
    }
}

/// The idle part of two seconds (proc_stat(5): user nice system idle iowait …, in ticks), 0 to 1.
fn idle() -> f64 {
    let ticks = || -> Vec<f64> {
        let text = read("/proc/stat");
        let words = text.lines().next().unwrap_or_default().split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(2));
    let spent: Vec<f64> = ticks().iter().zip(&before).map(|(b, a)| b - a).collect();
    let unused = spent.get(3).unwrap_or(&0.0) + spent.get(4).unwrap_or(&0.0);
    unused / spent.iter().sum::<f64>().max(1.0)
}

/// A small file's text, trimmed; empty where it can't be read.
pub fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The value of the first `key : value` line of `file`.
fn line_of(file: &str, key: &str) -> String {
    let text = read(file);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.split_once(": "));
    line.map_or("unknown", |(_, value)| value).to_owned()
}

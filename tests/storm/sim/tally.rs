//! What came of a storm.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::host::{Boot, Failure, Stage};
use crate::rig::percentile;

/// All boots together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Hosts that came up.
    pub booted: usize,
    /// Names that machines were given which nobody had listed.
    pub names: Vec<String>,
    /// The longest that one of those was kept waiting for an answer.
    pub slowest: Duration,
    /// Those that did not.
    pub failures: Vec<Failure>,
    /// From the first power-on to the end of the last host.
    pub wall: Duration,
    /// Up to the last byte of the last host's initrd.
    pub loaded: Duration,
    /// CPU seconds of the simulator itself.
    pub own_cpu: f64,
    /// Datagrams that the weather took.
    pub lost: u64,
    /// Packets and requests that hosts sent again.
    pub dhcp_retries: u64,
    /// By TFTP.
    pub tftp_retries: u64,
    /// Files by HTTP.
    pub http_retries: u64,
    stages: BTreeMap<Stage, Vec<f64>>,
    totals: Vec<f64>,
}

impl Tally {
    pub(super) fn add(&mut self, boot: Boot) {
        for (stage, took) in boot.stages {
            self.stages
                .entry(stage)
                .or_default()
                .push(took.as_secs_f64());
        }
        self.names.extend(boot.name);
        self.slowest = self.slowest.max(boot.slowest);
        self.lost += boot.lost;
        self.dhcp_retries += boot.dhcp_retries;
        self.tftp_retries += boot.tftp_retries;
        self.http_retries += boot.http_retries;
        match boot.failure {
            Some(failure) => self.failures.push(failure),
            None => {
                self.booted += 1;
                self.loaded = self.loaded.max(boot.loaded);
                self.totals.push(boot.took.as_secs_f64());
            }
        }
    }

    /// Seconds that a stage took, at this percentile (0 to 1) of the hosts.
    pub fn stage(&self, stage: Stage, part: f64) -> f64 {
        let took = self.stages.get(&stage).map_or(&[][..], Vec::as_slice);
        percentile(took, part)
    }

    /// Seconds from power-on to *joined*.
    pub fn total(&self, part: f64) -> f64 {
        percentile(&self.totals, part)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} hosts booted, {} failed, the last after {:.2} s ({:.2} s to its initrd); simulator {:.2} s CPU",
            self.booted,
            self.failures.len(),
            self.wall.as_secs_f64(),
            self.loaded.as_secs_f64(),
            self.own_cpu,
        )?;
        for stage in Stage::ALL {
            let (p50, p99) = (self.stage(stage, 0.5), self.stage(stage, 0.99));
            writeln!(f, "  {:<9} p50 {p50:7.3} s  p99 {p99:7.3} s", stage.name())?;
        }
        let (p50, p99) = (self.total(0.5), self.total(0.99));
        writeln!(f, "  {:<9} p50 {p50:7.3} s  p99 {p99:7.3} s", "all")?;
        writeln!(
            f,
            "  {} datagrams lost; sent again: {} by DHCP, {} by TFTP, {} files by HTTP",
            self.lost, self.dhcp_retries, self.tftp_retries, self.http_retries
        )?;
        for Failure { host, stage, why } in self.failures.iter().take(10) {
            let stage = stage.map_or("all", Stage::name);
            writeln!(f, "  {} failed in {stage}: {why}", super::name(*host))?;
        }
        Ok(())
    }
}

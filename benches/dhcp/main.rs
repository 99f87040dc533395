//! `make bench BENCH=dhcp`: Bridgehead's DHCP beside Kea and dnsmasq, by Kea's `perfdhcp`.
//!
//! `perfdhcp` is a relay with 20,000 machines behind it that take leases (DISCOVER, OFFER, REQUEST, ACK) at a rate.
//! For every server the highest rate is searched at which less than 1 % of its answers are missing; then what it costs
//! and how long it takes at half that rate. `BENCH_CONTENDERS="bridgehead kea"` measures only those.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod contenders;
mod perfdhcp;

#[path = "../../tests/lab/mod.rs"]
mod lab;
#[path = "../rig/mod.rs"]
mod rig;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use contenders::Contender;
use lab::Result;
use perfdhcp::Outcome;
use rig::{Aim, Measure, Report, Wire};

const RUNS: usize = 5;

/// Four-way exchanges a second that the search begins with, and beyond which it does not go.
const RATES: (f64, f64) = (100.0, 50_000.0);

/// Steps between the last rate that was kept and the first that was not.
const STEPS: usize = 3;

/// How long a rate is tried, and the half of the highest measured, seconds.
const TRIES: u32 = 3;
const LASTS: u32 = 6;

const CASE: &str = "20,000 machines behind a relay take leases";

const MEASURES: &[Measure] = &[
    Measure::new("exchanges/s", "exchanges_per_s", 0),
    Measure::new("p99 of the OFFER at half of it, ms", "p99_offer_ms", 1),
    Measure::new("p99 of the ACK, ms", "p99_ack_ms", 1),
    Measure::new("server CPU s/1000", "cpu_s_per_1000", 3),
    Measure::new("memory, MiB", "peak_mib", 0),
];

/// Where everything is.
struct Bench {
    wire: Wire,
    /// Configurations, logs, lease files.
    place: PathBuf,
}

fn main() -> ExitCode {
    rig::run_bench("dhcp", bench)
}

fn bench(out: &Path) -> Result<()> {
    let contenders = rig::chosen("BENCH_CONTENDERS", &Contender::ALL, Contender::name)?;
    let bench = Bench {
        wire: Wire::new("dhcp")?,
        place: out.join("dhcp"),
    };
    let mut report = Report::new("dhcp", Contender::Bridgehead.name(), MEASURES);
    report.conditions = contenders::conditions(&contenders);
    report.aims = aims();
    report.notes = NOTES.to_owned();
    let (runs, name) = (rig::runs(RUNS, 99), Contender::name);
    report.case(CASE, runs, &contenders, name, |_, contender| {
        bench.measure(contender)
    })?;
    report.write(out)
}

impl Bench {
    /// One contender, started anew.
    fn measure(&self, contender: Contender) -> Result<Vec<f64>> {
        let server = contender.start(self)?;
        let highest = self.highest()?;
        let watch = server.watch();
        let half = perfdhcp::run(&self.wire, highest / 2.0, LASTS)?;
        let usage = watch.stop();
        Ok(vec![
            highest,
            half.p99_offer_ms,
            half.p99_ack_ms,
            usage.cpu / (half.exchanges / 1000.0),
            usage.peak,
        ])
    }

    /// The rate doubles until answers are missing; then the place in between is narrowed down.
    fn highest(&self) -> Result<f64> {
        let (mut rate, most) = RATES;
        let mut kept = 0.0;
        let mut lost = most;
        while rate < most {
            let outcome = self.attempt(rate)?;
            if !outcome.is_kept() {
                lost = rate;
                break;
            }
            kept = outcome.rate.max(kept);
            // The client may be what is slow.
            if outcome.rate < rate * 0.7 {
                return Ok(kept);
            }
            rate *= 2.0;
        }
        let mut low = rate / 2.0;
        for _ in 0..STEPS {
            let middle = (low * lost).sqrt();
            let outcome = self.attempt(middle)?;
            if outcome.is_kept() {
                kept = outcome.rate.max(kept);
                low = middle;
            } else {
                lost = middle;
            }
        }
        Ok(kept)
    }

    /// Two tries: what one packet too many or somebody else's burst costs is not the server's.
    fn attempt(&self, rate: f64) -> Result<Outcome> {
        let first = perfdhcp::run(&self.wire, rate, TRIES)?;
        if first.is_kept() {
            return Ok(first);
        }
        perfdhcp::run(&self.wire, rate, TRIES)
    }
}

/// Issue and README say these.
fn aims() -> Vec<Aim> {
    let aim = |other, ratio| Aim {
        case: CASE,
        key: "exchanges_per_s",
        beside: other,
        ratio,
        more: true,
    };
    vec![aim(&["kea"], 1.0), aim(&["dnsmasq"], 5.0)]
}

const NOTES: &str = "\
Exchanges/s: the highest rate at which less than 1 % of OFFERs and of ACKs were missing after a second. Ours and dnsmasq \
have the lease on disk (fsync) before the ACK leaves; Kea's memfile is written and not synced, and it answers with two \
threads. CPU: of the server's process, kernel included, at half the highest rate. Memory: its most, after all rates.";

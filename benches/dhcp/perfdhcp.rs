//! `perfdhcp`, and what it says.

use crate::lab::Result;
use crate::rig::{SERVER, Wire, percentile};

/// Machines that take leases.
const MACHINES: &str = "20000";

/// What became of the exchanges of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// Whole exchanges a second.
    pub(crate) rate: f64,
    /// Whole exchanges.
    pub(crate) exchanges: f64,
    /// Of OFFERs or of ACKs, whichever is more, 0 to 1.
    pub(crate) missing: f64,
    /// From DISCOVER to OFFER.
    pub(crate) p99_offer_ms: f64,
    /// From REQUEST to ACK.
    pub(crate) p99_ack_ms: f64,
}

impl Outcome {
    /// Whether the server kept up.
    pub(crate) fn is_kept(&self) -> bool {
        self.missing < 0.01 && self.exchanges > 0.0
    }
}

/// Offers `rate` exchanges a second for `seconds`.
pub(crate) fn run(wire: &Wire, rate: f64, seconds: u32) -> Result<Outcome> {
    let (rate, period) = (format!("{rate:.0}"), seconds.to_string());
    let mut argv = vec!["perfdhcp", "-4", "-l", "eth0", "-x", "t", "-R", MACHINES];
    argv.extend(["-r", &rate, "-p", &period, SERVER]);
    // Its exit code is 3 where answers are missing.
    let done = wire.client().output(&argv)?;
    Ok(parse(&String::from_utf8_lossy(&done.stdout)))
}

fn parse(text: &str) -> Outcome {
    let (statistics, timestamps) = text.split_once("***Timestamps").unwrap_or((text, ""));
    let count = |what: &str| -> Vec<f64> {
        let lines = statistics
            .lines()
            .filter_map(|line| line.strip_prefix(what));
        lines.filter_map(|rest| rest.trim().parse().ok()).collect()
    };
    let (sent, received) = (count("sent packets:"), count("received packets:"));
    let missing = sent
        .iter()
        .zip(&received)
        .map(|(sent, got)| 1.0 - got / sent);
    let rate = statistics.lines().find_map(|line| {
        let words = line.strip_prefix("Rate: ")?;
        words.split(' ').next()?.parse().ok()
    });
    let (offers, acks) = timestamps
        .split_once("***Timestamps")
        .unwrap_or((timestamps, ""));
    Outcome {
        rate: rate.unwrap_or(0.0),
        exchanges: received.get(1).copied().unwrap_or(0.0),
        // Not a number: nothing was sent.
        missing: missing.fold(0.0, |most, one| if one >= most { one } else { most }),
        p99_offer_ms: p99_ms(offers),
        p99_ack_ms: p99_ms(acks),
    }
}

/// Lines `sent / received: SECONDS / SECONDS`.
fn p99_ms(timestamps: &str) -> f64 {
    let delay = |line: &str| -> Option<f64> {
        let (sent, received) = line.strip_prefix("sent / received: ")?.split_once(" / ")?;
        let second = |text: &str| text.trim().parse::<f64>().ok();
        Some((second(received)? - second(sent)?) * 1000.0)
    };
    let delays: Vec<f64> = timestamps.lines().filter_map(delay).collect();
    percentile(&delays, 0.99)
}

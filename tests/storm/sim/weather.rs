//! Loss and delay of UDP datagrams.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The weather over one host; what it loses depends on the seed and the host's own datagrams alone.
#[derive(Debug)]
pub(super) struct Weather {
    random: StdRng,
    loss: f64,
    delay: Duration,
    /// Datagrams that were lost.
    pub(super) lost: u64,
}

impl Weather {
    pub(super) fn new(seed: u64, number: u16, loss_percent: f64, delay: Duration) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed.rotate_left(16) ^ u64::from(number)),
            loss: loss_percent / 100.0,
            delay,
            lost: 0,
        }
    }

    /// Whether the next datagram is lost.
    pub(super) fn loses(&mut self) -> bool {
        let lost = self.loss > 0.0 && self.random.random_bool(self.loss);
        self.lost += u64::from(lost);
        lost
    }

    /// The way there and back: spent before a datagram leaves, for a client waits for the answer anyway.
    pub(super) async fn travel(&self) {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay * 2).await;
        }
    }

    /// A number that the host chooses.
    pub(super) fn number(&mut self) -> u32 {
        self.random.random()
    }
}

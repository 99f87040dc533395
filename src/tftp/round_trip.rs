//! Round-trip time and what follows from it for retransmission (RFC 6298 section 2).

use std::time::Duration;

/// Granularity of the timers that act on the estimate.
const GRANULARITY: Duration = Duration::from_millis(1);

/// Smoothed round-trip time of one peer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoundTrip {
    measured: Option<Measured>,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    smoothed: Duration,
    variation: Duration,
}

impl RoundTrip {
    /// Takes one sample. Never of a flight that was sent twice: the ACK may answer either (Karn, RFC 6298 section 3).
    pub(super) fn sample(&mut self, sample: Duration) {
        self.measured = Some(match self.measured {
            None => Measured {
                smoothed: sample,
                variation: sample / 2,
            },
            Some(Measured {
                smoothed,
                variation,
            }) => Measured {
                variation: variation * 3 / 4 + smoothed.abs_diff(sample) / 4,
                smoothed: smoothed * 7 / 8 + sample / 8,
            },
        });
    }

    /// When an answer is overdue: SRTT + 4 RTTVAR, without floor. `None` before the first sample.
    pub(super) fn overdue(&self) -> Option<Duration> {
        self.measured
            .map(|m| m.smoothed + GRANULARITY.max(m.variation * 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_6298() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.overdue(), None);
        round_trip.sample(Duration::from_millis(80));
        // RTO = 80 + 4 * 40
        assert_eq!(round_trip.overdue(), Some(Duration::from_millis(240)));
        round_trip.sample(Duration::from_millis(80));
        // RTTVAR = 3/4 * 40, RTO = 80 + 4 * 30
        assert_eq!(round_trip.overdue(), Some(Duration::from_millis(200)));
    }

    #[test]
    fn never_quicker_than_a_timer_tick() {
        let mut round_trip = RoundTrip::default();
        for _ in 0..1000 {
            round_trip.sample(Duration::from_micros(50));
        }
        assert!(round_trip.overdue() >= Some(GRANULARITY));
    }
}

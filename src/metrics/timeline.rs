//! Boot events, and how boots end.

use super::{Counter, Each, Histogram, Label, Registry};
use crate::policy::event::{Stage, StageState};

/// From half of what a quick host takes to what no host should: seconds.
const BOOT_SECONDS: [f64; 9] = [15., 30., 45., 60., 90., 120., 180., 300., 600.];
/// From what a stage of the initrd takes to the longest that one may take: seconds.
const STAGE_SECONDS: [f64; 10] = [0.1, 0.3, 1., 3., 10., 20., 30., 60., 120., 300.];

impl Label for StageState {
    const NAME: &'static str = "state";
    const ALL: &'static [Self] = Self::ALL;

    fn value(self) -> &'static str {
        self.name()
    }
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootResult {
    /// The host has joined.
    Joined,
    /// A stage failed for good.
    Failed,
}

impl Label for BootResult {
    const NAME: &'static str = "result";
    const ALL: &'static [Self] = &[Self::Joined, Self::Failed];

    fn value(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Failed => "failed",
        }
    }
}

/// What the timeline counts.
#[derive(Debug, Clone)]
pub struct TimelineMetrics {
    /// Events taken in, by their state.
    pub events: Each<StageState, Counter>,
    /// Events of little worth that were too many in their second, and not kept.
    pub suppressed: Counter,
    /// Events that are in memory alone, because the disk did not take them.
    pub unwritten: Counter,
    /// Boots by their end.
    pub boots: Each<BootResult, Counter>,
    /// From the first DISCOVER to *joined*.
    pub boot_duration: Histogram,
    /// Of boots that joined: from the end of the stage before to that of this one.
    pub stage_duration: Each<Stage, Histogram>,
}

impl Default for TimelineMetrics {
    fn default() -> Self {
        Self {
            events: Each::default(),
            suppressed: Counter::default(),
            unwritten: Counter::default(),
            boots: Each::default(),
            boot_duration: Histogram::new(BOOT_SECONDS),
            stage_duration: Each::new(|| Histogram::new(STAGE_SECONDS)),
        }
    }
}

impl TimelineMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let events = "Boot events by state";
        registry.register("events", events, self.events.clone());
        let suppressed = "Events that anybody can cause, too many in one second to be kept";
        registry.register("events_suppressed", suppressed, self.suppressed.clone());
        let unwritten = "Events that the disk did not take; they are in memory alone";
        registry.register("events_unwritten", unwritten, self.unwritten.clone());
        registry.register("boots", "Boots by their end", self.boots.clone());
        let duration = "From the first DISCOVER to joined";
        let unit = prometheus_client::registry::Unit::Seconds;
        registry.register_with_unit("boot_duration", duration, unit, self.boot_duration.clone());
        let stages =
            "Of boots that joined: from the end of the stage before to the end of this one";
        let unit = prometheus_client::registry::Unit::Seconds;
        let durations = self.stage_duration.clone();
        registry.register_with_unit("boot_stage_duration", stages, unit, durations);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::metrics::Metrics;
    use crate::policy::event::{BootEvent, MachineId, Stage, StageState};
    use crate::timeline::Timeline;

    /// `joined` at 42 s, after the loader at 10 s.
    #[test]
    fn a_boot_that_joins_is_measured_with_each_of_its_stages() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let timeline = Timeline::open(dir.path()).unwrap();
        let timeline = timeline.counting(metrics.timeline.clone());
        let host = MachineId("kvm01".into());
        let at = |second| Timestamp::from_second(second).unwrap();
        let event = |second, stage| {
            BootEvent::sent(
                at(second),
                host.clone(),
                stage,
                StageState::Ok,
                String::new(),
            )
        };
        let attempt = timeline.attempt(&host, at(0));
        timeline.record(event(10, Stage::Loader));
        let token = timeline.report_token(&attempt);
        timeline.report(event(42, Stage::Joined), &token).unwrap();
        let text = metrics.text();
        for line in [
            "bridgehead_boot_duration_seconds_sum 42.0\n",
            "bridgehead_boot_stage_duration_seconds_sum{stage=\"loader\"} 10.0\n",
            "bridgehead_boot_stage_duration_seconds_sum{stage=\"joined\"} 32.0\n",
            "bridgehead_boot_stage_duration_seconds_count{stage=\"kernel\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}

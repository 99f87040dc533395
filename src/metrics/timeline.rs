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

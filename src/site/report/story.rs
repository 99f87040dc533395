//! The story of one machine's boots, as `log` tells it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SCHEMA;
use crate::policy::event::{AttemptId, BootEvent, MachineId};
use crate::policy::progress::{Attempt, Machine};
use crate::timeline::SyslogLine;

/// Everything about one host.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostLog {
    /// Version of this shape.
    pub schema: u32,
    /// Its name.
    pub host: String,
    /// What happened outside any boot.
    pub strays: Vec<BootEvent>,
    /// Its boots, oldest first.
    pub attempts: Vec<AttemptLog>,
    /// The last kernel lines that it sent after a failure.
    pub console: String,
}

/// One boot.
#[derive(Debug, Serialize, Deserialize)]
pub struct AttemptLog {
    /// Its id.
    pub attempt: String,
    /// When it began.
    pub began: Timestamp,
    /// What happened.
    pub events: Vec<BootEvent>,
    /// What came from its address by syslog; anybody who can forge that can have sent it.
    #[serde(default)]
    pub syslog: Vec<SyslogLine>,
}

/// One line of a boot's story.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// What happened.
    Event(&'a BootEvent),
    /// What came by syslog.
    Said(&'a SyslogLine),
}

impl Told<'_> {
    /// When.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Event(event) => event.at,
            Self::Said(line) => line.at,
        }
    }
}

impl AttemptLog {
    /// What happened and what was said, in order.
    pub fn story(&self) -> Vec<Told<'_>> {
        let events = self.events.iter().map(Told::Event);
        let mut story: Vec<_> = events.chain(self.syslog.iter().map(Told::Said)).collect();
        story.sort_by_key(Told::at);
        story
    }
}

impl HostLog {
    /// From what the timeline knows; `said` is what came by syslog in an attempt.
    pub fn new(
        id: &MachineId,
        machine: Machine,
        console: String,
        said: impl Fn(&AttemptId) -> Vec<SyslogLine>,
    ) -> Self {
        let attempt = |attempt: Attempt| {
            let timed = |event: &BootEvent| BootEvent {
                at: attempt.time_of(event),
                ..event.clone()
            };
            let mut events: Vec<BootEvent> = attempt.events.iter().map(timed).collect();
            events.sort_by_key(|event| event.at);
            AttemptLog {
                syslog: said(&attempt.id),
                attempt: attempt.id.0,
                began: attempt.began,
                events,
            }
        };
        Self {
            schema: SCHEMA,
            host: id.0.clone(),
            strays: machine.strays.into(),
            attempts: machine.attempts.into_iter().map(attempt).collect(),
            console,
        }
    }
}

//! Syslog: what became of each line.

use super::{Counter, Each, Label, Registry};

/// What became of a syslog datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogFate {
    /// Kept with the boot attempt of the machine that has the address.
    Kept,
    /// Nobody here has the address.
    Unknown,
    /// The machine has the address, and no boot of it is under way.
    NoBoot,
    /// It says nothing.
    Empty,
    /// Its address sends more than machines that boot.
    Limited,
    /// The disk did not take it.
    Unwritten,
}

impl Label for SyslogFate {
    const NAME: &'static str = "result";
    const ALL: &'static [Self] = &[
        Self::Kept,
        Self::Unknown,
        Self::NoBoot,
        Self::Empty,
        Self::Limited,
        Self::Unwritten,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Unknown => "unknown",
            Self::NoBoot => "no_boot",
            Self::Empty => "empty",
            Self::Limited => "limited",
            Self::Unwritten => "unwritten",
        }
    }
}

/// What the syslog port counts.
#[derive(Debug, Clone, Default)]
pub struct SyslogMetrics {
    /// Datagrams, by what became of them.
    pub messages: Each<SyslogFate, Counter>,
}

impl SyslogMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let messages = "Syslog lines by what became of them";
        registry.register("syslog_messages", messages, self.messages.clone());
    }
}

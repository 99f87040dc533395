//! Machines that become hosts by themselves.

use super::{Counter, Each, Label, Registry};

/// What became of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrolResult {
    /// It is a host that had no machine.
    Enrolled,
    /// It is a host in place of another machine.
    Replaced,
    /// It waits, for a reason that was new.
    Waits,
    /// The inventory's file could not be written.
    Unwritten,
}

impl Label for EnrolResult {
    const NAME: &'static str = "result";
    const ALL: &'static [Self] = &[Self::Enrolled, Self::Replaced, Self::Waits, Self::Unwritten];

    fn value(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Replaced => "replaced",
            Self::Waits => "waits",
            Self::Unwritten => "unwritten",
        }
    }
}

/// What is counted of them.
#[derive(Debug, Clone, Default)]
pub struct EnrolMetrics {
    /// Decisions.
    pub decisions: Each<EnrolResult, Counter>,
}

impl EnrolMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "enrolments",
            "New machines by what became of them: enrolled (the host had none), replaced (in place of another), waits (for a reason that was new), unwritten (the inventory's file could not be written)",
            self.decisions.clone(),
        );
    }
}

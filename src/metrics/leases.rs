//! Leases.

use super::{Each, Gauge, Label, Registry};

/// How a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// A machine may use the address.
    Active,
    /// Run out, and remembered for the machine.
    Expired,
    /// Rests, because a client found the address in use.
    Declined,
}

impl Label for LeaseState {
    const NAME: &'static str = "state";
    const ALL: &'static [Self] = &[Self::Active, Self::Expired, Self::Declined];

    fn value(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Declined => "declined",
        }
    }
}

/// Leases, as [`crate::site::Site::measure`] last counted them.
#[derive(Debug, Clone, Default)]
pub struct LeaseMetrics {
    /// Leases by state.
    pub leases: Each<LeaseState, Gauge>,
}

impl LeaseMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("leases", "Leases by state", self.leases.clone());
    }
}

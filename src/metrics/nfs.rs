//! The built-in NFS server.

use super::{Counter, Each, Gauge, Label, Registry};

/// Why a client of NFS was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NfsRefusal {
    /// As many connections are open as may be.
    Connections,
    /// As many are open as one address may have.
    AddressConnections,
    /// It asked for what is not exported.
    Export,
    /// It may not mount: its port is not one of root's.
    Client,
    /// What it sent is no call.
    Malformed,
}

impl Label for NfsRefusal {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[
        Self::Connections,
        Self::AddressConnections,
        Self::Export,
        Self::Client,
        Self::Malformed,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::AddressConnections => "address_connections",
            Self::Export => "export",
            Self::Client => "client",
            Self::Malformed => "malformed",
        }
    }
}

/// What NFS counts.
#[derive(Debug, Clone, Default)]
pub struct NfsMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Roots that were mounted.
    pub mounts: Counter,
    /// Bytes of replies.
    pub sent: Counter,
    /// Clients that were turned away.
    pub refused: Each<NfsRefusal, Counter>,
}

impl NfsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let connections = "Open NFS connections";
        registry.register("nfs_connections", connections, self.connections.clone());
        registry.register("nfs_mounts", "Roots mounted by NFS", self.mounts.clone());
        let refused = "NFS clients turned away, by why";
        registry.register("nfs_refused", refused, self.refused.clone());
    }
}

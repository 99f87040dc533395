//! DHCP.

use super::{Counter, Each, Gauge, Label, Registry};

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketResult {
    /// Answered.
    Answered,
    /// Nothing to answer, or nothing that may be: the event says why.
    Silent,
    /// Over the budget of its machine or of its relay's port.
    Limited,
    /// Its lease did not get to the disk.
    Unwritten,
    /// The reply could not be sent at once.
    Unsent,
}

impl Label for PacketResult {
    const NAME: &'static str = "result";
    const ALL: &'static [Self] = &[
        Self::Answered,
        Self::Silent,
        Self::Limited,
        Self::Unwritten,
        Self::Unsent,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Silent => "silent",
            Self::Limited => "limited",
            Self::Unwritten => "unwritten",
            Self::Unsent => "unsent",
        }
    }
}

/// How a probe of a pool's address ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeResult {
    /// Nobody answered.
    Free,
    /// Somebody has the address, and it rests.
    Taken,
    /// Not made: too many at once, or the frame could not be sent.
    Skipped,
}

impl Label for ProbeResult {
    const NAME: &'static str = "result";
    const ALL: &'static [Self] = &[Self::Free, Self::Taken, Self::Skipped];

    fn value(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Taken => "taken",
            Self::Skipped => "skipped",
        }
    }
}

/// What another DHCP server is on its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OtherServer {
    /// `dhcp: proxy` reckons with one.
    Expected,
    /// With `dhcp: server`, it takes machines away.
    Unexpected,
}

impl Label for OtherServer {
    const NAME: &'static str = "kind";
    const ALL: &'static [Self] = &[Self::Expected, Self::Unexpected];

    fn value(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Unexpected => "unexpected",
        }
    }
}

/// What DHCP counts.
#[derive(Debug, Clone, Default)]
pub struct DhcpMetrics {
    /// Well-formed requests, by what became of them.
    pub packets: Each<PacketResult, Counter>,
    /// Probes of the pools' addresses.
    pub probes: Each<ProbeResult, Counter>,
    /// Other servers that answer now.
    pub others: Each<OtherServer, Gauge>,
}

impl DhcpMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let packets = "DHCP requests by what became of them";
        registry.register("dhcp_packets", packets, self.packets.clone());
        let probes = "ARP probes of pool addresses";
        registry.register("dhcp_address_probes", probes, self.probes.clone());
        let others = "Other DHCP servers that answer on the networks served";
        registry.register("dhcp_other_servers", others, self.others.clone());
    }
}

//! DHCP.

use super::{Counter, Each, EachPair, Gauge, Label, Registry};
use crate::policy::verdict::Because;
use crate::wire::dhcp::MessageType;

/// A message's type (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DhcpMessage {
    /// Who is there?
    Discover,
    /// An address, or what to boot.
    Offer,
    /// I take it, or still have it.
    Request,
    /// Somebody else has it.
    Decline,
    /// It is yours.
    Ack,
    /// It is not yours.
    Nak,
    /// I have it no more.
    Release,
    /// I have an address and want the rest.
    Inform,
    /// Any other.
    Other,
}

impl From<MessageType> for DhcpMessage {
    fn from(kind: MessageType) -> Self {
        match kind {
            MessageType::Discover => Self::Discover,
            MessageType::Offer => Self::Offer,
            MessageType::Request => Self::Request,
            MessageType::Decline => Self::Decline,
            MessageType::Ack => Self::Ack,
            MessageType::Nak => Self::Nak,
            MessageType::Release => Self::Release,
            MessageType::Inform => Self::Inform,
            _ => Self::Other,
        }
    }
}

impl Label for DhcpMessage {
    const NAME: &'static str = "type";
    const ALL: &'static [Self] = &[
        Self::Discover,
        Self::Offer,
        Self::Request,
        Self::Decline,
        Self::Ack,
        Self::Nak,
        Self::Release,
        Self::Inform,
        Self::Other,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Offer => "offer",
            Self::Request => "request",
            Self::Decline => "decline",
            Self::Ack => "ack",
            Self::Nak => "nak",
            Self::Release => "release",
            Self::Inform => "inform",
            Self::Other => "other",
        }
    }
}

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To us.
    Received,
    /// From us.
    Sent,
}

impl Label for Direction {
    const NAME: &'static str = "direction";
    const ALL: &'static [Self] = &[Self::Received, Self::Sent];

    fn value(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }
}

macro_rules! silences {
    ($($(#[$doc:meta])* $because:pat => $reason:ident = $word:literal;)+) => {
        /// Why a request got no answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Silence {
            $($(#[$doc])* $reason,)+
            /// Any other reason; its event says which.
            Other,
        }

        impl From<&Because> for Silence {
            fn from(because: &Because) -> Self {
                match because {
                    $($because => Self::$reason,)+
                    _ => Self::Other,
                }
            }
        }

        impl Label for Silence {
            const NAME: &'static str = "reason";
            const ALL: &'static [Self] = &[$(Self::$reason,)+ Self::Other];

            fn value(self) -> &'static str {
                match self {
                    $(Self::$reason => $word,)+
                    Self::Other => "other",
                }
            }
        }
    };
}

silences! {
    /// RELEASE and DECLINE get none.
    Because::Noted => Noted = "noted";
    /// The client took another server's offer.
    Because::OtherServer(_) => OtherServer = "other_server";
    /// It came from where no network is.
    Because::NoNetwork(_) => NoNetwork = "no_network";
    /// `dhcp: off`.
    Because::DhcpOff(_) => DhcpOff = "dhcp_off";
    /// `dhcp: proxy`, and it does not boot.
    Because::Proxied(_) => Proxied = "proxied";
    /// Another server may know its address.
    Because::NotKnown(_) => NotKnown = "not_known";
    /// Not listed, and such are ignored.
    Because::UnknownIgnored => UnknownIgnored = "unknown_ignored";
    /// No address is left.
    Because::PoolFull(_) => PoolFull = "pool_full";
    /// Not listed, and the network has no pool.
    Because::NoPool(_) => NoPool = "no_pool";
    /// Another machine still has the host's address.
    Because::ReservedInUse { .. } => ReservedInUse = "reserved_in_use";
    /// The host's address is ours.
    Because::OwnAddress(_) => OwnAddress = "own_address";
    /// It is on its way to its local disk.
    Because::LeavesForDisk => LeavesForDisk = "leaves_for_disk";
    /// Nothing that we have runs on it.
    Because::NoLoader(_) => NoLoader = "no_loader";
    /// Its kernel is for another processor.
    Because::OtherArchitecture { .. } => OtherArchitecture = "other_architecture";
    /// It declined several addresses, or half of the pool rests.
    Because::DeclinesMany(_) | Because::HalfRests(_) => NoRest = "no_rest";
    /// Nothing that a client asks a server.
    Because::NotForServers(_) | Because::NotForPxe(_) | Because::NoAddressWanted => NotForServers = "not_for_servers";
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestResult {
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

impl Label for RequestResult {
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
    /// Well-formed requests and replies, by type.
    pub packets: EachPair<Direction, DhcpMessage, Counter>,
    /// Requests without an answer, by why.
    pub ignored: Each<Silence, Counter>,
    /// Well-formed requests, by what became of them.
    pub requests: Each<RequestResult, Counter>,
    /// Probes of the pools' addresses.
    pub probes: Each<ProbeResult, Counter>,
    /// Other servers that answer now.
    pub others: Each<OtherServer, Gauge>,
}

impl DhcpMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let packets = "DHCP messages received and sent, by type";
        registry.register("dhcp_packets", packets, self.packets.clone());
        let ignored = "DHCP requests that got no answer, by why";
        registry.register("dhcp_ignored", ignored, self.ignored.clone());
        let requests = "DHCP requests by what became of them";
        registry.register("dhcp_requests", requests, self.requests.clone());
        let probes = "ARP probes of pool addresses";
        registry.register("dhcp_address_probes", probes, self.probes.clone());
        let others = "Other DHCP servers that answer on the networks served";
        registry.register("dhcp_other_servers", others, self.others.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gets_no_answer_is_counted_by_its_reason() {
        let counted = DhcpMetrics::default();
        for because in [
            Because::PoolFull("boot".into()),
            Because::NoAddressWanted,
            Because::DeclinesMany([10, 77, 0, 100].into()),
            // An answer's reason is none for silence.
            Because::Pool,
        ] {
            counted.ignored.of((&because).into()).inc();
        }
        let told: Vec<_> = counted
            .ignored
            .iter()
            .filter(|(_, count)| count.get() > 0)
            .map(|(reason, _)| reason.value())
            .collect();
        assert_eq!(told, ["pool_full", "no_rest", "not_for_servers", "other"]);
    }
}

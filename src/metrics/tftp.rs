//! TFTP: what was asked, and what became of it.

use super::{Counter, Each, Gauge, Label, Registry};

/// What a datagram to the TFTP port got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TftpAnswer {
    /// A transfer.
    Served,
    /// An ERROR: no such file, not for this address, busy, a write.
    Refused,
    /// An ERROR, because it can't be read.
    Malformed,
    /// Nothing, or nothing new: late, repeated, to a broadcast address, too many from one client.
    Ignored,
}

impl Label for TftpAnswer {
    const NAME: &'static str = "answer";
    const ALL: &'static [Self] = &[Self::Served, Self::Refused, Self::Malformed, Self::Ignored];

    fn value(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Ignored => "ignored",
        }
    }
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TftpResult {
    /// The file is there; its last ACK may be missing.
    Done,
    /// The client wanted the size only.
    SizeProbe,
    /// The client sent an ERROR.
    ClientError,
    /// The client stopped answering, or took too long in all.
    GaveUp,
    /// The client's port is closed.
    Unreachable,
    /// The client began anew.
    Replaced,
    /// The server was stopped.
    Shutdown,
    /// The server's socket failed.
    Socket,
}

impl Label for TftpResult {
    const NAME: &'static str = "result";
    const ALL: &'static [Self] = &[
        Self::Done,
        Self::SizeProbe,
        Self::ClientError,
        Self::GaveUp,
        Self::Unreachable,
        Self::Replaced,
        Self::Shutdown,
        Self::Socket,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::SizeProbe => "size_probe",
            Self::ClientError => "client_error",
            Self::GaveUp => "gave_up",
            Self::Unreachable => "unreachable",
            Self::Replaced => "replaced",
            Self::Shutdown => "shutdown",
            Self::Socket => "socket",
        }
    }
}

/// What TFTP counts.
#[derive(Debug, Clone, Default)]
pub struct TftpMetrics {
    /// Datagrams to the TFTP port, by what they got.
    pub requests: Each<TftpAnswer, Counter>,
    /// Transfers under way.
    pub running: Gauge,
    /// Transfers that ended, by how.
    pub finished: Each<TftpResult, Counter>,
    /// Bytes of files that clients acknowledged, of transfers that ended.
    pub bytes: Counter,
    /// Datagrams that were sent again.
    pub retransmissions: Counter,
}

impl TftpMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let requests = "Datagrams to the TFTP port by what they got";
        registry.register("tftp_requests", requests, self.requests.clone());
        let running = "TFTP transfers under way";
        registry.register("tftp_transfers_running", running, self.running.clone());
        let finished = "TFTP transfers that ended, by how";
        registry.register("tftp_transfers", finished, self.finished.clone());
        let again = "TFTP datagrams that were sent again";
        registry.register("tftp_retransmissions", again, self.retransmissions.clone());
    }
}

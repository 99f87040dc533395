//! How long a transfer waits, and what became of it.

use std::fmt;
use std::time::Duration;

use crate::wire::tftp::ErrorCode;

/// How long a transfer waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// First retransmission while no round trip was measured; a client's shorter `timeout` wins.
    pub first: Duration,
    /// No retransmission comes earlier for want of an answer. ROMs are slow while they draw or erase.
    pub floor: Duration,
    /// No retransmission waits longer; a client's shorter `timeout` wins.
    pub ceiling: Duration,
    /// Ends a transfer that makes no progress.
    pub stalled: Duration,
    /// The same once the last block is out: a ROM may run the loader without its last ACK.
    pub last_ack: Duration,
    /// Ends any transfer, progress or not, so that a client can't hold a place for ever.
    pub lifetime: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            floor: Duration::from_millis(100),
            ceiling: Duration::from_secs(4),
            stalled: Duration::from_secs(30),
            last_ack: Duration::from_secs(5),
            lifetime: Duration::from_secs(3600),
        }
    }
}

/// Why a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Every byte was acknowledged.
    Done,
    /// Every block was sent and all but the last window acknowledged; most likely the client runs the file already.
    LastAckMissing,
    /// The client sent an ERROR.
    ClientError {
        /// Its code.
        code: ErrorCode,
        /// Its words, fit for a log.
        message: String,
    },
    /// The client stopped answering.
    GaveUp,
    /// [`Patience::lifetime`] passed while the client still took blocks.
    Overdue,
    /// The client's host says that nobody listens on the port (ICMP port unreachable).
    Unreachable,
    /// The client began anew from the same port.
    Replaced,
    /// The server is shutting down.
    Shutdown,
    /// The transfer's own socket fails again and again.
    Socket(std::io::ErrorKind),
}

/// What became of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why it ended.
    pub ended: Ended,
    /// Size of the file, bytes.
    pub size: u64,
    /// Bytes of the file that the client acknowledged.
    pub bytes_acked: u64,
    /// From the first datagram to the end.
    pub elapsed: Duration,
    /// Datagrams that were sent again.
    pub retransmissions: u64,
    /// Packets from the client that were of no use: late or repeated ACKs, other kinds, broken ones.
    pub strays: u64,
    /// The client asked for the size (`tsize`).
    pub asked_size: bool,
}

impl Outcome {
    /// True where the client only wanted to know the size: it asked, then refused before the first byte,
    /// or closed its port where its ERROR was lost or never sent. PXE ROMs do so ahead of each file.
    #[must_use]
    pub fn is_size_probe(&self) -> bool {
        let refused = matches!(self.ended, Ended::ClientError { .. } | Ended::Unreachable);
        refused && self.asked_size && self.bytes_acked == 0
    }
}

impl Outcome {
    /// True where the client ended it without a last ACK.
    pub(super) fn is_by_client(&self) -> bool {
        matches!(
            self.ended,
            Ended::ClientError { .. } | Ended::Unreachable | Ended::LastAckMissing
        )
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::LastAckMissing => f.write_str("all sent, last ACK missing"),
            Self::ClientError { code, message } if message.is_empty() => {
                write!(f, "client sent error {code}")
            }
            Self::ClientError { code, message } => {
                write!(f, "client sent error {code}: {message}")
            }
            Self::GaveUp => f.write_str("client stopped answering"),
            Self::Overdue => f.write_str("client took too long in all"),
            Self::Unreachable => f.write_str("client's port is closed"),
            Self::Replaced => f.write_str("client began anew"),
            Self::Shutdown => f.write_str("server is shutting down"),
            Self::Socket(kind) => write!(f, "socket failed: {kind}"),
        }
    }
}

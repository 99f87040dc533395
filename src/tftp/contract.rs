//! What the rest of the house gives to the TFTP server, and what it gets from it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::negotiate::Terms;
use super::outcome::Outcome;
use crate::wire::tftp::{self as wire, ErrorCode, Malformed, Mode, Options};

/// A read request that waits for its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub peer: SocketAddr,
    /// Which of our addresses was asked, and will answer.
    pub local: IpAddr,
    /// File name with backslashes turned and leading slashes cut (`\boot\x` and `//boot/x` ask for `boot/x`).
    /// Else as sent: `..`, doubled slashes and control characters may be in it.
    pub name: Arc<str>,
    /// Mode as asked; everything is served as octet.
    pub mode: Mode,
    /// Options as asked, before they are cut to what we allow.
    pub options: Options,
}

impl Request {
    /// Reads a request off its packet.
    pub fn new(peer: SocketAddr, local: IpAddr, request: &wire::Request<'_>) -> Self {
        let name = request.name.replace('\\', "/");
        Self {
            peer,
            local,
            name: name.trim_start_matches('/').into(),
            mode: request.mode,
            options: request.options,
        }
    }
}

/// Where files come from.
pub trait Source: Send + Sync {
    /// Gives the file's bytes, or says why not. Called on the task that takes every request: it must answer from
    /// memory and never block; that keeps 500 requests at once from filling the receive buffer.
    ///
    /// # Errors
    /// [`Refusal`] where the file isn't there or isn't for this peer; it goes to the peer as an ERROR packet.
    fn open(&self, request: &Request) -> Result<Bytes, Refusal>;
}

/// Why a request gets no file. Sent to the peer as is: keep it short, ROMs show one line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} (TFTP error {code})")]
pub struct Refusal {
    /// Code of the ERROR packet.
    pub code: ErrorCode,
    /// Text of the ERROR packet.
    pub text: String,
}

impl Refusal {
    /// A refusal in these words.
    #[must_use]
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// ERROR 1 in the usual words.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ErrorCode::FileNotFound, "file not found")
    }
}

/// Who wants to know what happens.
pub trait Observer: Send + Sync {
    /// Takes one event. Called from the tasks that serve: it must not block.
    fn observe(&self, event: TransferEvent);
}

/// Something that happened, and to whom.
#[derive(Debug)]
pub struct TransferEvent {
    /// The other side; `None` where the trouble is our own.
    pub peer: Option<SocketAddr>,
    /// Which of our addresses it concerns, where that is known.
    pub local: Option<IpAddr>,
    /// What happened.
    pub what: What,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// That the client has acknowledged, bytes.
    pub bytes_acked: u64,
    /// Of the file, bytes.
    pub size: u64,
    /// Since the request.
    pub elapsed: Duration,
}

/// What happened.
#[derive(Debug)]
pub enum What {
    /// A transfer began.
    Started {
        /// File name, as in [`Request::name`].
        name: Arc<str>,
        /// Size of the file, bytes.
        size: u64,
        /// What was agreed.
        terms: Terms,
    },
    /// A transfer goes on. Told every few seconds while the client acknowledges.
    Moving {
        /// File name, as in [`Request::name`].
        name: Arc<str>,
        /// How far it is.
        reached: Reached,
    },
    /// A transfer ended, well or not: see the outcome.
    Finished {
        /// File name, as in [`Request::name`].
        name: Arc<str>,
        /// What became of it.
        outcome: Outcome,
    },
    /// A request was answered with an ERROR.
    Refused {
        /// File name, as in [`Request::name`].
        name: Arc<str>,
        /// What the peer was told.
        because: Refusal,
    },
    /// A datagram that is no TFTP packet; the peer was told by ERROR 4, unless it could be an answer to our own.
    Malformed {
        /// What is wrong with it.
        because: Malformed,
    },
    /// A datagram that needs no answer, or gets an ERROR that starts nothing.
    Ignored {
        /// Why.
        because: Ignored,
    },
    /// The server itself is in trouble; it goes on.
    Trouble {
        /// What it tried to do, as in "failed to {operation}".
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a datagram was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// A request that came again before the first answer arrived: the running transfer answered again.
    RepeatedRequest,
    /// A request that came again while its transfer moves on: a late copy.
    StaleRequest,
    /// Sent to a broadcast or multicast address (RFC 1123 section 4.2.3.5 forbids an answer).
    Broadcast,
    /// No request, but a packet that belongs to a transfer; answered by ERROR 5, unless it is an ERROR itself.
    NoSuchTransfer,
    /// From port 0, where no answer can go.
    NoPeerPort,
    /// One of more packets in a second than one client may send.
    TooMany,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RepeatedRequest => "request repeated, first answer sent again",
            Self::StaleRequest => "late copy of a request that is being served",
            Self::Broadcast => "sent to a broadcast address",
            Self::NoSuchTransfer => "belongs to no transfer",
            Self::NoPeerPort => "comes from port 0",
            Self::TooMany => "one of too many from this client",
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { name, size, terms } => write!(
                f,
                "{name:?} started: {size} bytes, blocks of {} bytes, window {}",
                terms.block_size, terms.window_size
            ),
            Self::Moving { name, reached } => write!(
                f,
                "{name:?} goes on: {} of {} bytes",
                reached.bytes_acked, reached.size
            ),
            Self::Finished { name, outcome } => write!(
                f,
                "{name:?} ended: {}; {} of {} bytes in {:.3} s, {} sent again",
                outcome.ended,
                outcome.bytes_acked,
                outcome.size,
                outcome.elapsed.as_secs_f64(),
                outcome.retransmissions
            ),
            Self::Refused { name, because } => write!(f, "{name:?} refused: {because}"),
            Self::Malformed { because } => write!(f, "malformed packet: {because}"),
            Self::Ignored { because } => write!(f, "packet ignored: {because}"),
            Self::Trouble { operation, source } => write!(f, "failed to {operation}: {source}"),
        }
    }
}

//! The pure core: who is asking, what to answer, what it boots.
//!
//! Time, addresses and state are arguments; no socket, file, clock or randomness is
//! touched here. That is what lets `bridgehead explain` ask the same question
//! without sending a packet.

pub mod boot_target;
pub mod client;
pub mod dhcp;
pub mod event;
pub mod lease;
pub mod options;
pub mod progress;
pub mod verdict;

pub use verdict::{Because, Destination, Transmit, Verdict};

//! The pure core: who is asking, what to answer, what it boots.
//!
//! Time, addresses and state are arguments; no socket, file, clock or randomness is
//! touched here, so any decision can be asked for without a packet being sent.

pub mod architecture;
mod attempt;
pub mod boot_target;
pub mod client;
pub mod dhcp;
pub mod discovered;
pub mod enrol;
pub mod event;
pub mod hint;
pub mod lease;
pub mod moving;
pub mod near;
pub mod options;
pub mod progress;
pub mod stall;
mod standing;
pub mod switch_port;
pub mod verdict;

pub use verdict::{Because, Destination, Transmit, Verdict};

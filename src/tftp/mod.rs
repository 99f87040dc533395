//! The TFTP server: reads only, from memory, with blksize, tsize, timeout and windowsize
//! (RFC 1350, 2347, 2348, 2349, 7440; RFC 1123 section 4.2 for what 1350 got wrong).
//!
//! - `contract`: what the rest of the house gives to it ([`Source`]) and gets from it ([`Observer`]);
//! - `transfer`: one read transfer as a state machine without I/O or clock, with its `round_trip` and its `outcome`;
//! - `negotiate`: what a client asks for, cut to what we allow;
//! - `serve`: takes requests, refuses or admits them by the `desk` (and by `floodgate`, so many of a client a second), and makes a `session` of each: a transfer on a
//!   `socket` of its own, which one of the `worker`s carries.

mod contract;
mod desk;
mod negotiate;
mod outcome;
mod round_trip;
mod serve;
mod session;
mod socket;
mod transfer;
mod worker;

pub use contract::{Ignored, Observer, Reached, Refusal, Request, Source, TransferEvent, What};
pub use negotiate::{Ceiling, Terms};
pub use outcome::{Ended, Outcome, Patience};
pub use serve::{BindError, Limits, Server};
pub use transfer::{Datagram, Transfer};

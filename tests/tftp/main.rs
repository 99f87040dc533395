//! The TFTP server on loopback: real clients, and conversations played datagram by datagram.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test by panicking"
)]

mod clients;
mod conversations;
mod limits;
mod support;

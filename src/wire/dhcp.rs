//! DHCPv4 messages (RFC 2131, options RFC 2132).
//!
//! `dhcproto` walks and encodes; what it gets wrong on hostile or PXE traffic is
//! done here: checks before its accessors may be called, options kept as bytes so
//! that one bad option does not lose those behind it, overload (option 52), option 82
//! echoed to the byte and last, replies of at least 300 bytes.

mod hardware;
mod reply;
mod request;

pub use dhcproto::v4::MessageType;

pub use hardware::Hardware;
pub(crate) use hardware::fnv_1a;
pub use reply::{DISPENSABLE, Reply};
pub use request::{Malformed, Request};

/// BOOTP relay agents drop shorter replies (RFC 1542 §2.1; dnsmasq `MIN_PACKETSZ`).
const MIN_REPLY: usize = 300;
/// What comes before the options.
const FIXED: usize = 240;

#[cfg(test)]
mod tests;

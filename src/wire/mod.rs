//! Bytes to types and back. Never panics, whatever arrives.

pub mod dhcp;
pub mod pxe;
pub mod tftp;

//! Bytes to types and back. Never panics, whatever arrives.

pub mod dhcp;
pub mod lldp;
pub mod offer;
pub mod pxe;
pub mod syslog;
pub mod text;
pub mod tftp;

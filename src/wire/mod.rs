//! Bytes to types and back. Never panics, whatever arrives.
pub mod tftp;

//! The TFTP server.

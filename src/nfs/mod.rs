//! The embedded read-only NFSv3 server for roots.

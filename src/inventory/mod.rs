//! `hosts.yaml`: as written, with spans, to as true, valid by construction.

pub mod model;

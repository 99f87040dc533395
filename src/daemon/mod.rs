//! Wiring, reload, privileges and shutdown.

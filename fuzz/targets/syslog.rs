#![no_main]
//! `make fuzz FUZZ=syslog`: see tests/properties/syslog.rs.

#[path = "../../tests/properties/syslog.rs"]
mod syslog;

libfuzzer_sys::fuzz_target!(|data: &[u8]| syslog::check(data));

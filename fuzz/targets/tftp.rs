#![no_main]
//! `make fuzz FUZZ=tftp`: see tests/properties/tftp.rs.

#[path = "../../tests/properties/tftp.rs"]
mod tftp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| tftp::check(data));

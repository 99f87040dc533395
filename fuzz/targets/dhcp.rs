#![no_main]
//! `make fuzz FUZZ=dhcp`: see tests/properties/dhcp.rs.

#[path = "../../tests/properties/dhcp.rs"]
mod dhcp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhcp::check(data));

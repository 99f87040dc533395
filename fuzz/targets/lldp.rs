#![no_main]
//! `make fuzz FUZZ=lldp`: see tests/properties/lldp.rs.

#[path = "../../tests/properties/lldp.rs"]
mod lldp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lldp::check(data));

#![no_main]
//! `make fuzz FUZZ=leases`: see tests/properties/leases.rs.

#[path = "../../tests/properties/leases.rs"]
mod leases;

libfuzzer_sys::fuzz_target!(|data: &[u8]| leases::check(data));

#![no_main]
//! `make fuzz FUZZ=inventory`: see tests/properties/inventory.rs.

#[path = "../../tests/properties/inventory.rs"]
mod inventory;

libfuzzer_sys::fuzz_target!(|data: &[u8]| inventory::check(data));

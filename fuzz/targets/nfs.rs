#![no_main]
//! `make fuzz FUZZ=nfs`: see tests/properties/nfs.rs.

#[path = "../../tests/properties/nfs.rs"]
mod nfs;

libfuzzer_sys::fuzz_target!(|data: &[u8]| nfs::check(data));

#![no_main]
//! `make fuzz FUZZ=http`: see tests/properties/http.rs.

#[path = "../../tests/properties/http.rs"]
mod http;

libfuzzer_sys::fuzz_target!(|data: &[u8]| http::check(data));

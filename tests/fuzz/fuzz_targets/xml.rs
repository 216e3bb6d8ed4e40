//! Runs the body in `targets/xml.rs`.

#![no_main]

#[path = "../targets/xml.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::xml(data));

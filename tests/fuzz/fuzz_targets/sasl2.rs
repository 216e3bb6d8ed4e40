//! Runs the body in `targets/sasl2.rs`.

#![no_main]

#[path = "../targets/sasl2.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::sasl2(data));

//! Runs the body in `targets/dialback.rs`.

#![no_main]

#[path = "../targets/dialback.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::dialback(data));

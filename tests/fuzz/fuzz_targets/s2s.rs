//! Runs the body in `targets/s2s.rs`.

#![no_main]

#[path = "../targets/s2s.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::s2s(data));

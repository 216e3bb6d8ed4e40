//! Runs the body in `targets/stream.rs`.

#![no_main]

#[path = "../targets/stream.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::stream(data));

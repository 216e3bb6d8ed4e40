//! Runs the body in `targets/link.rs`.

#![no_main]

#[path = "../targets/link.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::link(data));

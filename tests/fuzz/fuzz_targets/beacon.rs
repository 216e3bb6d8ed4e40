//! Runs the body in `targets/beacon.rs`.

#![no_main]

#[path = "../targets/beacon.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::beacon(data));

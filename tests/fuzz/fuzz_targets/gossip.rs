//! Runs the body in `targets/gossip.rs`.

#![no_main]

#[path = "../targets/gossip.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::gossip(data));

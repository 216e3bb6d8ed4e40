//! Runs the body in `targets/proxy.rs`.

#![no_main]

#[path = "../targets/proxy.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::proxy(data));

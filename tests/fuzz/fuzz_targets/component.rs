//! Runs the body in `targets/component.rs`.

#![no_main]

#[path = "../targets/component.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::component(data));

//! `frame` under libFuzzer; what it does is in `tests/fuzz/src/frame.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vamos_fuzz::frame::run(input));

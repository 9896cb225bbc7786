//! `ring_and_packet` under libFuzzer; what it does is in `tests/fuzz/src/ring_and_packet.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vamos_fuzz::ring_and_packet::run(input));

//! `postgres_message` under libFuzzer; what it does is in `tests/fuzz/src/postgres_message.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vamos_fuzz::postgres_message::run(input));

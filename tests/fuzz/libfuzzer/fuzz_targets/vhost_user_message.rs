//! `vhost_user_message` under libFuzzer; what it does is in `tests/fuzz/src/vhost_user_message.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vamos_fuzz::vhost_user_message::run(input));

//! `hello`, the protocol of port 1: generated messages and the kinds of its frames.

#![allow(missing_docs, reason = "generated from hello.proto, which documents every field")]

include!(concat!(env!("OUT_DIR"), "/vamos.hello.v1.rs"));

/// Version of the `hello` protocol this build speaks.
pub const PROTOCOL: u32 = 1;

/// Frame kind of [`Hello`], from the agent.
pub const KIND_HELLO: u16 = 1;

/// Frame kind of [`Welcome`], from the cell.
pub const KIND_WELCOME: u16 = 2;

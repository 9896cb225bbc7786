//! The control plane: generated messages, clients and servers (feature `grpc`).

#![allow(missing_docs, reason = "generated from control.proto, which documents every field")]
#![allow(
    clippy::large_enum_variant,
    clippy::doc_lazy_continuation,
    unused_qualifications,
    reason = "generated"
)]

tonic::include_proto!("vamos.control.v1");

/// Descriptors of every service and message, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control.bin"));

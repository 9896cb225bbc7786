//! What a VM may do with one binding: generated messages, shared by the control plane and the cell.

#![allow(missing_docs, reason = "generated from policy.proto, which documents every field")]

include!(concat!(env!("OUT_DIR"), "/vamos.policy.v1.rs"));

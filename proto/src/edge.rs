//! The private channel between vamosd and the edge: generated messages, framed as a cell's are.

#![allow(missing_docs, reason = "generated from edge.proto, which documents every field")]

include!(concat!(env!("OUT_DIR"), "/vamos.edge.v1.rs"));

//! Wire types shared by every part of the platform and the guests' agents: identifiers, the frame
//! codec, the `hello` messages and (feature `grpc`) the control plane.
//!
//! Imports nothing of ours. Knows nothing of what a service does with its frames: the SQL bodies
//! live in `sql-pv/protocol`.

pub mod cell;
#[cfg(feature = "grpc")]
pub mod control;
pub mod edge;
pub mod envelope;
#[cfg(feature = "grpc")]
pub mod etcd;
pub mod frame;
pub mod hello;
pub mod id;
pub mod limits;
pub mod policy;

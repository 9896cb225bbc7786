//! vamosd: registry, control plane, keeper of vhost-user sessions, spawner of cells.
//!
//! Knows nothing of what a guest says: it touches no guest memory and parses nothing a guest wrote. A VM's
//! device and services live in its cell, another process; what reaches this one from a cell is bounded.

pub mod cell;
pub mod config;
pub mod control;
pub mod daemon;
pub mod directories;
pub mod doctor;
pub mod edge;
pub mod keeper;
pub mod lease;
pub mod limits;
pub mod migration;
pub mod names;
pub mod platform;
pub mod registry;
pub mod snapshot;
mod systemd;
pub mod vm;

//! What the measurements have in common: a platform of their own, processes' use of the machine, medians and reports.

pub mod limits;
pub mod platform;
pub mod process;
pub mod report;
pub mod statistics;

//! The keeper between a front-end that misbehaves and a cell that answers like one.

mod cell;
mod death;
mod descriptors;
mod refusals;

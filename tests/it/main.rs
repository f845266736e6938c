//! The integration tests: the real binary, as a user runs it, alone and on a real control plane.
//!
//! Comes in: the binary that cargo built, guests and a control plane of `testbed`. Goes out: what a user would see. Never
//! here: a call into the product's crates, a fixed sleep, or anything left behind.

mod alone;
mod bed;
mod cluster;
mod image;

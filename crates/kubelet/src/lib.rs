//! The node agent.

pub mod config;
pub mod flags;

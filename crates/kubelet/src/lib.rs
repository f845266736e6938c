//! The node agent.

pub mod api;
pub mod certificates;
pub mod clock;
pub mod config;
pub mod events;
pub mod flags;
pub mod node;

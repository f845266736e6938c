//! The runtime half: the only crate that uses Wasmtime.

pub mod code;
pub mod engine;
pub mod guest;
pub mod limits;
pub mod wasi;

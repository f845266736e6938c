//! What tests and developers need around wasklet: guests built from source, a real Kubernetes control plane, a real
//! registry.
//!
//! Comes in: this repository's sources. Goes out: an OCI layout of guest images, a running control plane, cluster
//! verbs for tests, a running registry, other tools. Never here: anything the product itself depends on.

mod cache;
pub mod cluster;
pub mod control_plane;
pub mod guests;
pub mod registry;
pub mod tools;

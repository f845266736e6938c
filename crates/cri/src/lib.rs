//! The seam between the kubelet and the runtime: the Container Runtime Interface, version 1.
//!
//! In come calls of the kubelet, out go calls on whatever runtime stands behind the channel: one in this process, or one
//! behind a Unix socket. Never here: what a pod is, and what a container is made of.

pub mod v1;
pub mod wasklet;

//! The seam between the kubelet and the runtime: the Container Runtime Interface, version 1.
//!
//! In come calls of the kubelet, out go calls on whatever runtime stands behind the channel: one in this process, or one
//! behind a Unix socket. Never here: what a pod is, and what a container is made of.
//!
//! A runtime implements the three service traits and hands them to [`routes`]; [`in_memory`] or [`serve_unix`] makes them
//! reachable. The kubelet holds a [`Client`] over the [`Channel`] it is given, and cannot tell which of the two it is.
//! What the halves must agree on beyond CRI's own words, the labels and annotations of pods, stands in [`names`].
//!
//! With the feature `testing` come `fake`, a scripted runtime, and `suite`, the checks that every runtime passes.

pub mod channel;
pub mod client;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod names;
pub mod socket;
#[cfg(any(test, feature = "testing"))]
pub mod suite;
pub mod v1;
pub mod wasklet;

pub use channel::{EndpointError, MAX_EXEC_OUTPUT_BYTES, in_memory, routes, unix};
pub use client::{CallError, Client, ExecError, Observer};
pub use socket::{SocketError, UnixSocket, serve_unix};
pub use tonic::service::Routes;
pub use tonic::transport::Channel;
pub use tonic::{Code, Status};

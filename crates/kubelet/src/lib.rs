//! The node agent: everything of wasklet that speaks with a Kubernetes API server and decides nothing about wasm.
//!
//! In come the API server's objects, manifests, and the runtime's answers over CRI. Out go a node, its pods' statuses,
//! their events, and the kubelet's HTTP API. Never here: Wasmtime, and a decision; those are made in [`decide`].
//!
//! | part | modules |
//! |---|---|
//! | what it is told | [`config`], [`flags`], [`api`], [`certificates`] |
//! | the way of a pod | [`sources`], [`dispatch`], [`worker`], [`effects`], [`hints`], [`status`], [`events`], [`tables`] |
//! | what a pod needs | [`objects`], [`volumes`], [`environment`], [`dns`], [`prober`] |
//! | what the node is | [`node`], [`image_gc`] |
//! | what it shows | [`server`], [`logs`], [`metrics`] |
//! | all of it at work | [`kubelet`] |

pub mod api;
pub mod certificates;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod dns;
pub mod effects;
pub mod environment;
pub mod events;
pub mod flags;
pub mod hints;
pub mod image_gc;
pub mod kubelet;
pub mod logs;
pub mod metrics;
pub mod mirrors;
pub mod node;
pub mod objects;
pub mod prober;
pub mod pulls;
pub mod server;
pub mod sources;
pub mod status;
pub mod tables;
pub mod volumes;
pub mod worker;

pub use kubelet::{Kubelet, Setup};

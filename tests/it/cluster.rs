//! On a real control plane: what a user of Kubernetes sees of a wasm node and its pods.

mod containers;
mod crash;
mod deletion;
mod environment;
mod examples;
mod hooks;
mod images;
mod kubelet_api;
mod network;
mod node;
mod preemption;
mod private_images;
mod probes;
mod refusal;
mod resize;
mod restarts;
mod silent;
mod spin;
mod split;
mod static_pods;
mod status;
mod volumes;
mod workloads;

//! The Node object: what this machine says of itself, and when it says it again.
//!
//! Comes in: the machine, the runtime's answer, the options, the previous status, and the time. Goes out: the object to
//! register ([`desired_node`]), the status to report ([`status`]), whether to report it ([`needs_report`]), the patch that
//! does ([`status_patch`]) and what is worth an Event ([`changes`]). Foreign conditions, labels and resources are left
//! as they are. Never here: reading the machine.

mod object;
mod status;
mod threshold;

use std::{collections::BTreeMap, net::IpAddr};

use crate::quantity::Amount;
use k8s_openapi::api::core::v1::Taint;

pub use self::{
    object::{desired_node, metadata_patch, own_labels},
    status::{changes, needs_report, status, status_patch},
    threshold::Threshold,
};

/// Everything a node's object is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// `metadata.name`.
    pub name: String,
    /// The label `kubernetes.io/hostname` and the address of type Hostname.
    pub hostname: String,
    /// Labels besides the node's own; one of the same name replaces it.
    pub labels: BTreeMap<String, String>,
    /// Taints of a new node; `None` is wasklet's own, an empty list none at all.
    pub taints: Option<Vec<Taint>>,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
    /// The node's addresses, the preferred one first.
    pub addresses: Vec<IpAddr>,
    /// Where the kubelet's HTTP API listens; `None` where it does not.
    pub kubelet_port: Option<u16>,
    /// `status.nodeInfo.kubeletVersion`, `v` and a semantic version.
    pub kubelet_version: String,
    /// What the machine has.
    pub machine: Machine,
    /// What the runtime answered last.
    pub runtime: Runtime,
    /// How many pods there may be, if the runtime has room for as many.
    pub max_pods: u32,
    /// How many images the status names; `None` is all.
    pub max_images: Option<usize>,
    /// What is kept from pods for the system and the kubelet.
    pub reserved: Reserved,
    /// What is kept from pods so that the node does not run dry.
    pub hard_eviction: HardEviction,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPUs this process may use.
    pub cpu_cores: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The file system of the kubelet's root directory, in bytes.
    pub ephemeral_storage_bytes: u64,
    /// Random, and the same for the machine's whole life.
    pub machine_id: String,
    /// The firmware's name of the machine.
    pub system_uuid: String,
    /// Another one after each boot.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// What the operating system calls itself.
    pub os_image: String,
}

/// What the runtime answered last.
#[derive(Debug, Clone, PartialEq)]
pub enum Runtime {
    /// Nothing, and why.
    Unreachable {
        /// For people.
        message: String,
    },
    /// Its version and state.
    Answered(RuntimeAnswer),
}

/// A runtime's version and state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeAnswer {
    /// Its name, as in `wasklet`.
    pub name: String,
    /// Its version, without the name.
    pub version: String,
    /// `RuntimeReady`, `NetworkReady` and others.
    pub conditions: Vec<RuntimeCondition>,
    /// What a pod's runtimeClass may choose from; the empty name is the default.
    pub handlers: Vec<String>,
    /// The images it has.
    pub images: Vec<Image>,
    /// How many pods fit into its process; `None` where it does not say.
    pub pods_at_most: Option<u32>,
}

/// One condition of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// As in `NetworkReady`.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// An image on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// References by digest and by tag.
    pub names: Vec<String>,
    /// In bytes.
    pub size_bytes: u64,
}

/// What is kept from pods for the system and the kubelet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved {
    /// In CPUs.
    pub cpu: Amount,
    /// In bytes.
    pub memory: Amount,
    /// In bytes.
    pub ephemeral_storage: Amount,
}

/// Below this the node runs dry; allocatable stays that much below the capacity.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HardEviction {
    /// Of the memory.
    pub memory_available: Threshold,
    /// Of the file system of the kubelet's root directory.
    pub nodefs_available: Threshold,
}

/// Something about the node that is worth an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

#[cfg(test)]
mod tests;

//! A pod as wasklet understands it: parsed once, every default filled in, nothing in it that is not supported.
//!
//! Comes in through [`crate::parse::parse`]. Read by everything that decides. Never changed after that.

mod container;
mod enforced;
mod env;
mod hook;
mod probe;
mod resources;
mod restart;
#[cfg(test)]
mod tests;
mod volume;

pub use container::{
    Container, Containers, Mount, Port, Protocol, PullPolicy, ResizePolicy, Role, SubPath, TerminationMessagePolicy,
};
pub use enforced::{CPU_PERIOD_MICROS, Enforced};
pub use env::{Bound, ConfigKind, EnvFrom, EnvValue, EnvVar, FieldPath, KeyRef, ResourceField, ResourceKind};
pub use hook::{Hook, Hooks};
pub use probe::{HttpGet, NoSuchPort, Probe, ProbeHandler, ProbeKind, Probes, Scheme, TargetPort};
pub use resources::Resources;
pub use restart::{ExitCodes, Restart, RestartAction, RestartPolicy, RestartRule};
pub use volume::{
    DownwardContent, DownwardFile, FileSource, FileVolume, HostPathKind, KeyToPath, Volume, VolumeSource,
};

use crate::allocation::PendingResize;
use crate::names::{ContainerName, PodName, PodUid};
use crate::time::Timestamp;
use k8s_openapi::api::core::v1 as api;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A pod as a source wants it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: PodUid,
    /// Namespace and name.
    pub name: PodName,
    /// `metadata.generation`; absent for pods of files.
    pub generation: Option<i64>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.creationTimestamp`.
    pub created_at: Option<Timestamp>,
    /// `spec.initContainers`, in order: containers that must end before others begin, and sidecars.
    pub init_containers: Vec<Container>,
    /// `spec.containers`, never empty: the main ones.
    pub containers: Containers,
    /// `spec.ephemeralContainers`.
    pub ephemeral_containers: Vec<Container>,
    /// `spec.volumes`.
    pub volumes: Vec<Volume>,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// Whether and how the API object is being deleted.
    pub deletion: Option<Deletion>,
    /// `spec.activeDeadlineSeconds`, counted from the pod's start time.
    pub active_deadline: Option<Duration>,
    /// `spec.nodeName`.
    pub node_name: Option<String>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `spec.affinity.nodeAffinity`, the part that must hold.
    pub node_affinity: Option<api::NodeSelector>,
    /// `spec.serviceAccountName`.
    pub service_account: Option<String>,
    /// Names of `spec.imagePullSecrets`.
    pub image_pull_secrets: Vec<String>,
    /// `spec.enableServiceLinks`, default true.
    pub enable_service_links: bool,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<String>,
    /// Condition types of `spec.readinessGates`.
    pub readiness_gates: Vec<String>,
    /// `spec.overhead`, added to the containers' requests at admission.
    pub overhead: Resources,
    /// Addresses, host names and resolver of the pod.
    pub network: Network,
    /// What the pod asks for and wasklet does without, to be said in Events when the pod is admitted.
    pub warnings: Vec<crate::report::Report>,
    /// Whether it comes from the node's own manifests. Only who knows its source can say: an annotation can be forged, so
    /// `parse` says no.
    pub is_static: bool,
    /// What the source wants of amounts and the node has not granted. The amounts in here, also those of the object, are
    /// the granted ones.
    pub pending_resize: Option<PendingResize>,
    /// The object as the source gave it, but for amounts that were not granted.
    pub api: Arc<api::Pod>,
}

/// The least priority of a critical pod: that of the class `system-cluster-critical`.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

impl Pod {
    /// `spec.priority`, which the API server fills in for each of its pods.
    #[must_use]
    pub fn priority(&self) -> Option<i32> {
        self.api.spec.as_ref().and_then(|spec| spec.priority)
    }

    /// Whether the node makes room for it by ending others: static pods, and those of the system's priority classes.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.is_static || self.priority().is_some_and(|priority| priority >= CRITICAL_PRIORITY)
    }

    /// Every container, whatever its role: those of `initContainers`, the main ones, the ephemeral ones.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers).chain(&self.ephemeral_containers)
    }

    /// The containers that live as long as the pod: the main ones and the sidecars.
    pub fn lasting_containers(&self) -> impl Iterator<Item = &Container> {
        self.all_containers().filter(|container| matches!(container.role, Role::Main | Role::Sidecar))
    }

    /// The container of that name, whatever its role.
    #[must_use]
    pub fn container(&self, name: &ContainerName) -> Option<&Container> {
        self.all_containers().find(|container| container.name == *name)
    }
}

/// Why a pod is not run: the pod's status carries both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `status.reason`; of a resource that is short, it ends with the resource's name.
    pub reason: Cow<'static, str>,
    /// The second half of `status.message`, after `Pod was rejected: `.
    pub message: String,
}

/// A deletion of the API object that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was asked for, by the API server's clock.
    pub requested_at: Timestamp,
    /// `metadata.deletionGracePeriodSeconds`.
    pub grace: Duration,
}

/// Addresses, host names and resolver of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `hostNetwork`: the node's own addresses.
    pub host_network: bool,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `hostnameOverride`.
    pub hostname_override: Option<String>,
    /// `subdomain`.
    pub subdomain: Option<String>,
    /// `setHostnameAsFQDN`.
    pub hostname_as_fqdn: bool,
    /// `hostAliases`: address and names.
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// `dnsPolicy`.
    pub dns_policy: DnsPolicy,
    /// `dnsConfig.nameservers`.
    pub nameservers: Vec<String>,
    /// `dnsConfig.searches`.
    pub searches: Vec<String>,
    /// `dnsConfig.options`: name and value.
    pub dns_options: Vec<(String, Option<String>)>,
}

/// `dnsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsPolicy {
    /// The cluster's resolver, but the node's for `hostNetwork` pods.
    #[default]
    ClusterFirst,
    /// The cluster's resolver, also with `hostNetwork`.
    ClusterFirstWithHostNet,
    /// The node's.
    Default,
    /// Only what `dnsConfig` says.
    None,
}

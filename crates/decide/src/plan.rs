//! What to do about a pod now: `next(pod, observed, now) -> Plan`.

use crate::names::{ContainerId, ContainerName, ImageId, SandboxId};
use crate::observed::Observed;
use crate::pod::Pod;
use crate::report::Report;
use crate::time::Timestamp;
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;
use std::time::Duration;

/// What to do about a pod, and how the pod stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to begin now, in this order. None of it waits for another of it.
    pub actions: Vec<Planned>,
    /// The pod's status as of now.
    pub status: api::PodStatus,
    /// When to ask again even if nothing happens: a back-off or a deadline ends then.
    pub wake_at: Option<Timestamp>,
    /// Where the pod is in its life.
    pub stage: Stage,
    /// Containers that do not run and why.
    pub waiting: BTreeMap<ContainerName, Waiting>,
}

/// One action of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What to do.
    pub action: Action,
    /// Why, for logs.
    pub why: String,
    /// What to say when it begins.
    pub announce: Option<Report>,
}

/// An effect on the node. Idempotent: doing it twice is doing it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's volumes and directories, with their content.
    PrepareVolumes,
    /// Run a sandbox.
    RunSandbox {
        /// Counts the pod's sandboxes.
        attempt: u32,
    },
    /// Stop a sandbox and whatever runs in it.
    StopSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Remove a stopped sandbox and its containers.
    RemoveSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Make sure, by the container's pull policy, that its image is on the node.
    PullImage {
        /// Whose image.
        container: ContainerName,
    },
    /// Create an instance.
    CreateContainer {
        /// Of which container.
        container: ContainerName,
        /// In which sandbox.
        sandbox: SandboxId,
        /// Counts the container's instances.
        attempt: u32,
        /// From which image.
        image: ImageId,
    },
    /// Start an instance.
    StartContainer {
        /// Of which container.
        container: ContainerName,
        /// Which.
        id: ContainerId,
    },
    /// Stop an instance. Planned again with a shorter grace while one is in flight, it takes that one's place: drop
    /// the earlier call and make this one.
    StopContainer {
        /// Of which container.
        container: ContainerName,
        /// Which.
        id: ContainerId,
        /// How long it may take to end by itself.
        grace: Duration,
        /// The same as a point in time.
        deadline: Timestamp,
    },
    /// Remove an ended instance.
    RemoveContainer {
        /// Of which container.
        container: ContainerName,
        /// Which.
        id: ContainerId,
    },
    /// Take the pod's volumes down. Its directory of logs and status stays.
    ReleaseVolumes,
}

/// What an action is about: at most one action of each task is in flight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// The container, or none for the pod as a whole.
    pub container: Option<ContainerName>,
    /// What is done to it.
    pub kind: TaskKind,
}

/// The kinds of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskKind {
    /// `PrepareVolumes`
    PrepareVolumes,
    /// `RunSandbox`
    RunSandbox,
    /// `StopSandbox`
    StopSandbox,
    /// `RemoveSandbox`
    RemoveSandbox,
    /// `PullImage`
    PullImage,
    /// `CreateContainer`
    CreateContainer,
    /// `StartContainer`
    StartContainer,
    /// `StopContainer`
    StopContainer,
    /// `RemoveContainer`
    RemoveContainer,
    /// `ReleaseVolumes`
    ReleaseVolumes,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not every container has run yet.
    Starting,
    /// Every container has run.
    Running,
    /// Its containers are being stopped.
    Terminating {
        /// When the last one is killed.
        deadline: Timestamp,
    },
    /// Its containers ended for good; their logs are still here.
    Ended(Phase),
    /// Nothing of it is left on this node: the API object may be deleted and the worker may end.
    Released,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Something is still to be started for the first time.
    Pending,
    /// Running, or about to be restarted.
    Running,
    /// Every container ended with 0, for good.
    Succeeded,
    /// Every container ended, for good, one at least not with 0; or the pod was rejected.
    Failed,
}

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `state.waiting.reason`.
    pub reason: &'static str,
    /// `state.waiting.message`.
    pub message: String,
    /// When the next try is due, if it waits for a time.
    pub until: Option<Timestamp>,
}

/// What to do about `pod` now, given what is known of it. Total: every input has a plan. Idempotent: once a plan was
/// accepted, asking again at the same time plans nothing more.
#[must_use]
pub fn next(_pod: &Pod, observed: &Observed, _now: Timestamp) -> Plan {
    Plan {
        actions: Vec::new(),
        status: observed.status.clone(),
        wake_at: None,
        stage: Stage::Starting,
        waiting: BTreeMap::new(),
    }
}

/// What to say because `next` follows `previous`: waiting reasons entered (`BackOff`, `Failed`). Actions announce
/// themselves (`Planned::announce`), outcomes are reported by `Observed::apply`.
#[must_use]
pub fn announcements(_previous: Option<&Plan>, _next: &Plan) -> Vec<Report> {
    Vec::new()
}

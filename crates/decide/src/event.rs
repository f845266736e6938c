//! Everything that can happen to a pod: one closed enum, the only input of a pod's worker.

use crate::names::{ContainerId, ContainerName, ImageId, SandboxId};
use crate::observed::{Exit, Instance, Sandbox};
use crate::plan::Phase;
use crate::pod::{Enforced, Pod, ProbeKind, Rejection};
use crate::time::Timestamp;
use k8s_openapi::api::core::v1 as api;
use std::sync::Arc;
use std::time::Duration;

/// What can happen to a pod.
#[derive(Clone, Debug)]
pub enum Event {
    /// A source wants the pod as this says, perhaps for the first time, perhaps deleted (`Pod::deletion`).
    Desired(Arc<Pod>),
    /// No source knows the pod any more: the file is gone, or the API object was deleted by force.
    Removed,
    /// The node's admission has decided (see `admission`).
    Admission(Result<(), Rejection>),
    /// The node ends the pod before its time.
    Evicted(Eviction),
    /// A full list of what the runtime holds for this pod.
    Runtime(RuntimeView),
    /// An action has ended.
    Done(Outcome),
    /// A ConfigMap, Secret or Service that the pod refers to has changed: what failed for want of it is tried at once.
    ReferencesChanged,
    /// Time has passed (`Plan::wake_at`).
    Tick,
}

/// Why the node ends a pod before its time: the pod is Failed for it once nothing of it runs, and the condition
/// `DisruptionTarget` says so from the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// `status.reason`, and the reason of the Event.
    pub reason: &'static str,
    /// `status.message`, and the message of the Event.
    pub message: &'static str,
    /// The message of the condition.
    pub condition: &'static str,
}

impl Eviction {
    /// A critical pod needs the room.
    pub const PREEMPTED: Eviction = Eviction {
        reason: "Preempting",
        message: "Preempted in order to admit critical pod",
        condition: "Pod was preempted by Kubelet to accommodate a critical pod.",
    };

    /// The one that a published status tells of, if it was begun and not carried through.
    pub(crate) fn remembered(status: &api::PodStatus) -> Option<Self> {
        let begun = |one: &&api::PodCondition| is_disruption(one) && one.status == "True";
        let condition = status.conditions.iter().flatten().find(begun)?;
        let known =
            [Eviction::PREEMPTED].into_iter().find(|known| condition.message.as_deref() == Some(known.condition));
        known.filter(|_| Phase::terminal(status).is_none())
    }
}

/// The type of the condition of a pod that is ended before its time, which others may write, too…
pub(crate) const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// …and its reason where the node does.
pub(crate) const TERMINATION_BY_KUBELET: &str = "TerminationByKubelet";

/// Whether the condition is this node's word on an eviction of its own.
pub(crate) fn is_disruption(condition: &api::PodCondition) -> bool {
    condition.type_ == DISRUPTION_TARGET && condition.reason.as_deref() == Some(TERMINATION_BY_KUBELET)
}

/// What the runtime holds for one pod: all of it, at one point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeView {
    /// When the listing **began**. A view that is not younger than the last outcome applied may lack what that
    /// outcome did, so it is dropped; list again.
    pub as_of: Timestamp,
    /// Every sandbox of the pod.
    pub sandboxes: Vec<Sandbox>,
    /// Every container instance of the pod.
    pub containers: Vec<(ContainerName, Instance)>,
}

/// How an action ended. Exactly one for each action that was begun, unless a newer one replaced it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of `PrepareVolumes`.
    VolumesPrepared(Result<(), Failure>),
    /// Of `ReleaseVolumes`.
    VolumesReleased(Result<(), Failure>),
    /// Of `RunSandbox`.
    SandboxRun(Result<Sandbox, Failure>),
    /// Of `StopSandbox`. A sandbox the runtime does not know counts as stopped.
    SandboxStopped {
        /// The action's sandbox.
        id: SandboxId,
        /// Whether it worked.
        result: Result<(), Failure>,
    },
    /// Of `RemoveSandbox`. A sandbox the runtime does not know counts as removed.
    SandboxRemoved {
        /// The action's sandbox.
        id: SandboxId,
        /// Whether it worked.
        result: Result<(), Failure>,
    },
    /// Of `PullImage`.
    ImagePulled {
        /// The action's container.
        container: ContainerName,
        /// The image that is now on the node.
        result: Result<Image, Failure>,
    },
    /// Of `CreateContainer`.
    ContainerCreated {
        /// The action's container.
        container: ContainerName,
        /// The action's attempt.
        attempt: u32,
        /// The new instance, in state `Created`.
        result: Result<Box<Instance>, Failure>,
    },
    /// Of `StartContainer`.
    ContainerStarted {
        /// The action's container.
        container: ContainerName,
        /// The action's instance.
        id: ContainerId,
        /// When it started.
        result: Result<Timestamp, Failure>,
    },
    /// Of `RunPostStart`.
    PostStartRun {
        /// The action's container.
        container: ContainerName,
        /// The action's instance.
        id: ContainerId,
        /// Whether the hook succeeded.
        result: Result<(), Failure>,
    },
    /// Of `RunPreStop`. A hook whose time is over has not failed.
    PreStopRun {
        /// The action's container.
        container: ContainerName,
        /// The action's instance.
        id: ContainerId,
        /// Whether the hook succeeded.
        result: Result<(), Failure>,
    },
    /// Of `UpdateResources`.
    ResourcesUpdated {
        /// The action's container.
        container: ContainerName,
        /// The action's instance.
        id: ContainerId,
        /// The action's amounts.
        resources: Enforced,
        /// Whether they are in force.
        result: Result<(), Failure>,
    },
    /// Of `StopContainer`. For an instance the runtime does not know, [`crate::observed::Exit::lost`].
    ContainerStopped {
        /// The action's container.
        container: ContainerName,
        /// The action's instance.
        id: ContainerId,
        /// How it ended (ask for its status after the stop).
        result: Result<Exit, Failure>,
    },
    /// Of `Probe`.
    Probed {
        /// The action's container.
        container: ContainerName,
        /// The action's instance.
        id: ContainerId,
        /// The action's kind.
        kind: ProbeKind,
        /// What the probe told.
        result: ProbeResult,
    },
    /// Of `RemoveContainer`. An instance the runtime does not know counts as removed.
    ContainerRemoved {
        /// The action's container.
        container: ContainerName,
        /// The action's instance.
        id: ContainerId,
        /// Whether it worked.
        result: Result<(), Failure>,
    },
}

/// What a probe told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Yes.
    Success,
    /// Yes, but somebody should look: the words say why.
    Warning(String),
    /// No: the words say why.
    Failure(String),
    /// Nothing about the container: the probe itself did not work. It counts as if it had not been.
    Errored {
        /// The kubelet's word for what came of it, `unknown` or `failure`.
        state: &'static str,
        /// Why.
        message: String,
    },
}

/// An image on the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// As the spec, and so the action, names it.
    pub name: String,
    /// The runtime's id; `CreateContainer` names the image by it.
    pub id: ImageId,
    /// The `imageID` of the container status: repository and digest where known, else the id.
    pub reference: String,
    /// How it came here.
    pub origin: ImageOrigin,
}

/// How an image came to be on the node.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageOrigin {
    /// It was there.
    Present,
    /// It was pulled now.
    Pulled {
        /// Time from first byte to last.
        took: Duration,
        /// The same with the time spent in the queue.
        waited: Duration,
        /// Its size.
        bytes: u64,
    },
}

/// Why an action failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The waiting reason a container shows for it, for instance `ErrImagePull` or `CreateContainerConfigError`.
    pub reason: &'static str,
    /// What went wrong, with object and step.
    pub message: String,
}

impl Failure {
    /// A failure with its Kubernetes reason.
    #[must_use]
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Failure { reason, message: message.into() }
    }
}

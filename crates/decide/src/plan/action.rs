//! Effects as values: what a plan asks for, and the task each of them is about.

use crate::event::{Failure, Outcome, ProbeResult};
use crate::names::{ContainerId, ContainerName, ImageId, SandboxId};
use crate::pod::{Enforced, ProbeKind};
use crate::report::Report;
use crate::time::Timestamp;
use std::time::Duration;

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
        /// The image, as the spec writes it.
        image: String,
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
    /// Run the `postStart` hook of an instance that has started.
    RunPostStart {
        /// Of which container.
        container: ContainerName,
        /// Which.
        id: ContainerId,
    },
    /// Run the `preStop` hook of an instance that is to be stopped.
    RunPreStop {
        /// Of which container.
        container: ContainerName,
        /// Which.
        id: ContainerId,
        /// How long the hook may take: the whole grace period.
        grace: Duration,
        /// The same as a point in time: when the instance must be gone.
        deadline: Timestamp,
    },
    /// Hold an instance to other amounts while it lives.
    UpdateResources {
        /// Of which container.
        container: ContainerName,
        /// Which.
        id: ContainerId,
        /// All that it is to be held to from now on.
        resources: Enforced,
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
    /// Ask a running instance by one of its container's probes.
    Probe {
        /// Of which container.
        container: ContainerName,
        /// Which.
        id: ContainerId,
        /// By which probe.
        kind: ProbeKind,
        /// When this was planned: the period counts from then.
        at: Timestamp,
        /// Whether it comes before its time, in the hope that the container is quick: a failure is none then.
        early: bool,
    },
    /// Remove an ended instance.
    RemoveContainer {
        /// Of which container.
        container: ContainerName,
        /// Which.
        id: ContainerId,
        /// Whether its log stays, until the pod goes.
        keep_log: bool,
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
    /// `RunPostStart`
    RunPostStart,
    /// `RunPreStop`
    RunPreStop,
    /// `UpdateResources`
    UpdateResources,
    /// `StopContainer`
    StopContainer,
    /// `Probe`
    Probe(ProbeKind),
    /// `RemoveContainer`
    RemoveContainer,
    /// `ReleaseVolumes`
    ReleaseVolumes,
}

impl Action {
    /// What the action is about.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Action::PrepareVolumes => Task::of_pod(TaskKind::PrepareVolumes),
            Action::RunSandbox { .. } => Task::of_pod(TaskKind::RunSandbox),
            Action::StopSandbox { .. } => Task::of_pod(TaskKind::StopSandbox),
            Action::RemoveSandbox { .. } => Task::of_pod(TaskKind::RemoveSandbox),
            Action::ReleaseVolumes => Task::of_pod(TaskKind::ReleaseVolumes),
            Action::PullImage { container, .. } => Task::of(container, TaskKind::PullImage),
            Action::CreateContainer { container, .. } => Task::of(container, TaskKind::CreateContainer),
            Action::StartContainer { container, .. } => Task::of(container, TaskKind::StartContainer),
            Action::RunPostStart { container, .. } => Task::of(container, TaskKind::RunPostStart),
            Action::RunPreStop { container, .. } => Task::of(container, TaskKind::RunPreStop),
            Action::UpdateResources { container, .. } => Task::of(container, TaskKind::UpdateResources),
            Action::StopContainer { container, .. } => Task::of(container, TaskKind::StopContainer),
            Action::Probe { container, kind, .. } => Task::of(container, TaskKind::Probe(*kind)),
            Action::RemoveContainer { container, .. } => Task::of(container, TaskKind::RemoveContainer),
        }
    }
}

impl Action {
    /// Whether an action that is under way is dropped when this one begins: an instance that is stopped, or over, has no
    /// use for its hooks.
    #[must_use]
    pub fn displaces(&self, under_way: &Action) -> bool {
        let (Action::RunPostStart { container, id } | Action::RunPreStop { container, id, .. }) = under_way else {
            return false;
        };
        match self {
            Action::StopContainer { id: over, .. } | Action::RemoveContainer { id: over, .. } => over == id,
            Action::CreateContainer { container: anew, .. } => anew == container,
            _ => false,
        }
    }
}

impl Outcome {
    /// The outcome of an action whose effect broke, so that none is ever left without one.
    #[must_use]
    pub fn lost(action: Action, message: impl Into<String>) -> Self {
        let message = message.into();
        let failed = |reason| Failure { reason, message: message.clone() };
        match action {
            Action::PrepareVolumes => Outcome::VolumesPrepared(Err(failed("FailedMount"))),
            Action::ReleaseVolumes => Outcome::VolumesReleased(Err(failed("FailedUnMount"))),
            Action::RunSandbox { .. } => Outcome::SandboxRun(Err(failed("CreatePodSandboxError"))),
            Action::StopSandbox { id } => Outcome::SandboxStopped { id, result: Err(failed("KillPodSandboxError")) },
            Action::RemoveSandbox { id } => Outcome::SandboxRemoved { id, result: Err(failed("KillPodSandboxError")) },
            Action::PullImage { container, .. } => {
                Outcome::ImagePulled { container, result: Err(failed("ErrImagePull")) }
            }
            Action::CreateContainer { container, attempt, .. } => {
                Outcome::ContainerCreated { container, attempt, result: Err(failed("CreateContainerError")) }
            }
            Action::StartContainer { container, id } => {
                Outcome::ContainerStarted { container, id, result: Err(failed("RunContainerError")) }
            }
            Action::RunPostStart { container, id } => {
                Outcome::PostStartRun { container, id, result: Err(failed("PostStartHookError")) }
            }
            Action::RunPreStop { container, id, .. } => {
                Outcome::PreStopRun { container, id, result: Err(failed("PreStopHookError")) }
            }
            Action::UpdateResources { container, id, resources } => {
                Outcome::ResourcesUpdated { container, id, resources, result: Err(failed("ResizeError")) }
            }
            Action::StopContainer { container, id, .. } => {
                Outcome::ContainerStopped { container, id, result: Err(failed("KillContainerError")) }
            }
            Action::Probe { container, id, kind, .. } => {
                let result = ProbeResult::Errored { state: "unknown", message };
                Outcome::Probed { container, id, kind, result }
            }
            Action::RemoveContainer { container, id, .. } => {
                Outcome::ContainerRemoved { container, id, result: Err(failed("KillContainerError")) }
            }
        }
    }

    /// The task of the action that ended so.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Outcome::VolumesPrepared(_) => Task::of_pod(TaskKind::PrepareVolumes),
            Outcome::VolumesReleased(_) => Task::of_pod(TaskKind::ReleaseVolumes),
            Outcome::SandboxRun(_) => Task::of_pod(TaskKind::RunSandbox),
            Outcome::SandboxStopped { .. } => Task::of_pod(TaskKind::StopSandbox),
            Outcome::SandboxRemoved { .. } => Task::of_pod(TaskKind::RemoveSandbox),
            Outcome::ImagePulled { container, .. } => Task::of(container, TaskKind::PullImage),
            Outcome::ContainerCreated { container, .. } => Task::of(container, TaskKind::CreateContainer),
            Outcome::ContainerStarted { container, .. } => Task::of(container, TaskKind::StartContainer),
            Outcome::PostStartRun { container, .. } => Task::of(container, TaskKind::RunPostStart),
            Outcome::PreStopRun { container, .. } => Task::of(container, TaskKind::RunPreStop),
            Outcome::ResourcesUpdated { container, .. } => Task::of(container, TaskKind::UpdateResources),
            Outcome::ContainerStopped { container, .. } => Task::of(container, TaskKind::StopContainer),
            Outcome::Probed { container, kind, .. } => Task::of(container, TaskKind::Probe(*kind)),
            Outcome::ContainerRemoved { container, .. } => Task::of(container, TaskKind::RemoveContainer),
        }
    }
}

impl Task {
    fn of_pod(kind: TaskKind) -> Self {
        Task { container: None, kind }
    }

    pub(crate) fn of(container: &ContainerName, kind: TaskKind) -> Self {
        Task { container: Some(container.clone()), kind }
    }
}

#[cfg(test)]
mod tests {
    use super::Action;
    use crate::names::ContainerName;

    #[test]
    fn only_an_end_of_its_own_instance_or_a_new_one_displaces_a_hook() {
        let (container, name) = (ContainerName::from("c"), |id: &str| id.into());
        let hook = Action::RunPostStart { container: container.clone(), id: name("c-2") };
        let removal =
            |id: &str| Action::RemoveContainer { container: container.clone(), id: name(id), keep_log: false };
        assert!(removal("c-2").displaces(&hook));
        assert!(!removal("c-0").displaces(&hook), "the rest of an earlier instance is nothing to it");
        let anew = |container: &str| Action::CreateContainer {
            container: container.into(),
            sandbox: "s".into(),
            attempt: 3,
            image: "i".into(),
        };
        assert!(anew("c").displaces(&hook) && !anew("d").displaces(&hook));
        assert!(!removal("c-2").displaces(&removal("c-2")), "only hooks are displaced");
    }
}

//! What the way of a pod adds to the numbers.

use std::time::Duration;

use decide::event::Outcome;
use decide::names::ContainerName;
use decide::plan::{Action, Plan, Stage};
use decide::pod::{Pod, Role};

use super::{ContainerKind, Metrics};

impl Metrics {
    /// An effect begins.
    pub(crate) fn begun(&self, pod: &Pod, action: &Action) {
        match action {
            Action::RunSandbox { .. } => self.pod_starting(),
            Action::StartContainer { container, .. } => self.container_starting(kind(pod, container)),
            _ => {}
        }
    }

    /// An effect has ended.
    pub(crate) fn ended(&self, pod: &Pod, outcome: &Outcome) {
        let (container, failure) = match outcome {
            Outcome::ImagePulled { container, result } => (container, result.as_ref().err()),
            Outcome::ContainerCreated { container, result, .. } => (container, result.as_ref().err()),
            Outcome::ContainerStarted { container, result, .. } => (container, result.as_ref().err()),
            _ => return,
        };
        if let Some(failure) = failure {
            self.container_start_failed(kind(pod, container), failure.reason);
        }
    }

    /// A pod's worker has made one step of its course, from `previous` to `plan`, in `took`; the pod was first seen
    /// `seen_for` ago.
    pub(crate) fn stepped(&self, previous: Option<&Plan>, plan: &Plan, took: Duration, seen_for: Duration) {
        let operation = match (previous, plan.stage) {
            (None, _) => "create",
            (_, Stage::Terminating { .. } | Stage::Released) => "terminating",
            _ => "sync",
        };
        self.pod_worker(operation, took);
        let was_starting = previous.is_some_and(|previous| previous.stage == Stage::Starting);
        if was_starting && plan.stage == Stage::Running {
            self.pod_started(seen_for);
        }
    }
}

/// The list of `pod` that `container` stands in.
fn kind(pod: &Pod, container: &ContainerName) -> ContainerKind {
    match pod.container(container).map(|container| container.role) {
        Some(Role::Init | Role::Sidecar) => ContainerKind::Init,
        Some(Role::Ephemeral) => ContainerKind::Ephemeral,
        Some(Role::Main) | None => ContainerKind::Container,
    }
}

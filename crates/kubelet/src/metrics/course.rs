//! What the way of a pod adds to the numbers.

use std::time::Duration;

use decide::event::Outcome;
use decide::plan::{Action, Plan, Stage};

use super::{ContainerKind, Metrics};

impl Metrics {
    /// An effect begins.
    pub(crate) fn begun(&self, action: &Action) {
        match action {
            Action::RunSandbox { .. } => self.pod_starting(),
            Action::StartContainer { .. } => self.container_starting(ContainerKind::Container),
            _ => {}
        }
    }

    /// An effect has ended.
    pub(crate) fn ended(&self, outcome: &Outcome) {
        let failure = match outcome {
            Outcome::ImagePulled { result, .. } => result.as_ref().err(),
            Outcome::ContainerCreated { result, .. } => result.as_ref().err(),
            Outcome::ContainerStarted { result, .. } => result.as_ref().err(),
            _ => None,
        };
        if let Some(failure) = failure {
            self.container_start_failed(ContainerKind::Container, failure.reason);
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

//! Events into [`Observed`]: what happened becomes what is known. Nothing is decided here.

use super::hook::pre_stop_run;
use super::{Admission, ContainerObserved, Ending, EndingCause, Exit, Instance, InstanceState, Observed, Setback};
use super::{SandboxState, VolumeState};
use crate::backoff::{Edition, Streak, effect_again, pull_again};
use crate::event::{Event, Eviction, Failure, Image, ImageOrigin, Outcome, RuntimeView};
use crate::names::{ContainerId, ContainerName};
use crate::plan::{Action, Phase, Task, TaskKind};
use crate::pod::{Enforced, Pod, Rejection};
use crate::report::{Report, image_present, pull_failed, pulled};
use crate::time::{Timestamp, after};
use std::time::Duration;

/// The shortest grace any stop gets (the kubelet's `minimumGracePeriodInSeconds`).
pub(crate) const SHORTEST_GRACE: Duration = Duration::from_secs(2);
/// The shortest grace a deletion has (the kubelet counts 0 as 1); it may leave a hook less time than the stop gets.
const SHORTEST_DELETION: Duration = Duration::from_secs(1);
/// Instances that only the status remembers: the newest and the one before it.
const REMEMBERED: usize = 2;

/// Reasons of Events about failed actions, and what stands before the failure's own words.
const MOUNT_FAILED: (&str, &str) = ("FailedMount", "");
const UNMOUNT_FAILED: (&str, &str) = ("FailedUnMount", "");
const SANDBOX_FAILED: (&str, &str) = ("FailedCreatePodSandBox", "Failed to create pod sandbox: ");
const CONTAINER_FAILED: (&str, &str) = ("Failed", "Error: ");
const KILL_FAILED: (&str, &str) = ("FailedKillPod", "error killing pod: ");

impl Observed {
    /// Folds in what happened to `pod` at `now`. Returns what to say about it.
    pub fn apply(&mut self, pod: &Pod, event: Event, now: Timestamp) -> Vec<Report> {
        let mut reports = self.fold(pod, event, now);
        self.forget_what_went(pod);
        reports.extend(self.resized(pod));
        reports
    }

    fn fold(&mut self, pod: &Pod, event: Event, now: Timestamp) -> Vec<Report> {
        match event {
            Event::Desired(pod) => self.desired(&pod, now),
            Event::Removed => {
                self.end(pod, EndingCause::Removed, now);
                Vec::new()
            }
            Event::Admission(verdict) => self.admitted(verdict),
            Event::Evicted(eviction) => self.evicted(eviction),
            Event::Runtime(view) => {
                self.listed(view, now);
                Vec::new()
            }
            Event::Done(outcome) => self.done(pod, outcome, now),
            Event::ReferencesChanged => {
                self.retry_what_wants_references(now);
                Vec::new()
            }
            Event::Tick => Vec::new(),
        }
    }

    fn desired(&mut self, pod: &Pod, now: Timestamp) -> Vec<Report> {
        if pod.deletion.is_some() {
            self.end(pod, EndingCause::Deleted, now);
        }
        self.failures.retain(|task, setback| {
            let container = task.container.as_ref().and_then(|name| pod.container(name));
            setback.image.as_ref().is_none_or(|image| container.is_some_and(|container| container.image == *image))
        });
        let mut reports = self.resize.desired(pod);
        let fresh: Vec<Report> = pod.warnings.iter().filter(|one| !self.warned.contains(one)).cloned().collect();
        self.warned.extend(fresh.iter().cloned());
        reports.extend(fresh);
        reports
    }

    /// The pod is going. Hearing it again can only bring the deadline nearer.
    fn end(&mut self, pod: &Pod, cause: EndingCause, now: Timestamp) {
        let grace = pod.deletion.map_or(pod.grace, |deletion| deletion.grace);
        let deadline = after(now, grace.max(SHORTEST_DELETION));
        let ending = self.ending.get_or_insert(Ending { cause, since: now, deadline });
        ending.deadline = ending.deadline.min(deadline);
        if cause == EndingCause::Removed {
            ending.cause = cause;
        }
    }

    fn admitted(&mut self, verdict: Result<(), Rejection>) -> Vec<Report> {
        match verdict {
            Ok(()) => {
                self.admission = Admission::Admitted;
                Vec::new()
            }
            Err(rejection) => {
                let report = Report::warning(rejection.reason.clone(), rejection.message.clone());
                self.admission = Admission::Rejected(rejection);
                vec![report]
            }
        }
    }

    /// What has ended cannot be ended, and what is evicted is not once more.
    fn evicted(&mut self, eviction: Eviction) -> Vec<Report> {
        if self.evicted.is_some() || Phase::terminal(&self.status).is_some() {
            return Vec::new();
        }
        let report = Report::warning(eviction.reason, eviction.message);
        self.evicted = Some(eviction);
        vec![report]
    }

    fn listed(&mut self, view: RuntimeView, now: Timestamp) {
        let outcome_is_newer = self.settled_at.is_some_and(|at| view.as_of <= at);
        let view_is_newer = self.listed_at.is_some_and(|at| view.as_of < at);
        if outcome_is_newer || view_is_newer {
            return;
        }
        self.synced = true;
        self.listed_at = Some(view.as_of);
        self.sandboxes = view.sandboxes;
        self.sandboxes.sort_by_key(|sandbox| (sandbox.attempt, sandbox.created_at));
        for container in self.containers.values_mut() {
            for instance in &mut container.instances {
                instance.held = false;
            }
        }
        for (name, instance) in view.containers {
            self.containers.entry(name).or_default().see(instance);
        }
        for container in self.containers.values_mut() {
            container.settle(now);
        }
    }

    fn retry_what_wants_references(&mut self, now: Timestamp) {
        for (task, setback) in &mut self.failures {
            if matches!(task.kind, TaskKind::PrepareVolumes | TaskKind::CreateContainer) {
                setback.retry_at = setback.retry_at.min(now);
            }
        }
    }

    fn done(&mut self, pod: &Pod, outcome: Outcome, now: Timestamp) -> Vec<Report> {
        let task = outcome.task();
        let action = self.in_flight.remove(&task);
        if let Outcome::Probed { container, id, kind, result } = outcome {
            // It did nothing to what the runtime holds: no listing is outdated by it.
            return self.probed(pod, (&container, &id, kind), action.as_ref(), result, now);
        }
        self.settled_at = Some(now);
        match outcome {
            Outcome::Probed { .. } => Vec::new(),
            Outcome::VolumesPrepared(result) => self.settle(pod, task, result, MOUNT_FAILED, now, |known, ()| {
                known.volumes = VolumeState::Prepared;
                Vec::new()
            }),
            Outcome::VolumesReleased(result) => self.settle(pod, task, result, UNMOUNT_FAILED, now, |known, ()| {
                known.volumes = VolumeState::Released;
                Vec::new()
            }),
            Outcome::SandboxRun(result) => self.settle(pod, task, result, SANDBOX_FAILED, now, |known, sandbox| {
                known.sandboxes.retain(|other| other.id != sandbox.id);
                known.sandboxes.push(sandbox);
                known.sandboxes.sort_by_key(|sandbox| (sandbox.attempt, sandbox.created_at));
                Vec::new()
            }),
            Outcome::SandboxStopped { id, result } => self.settle(pod, task, result, KILL_FAILED, now, |known, ()| {
                for sandbox in known.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
                    sandbox.state = SandboxState::NotReady;
                }
                Vec::new()
            }),
            Outcome::SandboxRemoved { id, result } => self.settle(pod, task, result, KILL_FAILED, now, |known, ()| {
                known.sandboxes.retain(|sandbox| sandbox.id != id);
                Vec::new()
            }),
            Outcome::ImagePulled { result, .. } => self.image_pulled(pod, task, action, result, now),
            Outcome::ContainerCreated { container, result, .. } => {
                self.settle(pod, task, result, CONTAINER_FAILED, now, |known, instance| {
                    known.created(pod, &container, *instance)
                })
            }
            Outcome::ContainerStarted { id, result, .. } => self.started(pod, task, &id, result, now),
            Outcome::PostStartRun { container, id, result } => self.post_start_run(&container, &id, result, now),
            Outcome::PreStopRun { container, result, .. } => pre_stop_run(&container, &result),
            Outcome::ResourcesUpdated { container, id, resources, result } => {
                self.updated(pod, task, (&container, &id), resources, result, now)
            }
            Outcome::ContainerStopped { container, id, result } => {
                let owes_restart = self.was_stopped_for_a_resize(pod, &container);
                self.settle(pod, task, result, KILL_FAILED, now, |known, exit| {
                    known.containers.entry(container.clone()).or_default().owes_restart |= owes_restart;
                    known.containers.entry(container).or_default().exited(&id, exit);
                    Vec::new()
                })
            }
            Outcome::ContainerRemoved { container, id, result } => {
                self.settle(pod, task, result, KILL_FAILED, now, |known, ()| {
                    known.containers.entry(container).or_default().removed(&id, now);
                    Vec::new()
                })
            }
        }
    }

    /// Success: `take` it, and the task has no setback any more. Failure: the task has one more, reported as `reason`.
    fn settle<T>(
        &mut self,
        pod: &Pod,
        task: Task,
        result: Result<T, Failure>,
        (reason, prefix): (&'static str, &'static str),
        now: Timestamp,
        take: impl FnOnce(&mut Self, T) -> Vec<Report>,
    ) -> Vec<Report> {
        match result {
            Ok(gained) => {
                self.failures.remove(&task);
                take(self, gained)
            }
            Err(failure) => {
                let container = task.container.clone();
                let report = Report { container, ..Report::warning(reason, format!("{prefix}{}", failure.message)) };
                self.set_back(pod, task, failure, now);
                vec![report]
            }
        }
    }

    fn set_back(&mut self, pod: &Pod, task: Task, failure: Failure, now: Timestamp) {
        let attempts = self.failures.get(&task).map_or(0, |setback| setback.attempts).saturating_add(1);
        let spread = format!("{}{}", pod.uid, task.container.as_ref().map_or("", ContainerName::as_str));
        let retry_at = match task.kind {
            TaskKind::PullImage => pull_again(attempts, now, &spread),
            _ => effect_again(attempts, now, &spread),
        };
        self.failures.insert(task, Setback { failure, image: None, attempts, at: now, retry_at });
    }

    fn image_pulled(
        &mut self,
        pod: &Pod,
        task: Task,
        action: Option<Action>,
        result: Result<Image, Failure>,
        now: Timestamp,
    ) -> Vec<Report> {
        let Some(container) = &task.container.clone() else {
            return Vec::new();
        };
        match result {
            Ok(image) => {
                self.failures.remove(&task);
                let report = match image.origin {
                    ImageOrigin::Present => image_present(&image.name, container),
                    ImageOrigin::Pulled { took, waited, bytes } => pulled(&image.name, took, waited, bytes, container),
                };
                self.containers.entry(container.clone()).or_default().image = Some(image);
                vec![report]
            }
            Err(failure) => {
                let name = match action {
                    Some(Action::PullImage { image, .. }) => image,
                    _ => String::new(),
                };
                let reports = vec![
                    pull_failed(&name, &failure, container),
                    Report::warning("Failed", format!("Error: {}", failure.reason)).of(container),
                ];
                // A pull of an image that the pod has no more use for holds nothing up.
                if pod.container(container).is_some_and(|container| container.image == name) {
                    self.set_back(pod, task.clone(), failure, now);
                    self.failures.entry(task).and_modify(|setback| setback.image = Some(name));
                }
                reports
            }
        }
    }

    fn created(&mut self, pod: &Pod, name: &ContainerName, instance: Instance) -> Vec<Report> {
        self.failures.remove(&Task { container: Some(name.clone()), kind: TaskKind::StartContainer });
        let container = self.containers.entry(name.clone()).or_default();
        if let Some(edition) = pod.container(name).map(Edition::of) {
            container.streak = match container.instances.iter().rev().find_map(Instance::exit) {
                Some(exit) => container.streak.restarted(edition, exit.started_at, exit.finished_at),
                None => Streak { of: Some(edition), restarts: 0 },
            };
        }
        container.image = None;
        container.owes_restart = false;
        container.see(instance);
        vec![Report::normal("Created", "Container created").of(name)]
    }

    fn updated(
        &mut self,
        pod: &Pod,
        task: Task,
        (name, id): (&ContainerName, &ContainerId),
        resources: Enforced,
        result: Result<(), Failure>,
        now: Timestamp,
    ) -> Vec<Report> {
        match result {
            Ok(()) => {
                self.failures.remove(&task);
                let known = self.containers.entry(name.clone()).or_default();
                for instance in known.instances.iter_mut().filter(|instance| instance.id == *id) {
                    instance.enforced = Some(resources);
                }
                Vec::new()
            }
            Err(failure) => {
                let report = self.resize_failed(pod, name, &failure.message);
                self.set_back(pod, task, failure, now);
                report.into_iter().collect()
            }
        }
    }

    fn started(
        &mut self,
        pod: &Pod,
        task: Task,
        id: &ContainerId,
        result: Result<Timestamp, Failure>,
        now: Timestamp,
    ) -> Vec<Report> {
        let Some(name) = &task.container.clone() else {
            return Vec::new();
        };
        let container = self.containers.entry(name.clone()).or_default();
        match result {
            Ok(started_at) => {
                container.running(id, started_at);
                self.failures.remove(&task);
                vec![Report::normal("Started", "Container started").of(name)]
            }
            Err(failure) => {
                container.exited(id, Exit::start_error(failure.message.clone(), now));
                let report = Report::warning("Failed", format!("Error: {}", failure.message)).of(name);
                self.set_back(pod, task, failure, now);
                vec![report]
            }
        }
    }
}

impl ContainerObserved {
    /// The runtime holds `instance`. What has ended stays ended, whatever the runtime says afterwards; only a start whose
    /// answer was lost turns out to have worked. The words of an end stay, too: what they were read from goes with the
    /// pod's volumes.
    fn see(&mut self, instance: Instance) {
        let instance = Instance { held: true, ..instance };
        let runs = matches!(instance.state, InstanceState::Running { .. });
        let stays = |known: &Exit| match instance.exit() {
            None => !(runs && known.is_start_error()),
            Some(told) => known.is_of_same_end(told) && !known.message.is_empty(),
        };
        match self.instances.iter_mut().find(|known| known.id == instance.id) {
            Some(known) => {
                let state = if known.exit().is_some_and(stays) { known.state.clone() } else { instance.state.clone() };
                // No runtime knows of hooks.
                let (post_start, pre_stop) = (known.post_start.clone(), known.pre_stop);
                *known = Instance { state, post_start, pre_stop, ..instance };
            }
            None => self.instances.push(instance),
        }
        self.instances.sort_by_key(|instance| instance.attempt);
    }

    /// The listing is complete: what ran and is not held any more was lost; what never ran is forgotten.
    fn settle(&mut self, now: Timestamp) {
        self.instances.retain(|instance| instance.held || !matches!(instance.state, InstanceState::Created));
        for instance in self.instances.iter_mut().filter(|instance| !instance.held) {
            match instance.state {
                InstanceState::Running { started_at } => {
                    instance.state = InstanceState::Exited(Exit::lost(Some(started_at), now));
                }
                InstanceState::Unknown => instance.state = InstanceState::Exited(Exit::lost(None, now)),
                InstanceState::Created | InstanceState::Exited(_) => {}
            }
        }
        self.forget_the_oldest();
    }

    fn forget_the_oldest(&mut self) {
        let newest = self.instances.len().saturating_sub(REMEMBERED);
        let mut position = 0;
        self.instances.retain(|instance| {
            position += 1;
            instance.held || position > newest
        });
    }

    fn running(&mut self, id: &ContainerId, started_at: Timestamp) {
        for instance in self.instances.iter_mut().filter(|instance| instance.id == *id) {
            if matches!(instance.state, InstanceState::Created | InstanceState::Unknown) {
                instance.state = InstanceState::Running { started_at };
            }
        }
    }

    fn exited(&mut self, id: &ContainerId, exit: Exit) {
        if let Some(instance) =
            self.instances.iter_mut().find(|instance| instance.id == *id && instance.exit().is_none())
        {
            instance.state = InstanceState::Exited(exit);
        }
    }

    fn removed(&mut self, id: &ContainerId, now: Timestamp) {
        for instance in self.instances.iter_mut().filter(|instance| instance.id == *id) {
            instance.held = false;
        }
        self.settle(now);
    }
}

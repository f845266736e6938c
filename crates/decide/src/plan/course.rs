//! Which way a pod goes: it waits, runs, or winds down.

use super::{Phase, Stage, TaskKind, Turn, probe};
use crate::observed::{Admission, InstanceState, Observed, SandboxState, VolumeState};
use crate::pod::{Container, Pod};
use crate::time::{Timestamp, after};
use k8s_openapi::api::core::v1 as api;

/// Which way a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Too little is known.
    Wait,
    /// Its containers are to run.
    Run,
    /// It comes to its end.
    WindDown {
        /// Why.
        because: Because,
        /// When the last container must be gone.
        deadline: Timestamp,
        /// Whether its remains go too.
        remove: bool,
    },
}

/// Why a pod winds down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    /// Nobody wants it any more.
    Unwanted,
    /// Admission said no.
    Rejected,
    /// The node needs what it has.
    Evicted,
    /// `activeDeadlineSeconds` are over.
    DeadlineExceeded,
    /// Its status says that it ended.
    Ended,
    /// Every main container has ended and none is to be restarted, or an init container failed and is not.
    Done,
}

impl Course {
    pub(crate) fn of(pod: &Pod, observed: &Observed, now: Timestamp) -> Course {
        if !observed.synced {
            return Course::Wait;
        }
        if let Some(ending) = observed.ending {
            return Course::WindDown { because: Because::Unwanted, deadline: ending.deadline, remove: true };
        }
        let wind_down = |because, deadline| Course::WindDown { because, deadline, remove: false };
        let grace = observed.stop_by.unwrap_or_else(|| after(now, pod.grace));
        if Phase::terminal(&observed.status).is_some() {
            return wind_down(Because::Ended, grace);
        }
        if observed.evicted.is_some() {
            return wind_down(Because::Evicted, grace);
        }
        match &observed.admission {
            Admission::Undecided => return Course::Wait,
            Admission::Rejected(_) => return wind_down(Because::Rejected, grace),
            Admission::Admitted => {}
        }
        if let Some(end) = active_until(pod, observed).filter(|end| *end <= now) {
            return wind_down(Because::DeadlineExceeded, after(end, pod.grace));
        }
        if observed.is_restarting_all(pod) {
            return Course::Run;
        }
        let main_ones_are_done = pod.containers.iter().all(|container| is_done(container, observed));
        if main_ones_are_done || has_failed_to_initialize(pod, observed) {
            return wind_down(Because::Done, grace);
        }
        Course::Run
    }

    /// Where a pod on this course is in its life.
    pub(super) fn stage(&self, pod: &Pod, observed: &Observed, status: &api::PodStatus, idle: bool) -> Stage {
        match *self {
            Course::Wait => Stage::Starting,
            Course::Run if pod.containers.iter().all(|container| has_run(container, observed)) => Stage::Running,
            Course::Run => Stage::Starting,
            Course::WindDown { remove: true, .. } if idle && is_gone(observed) => Stage::Released,
            Course::WindDown { because: Because::Unwanted, deadline, .. } => Stage::Terminating { deadline },
            Course::WindDown { deadline, .. } => match Phase::terminal(status) {
                Some(phase) if observed.alive().next().is_none() => Stage::Ended(phase),
                _ => Stage::Terminating { deadline },
            },
        }
    }
}

/// When `activeDeadlineSeconds` are over; none for a pod without, or one that has ended.
pub(super) fn active_until(pod: &Pod, observed: &Observed) -> Option<Timestamp> {
    if Phase::terminal(&observed.status).is_some() || observed.ending.is_some() {
        return None;
    }
    let started_at = observed.status.start_time.as_ref().map_or(observed.seen_at, |at| at.0);
    Some(after(started_at, pod.active_deadline?))
}

/// Whether the container has ended and its policy lets it rest.
fn is_done(container: &Container, observed: &Observed) -> bool {
    let known = observed.container(&container.name);
    let exit = known.and_then(|known| known.newest()).and_then(|newest| newest.exit());
    let nothing_else_runs = known.is_none_or(|known| known.alive().next().is_none());
    nothing_else_runs
        && known.is_none_or(|known| !known.owes_restart)
        && known.zip(exit).is_some_and(|(known, exit)| !probe::restarts(container, known, exit))
        && !observed.is_in_flight(TaskKind::CreateContainer, Some(&container.name))
        && !observed.is_in_doubt(TaskKind::StartContainer, Some(&container.name))
}

/// Whether an init container has failed for good. Once a main container has begun, all had succeeded.
fn has_failed_to_initialize(pod: &Pod, observed: &Observed) -> bool {
    let failed = |container: &Container| {
        let newest = observed.container(&container.name).and_then(|known| known.newest());
        let exit = newest.and_then(|newest| newest.exit());
        exit.is_some_and(|exit| exit.code != 0) && is_done(container, observed)
    };
    !Turn::of(pod, observed).is_initialized() && pod.init_containers.iter().any(failed)
}

fn has_run(container: &Container, observed: &Observed) -> bool {
    let newest = observed.container(&container.name).and_then(|known| known.newest());
    newest.is_some_and(|newest| newest.attempt > 0 || !matches!(newest.state, InstanceState::Created))
}

/// Whether nothing of the pod is left here and nothing is being done that could make something.
fn is_gone(observed: &Observed) -> bool {
    observed.held().next().is_none()
        && observed.sandboxes.is_empty()
        && observed.volumes == VolumeState::Released
        && observed.in_flight.keys().all(|task| matches!(task.kind, TaskKind::PullImage | TaskKind::Probe(_)))
        && ![TaskKind::RunSandbox, TaskKind::CreateContainer].into_iter().any(|kind| observed.is_any_in_doubt(kind))
}

impl Observed {
    /// The sandbox containers can be created in: the newest, if it is ready.
    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&crate::observed::Sandbox> {
        self.sandbox().filter(|sandbox| sandbox.state == SandboxState::Ready)
    }
}

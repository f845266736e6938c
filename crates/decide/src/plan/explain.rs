//! Why a container that is to run does not, in the words of the kubelet's waiting reasons.

use super::draft::Draft;
use super::run::Need;
use super::{TaskKind, Waiting, hook, probe};
use crate::observed::{Instance, InstanceState, Setback};
use crate::pod::{Container, Pod};
use crate::report::Report;
use crate::time::{Timestamp, after};
use std::time::Duration;

/// How long a container shows why its pull failed before it shows that it waits for the next try.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);

/// Says why `container` does not run, if it is to run.
pub(super) fn explain(draft: &mut Draft<'_>, container: &Container, need: &Need<'_>) {
    let name = &container.name;
    let known = draft.observed.container(name);
    if let Some(waiting) = known.and_then(|known| hook::waiting(draft, container, known)) {
        draft.wait(name, waiting);
        return;
    }
    if let Need::BackOff { until, wait } = need {
        let waiting = crash_loop(draft, container, *until, *wait);
        draft.wait(name, waiting);
        return;
    }
    if let Need::Pause { until } = need {
        draft.wake(*until);
    }
    let newest = known.and_then(|known| known.newest());
    if newest.is_some_and(|newest| matches!(newest.state, InstanceState::Running { .. } | InstanceState::Unknown)) {
        return;
    }
    let exit = newest.and_then(Instance::exit);
    if known.zip(exit).is_some_and(|(known, exit)| !probe::restarts(container, known, exit)) {
        return;
    }
    let observed = draft.observed;
    let setback = |kind| observed.setback(kind, Some(name));
    let waiting = if let Some(setback) = setback(TaskKind::CreateContainer) {
        Some(as_failed(draft, setback))
    } else if let Some(setback) = setback(TaskKind::PullImage) {
        Some(pull_failed(draft, container, setback))
    } else if let Some(setback) = setback(TaskKind::StartContainer) {
        Some(as_failed(draft, setback))
    } else if !has_ended_before(draft, container) {
        Some(Waiting { reason: creating(draft.pod), message: String::new(), until: None, reports: Vec::new() })
    } else {
        // About to be restarted, without a wait: its last end is what there is to see.
        None
    };
    if let Some(waiting) = waiting {
        draft.wait(name, waiting);
    }
}

/// Whether there is an end to see; a removal that was part of a restart of all is none.
fn has_ended_before(draft: &Draft<'_>, container: &Container) -> bool {
    let known = draft.observed.container(&container.name);
    let ends = known.into_iter().flat_map(|known| known.instances.iter().rev().filter_map(Instance::exit));
    ends.into_iter().next().is_some_and(|exit| !exit.is_restarting_all())
}

fn crash_loop(draft: &Draft<'_>, container: &Container, until: Timestamp, wait: Duration) -> Waiting {
    let (name, pod) = (&container.name, draft.pod);
    let place = format!("{}_{}({})", pod.name.name, pod.name.namespace, pod.uid);
    let said = format!("Back-off restarting failed container {name} in pod {place}");
    Waiting {
        reason: "CrashLoopBackOff",
        message: format!("back-off {} restarting failed container={name} pod={place}", go_duration(wait)),
        until: Some(until),
        reports: vec![Report::warning("BackOff", said).of(name)],
    }
}

fn as_failed(draft: &Draft<'_>, setback: &Setback) -> Waiting {
    let until = Some(setback.retry_at).filter(|at| *at > draft.now);
    let message = setback.failure.message.clone();
    Waiting { reason: setback.failure.reason, message, until, reports: Vec::new() }
}

/// First the error itself, then, for what may pass by itself, that the next pull is waited for.
fn pull_failed(draft: &Draft<'_>, container: &Container, setback: &Setback) -> Waiting {
    let shown_until = after(setback.at, PULL_ERROR_SHOWN);
    let backs_off =
        matches!(setback.failure.reason, "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed");
    if !backs_off || draft.now < shown_until {
        let failed = as_failed(draft, setback);
        let until = if backs_off { Some(shown_until) } else { failed.until };
        return Waiting { until, ..failed };
    }
    let back_off = format!("Back-off pulling image \"{}\"", container.image);
    Waiting {
        reason: "ImagePullBackOff",
        message: format!("{back_off}: {}: {}", setback.failure.reason, setback.failure.message),
        until: Some(setback.retry_at).filter(|at| *at > draft.now),
        reports: vec![
            Report::normal("BackOff", back_off).of(&container.name),
            Report::warning("Failed", "Error: ImagePullBackOff").of(&container.name),
        ],
    }
}

/// The reason of a container that waits for nothing in particular.
pub(crate) fn creating(pod: &Pod) -> &'static str {
    if pod.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" }
}

/// Whole seconds as the kubelet's messages write them: `40s`, `2m40s`, `5m0s`.
fn go_duration(wait: Duration) -> String {
    let (minutes, seconds) = (wait.as_secs() / 60, wait.as_secs() % 60);
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

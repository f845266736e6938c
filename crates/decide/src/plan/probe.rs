//! When a container is probed, and what follows from what its probes have told.
//!
//! A probe is asked for when the initial delay is over, and then on a grid: points in time a period apart, set off by a part
//! of the period that differs from pod to pod, so that what began together is not probed together. What the process finds
//! running when it begins joins the grid; what starts under its eyes is asked once *early*, as soon as it may be, so that a
//! container that is quick is not kept waiting. An early probe can only succeed.

use super::draft::Draft;
use super::hook::waits_for_post_start;
use super::{Action, TaskKind};
use crate::backoff::part;
use crate::observed::{ContainerObserved, Exit, Instance, InstanceState, Observed, ProbeRecord, Verdict};
use crate::pod::{Container, Pod, Probe, ProbeKind, RestartPolicy, Role};
use crate::time::{Timestamp, after, between};
use std::time::Duration;

/// Asks for every probe that is due, and to be woken for the next. `winding_down`: the pod comes to its end, and only
/// whether its containers can serve until then is of interest.
pub(super) fn plan(draft: &mut Draft<'_>, winding_down: bool) {
    let (pod, observed) = (draft.pod, draft.observed);
    // A pod without a sandbox has no address, and nothing in it runs.
    if observed.ready_sandbox().is_some() {
        for container in pod.lasting_containers() {
            probe(draft, container, winding_down);
        }
    }
}

fn probe(draft: &mut Draft<'_>, container: &Container, winding_down: bool) {
    let observed = draft.observed;
    let Some((instance, started_at)) = observed.container(&container.name).and_then(running) else {
        return;
    };
    if waits_for_post_start(container, instance) {
        return;
    }
    let stops = winding_down || is_being_stopped(draft, container);
    for kind in ProbeKind::ALL {
        let Some(probe) = container.probes.get(kind) else {
            continue;
        };
        if stops && kind != ProbeKind::Readiness {
            continue;
        }
        let Some(turn) = next_turn(draft.pod, observed, container, instance, started_at, (kind, probe)) else {
            continue;
        };
        if turn.at > draft.now {
            draft.wake(turn.at);
            continue;
        }
        let action = Action::Probe {
            container: container.name.clone(),
            id: instance.id.clone(),
            kind,
            at: draft.now,
            early: turn.early,
        };
        draft.act(action, "it is due");
    }
}

pub(super) fn is_being_stopped(draft: &Draft<'_>, container: &Container) -> bool {
    let stops = |action: &Action| match action {
        Action::StopContainer { container: stopped, .. } | Action::RunPreStop { container: stopped, .. } => {
            *stopped == container.name
        }
        _ => false,
    };
    let under_way = |kind| draft.observed.is_in_flight(kind, Some(&container.name));
    [TaskKind::StopContainer, TaskKind::RunPreStop].into_iter().any(under_way)
        || draft.actions.iter().any(|planned| stops(&planned.action))
}

/// When a container is to be probed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    at: Timestamp,
    early: bool,
}

/// The next turn of a probe of a running instance; none while it must not be probed.
fn next_turn(
    pod: &Pod,
    observed: &Observed,
    container: &Container,
    instance: &Instance,
    started_at: Timestamp,
    (kind, probe): (ProbeKind, &Probe),
) -> Option<Turn> {
    let record = observed.container(&container.name).and_then(|known| record(known, instance));
    let passed_at = record.and_then(|record| record.passed_at);
    let tally = record.map(|record| record.tally(kind));
    let gate = match (kind, container.probes.startup.is_some()) {
        (ProbeKind::Startup, _) if passed_at.is_some() => return None,
        (ProbeKind::Startup, _) | (_, false) => started_at,
        (_, true) => passed_at?,
    };
    // What failed for good is asked nothing more: it is on its way out.
    let failed = tally.is_some_and(|tally| tally.verdict == Some(Verdict::Failure));
    if failed && kind != ProbeKind::Readiness {
        return None;
    }
    let opens_at = gate.max(after(started_at, probe.initial_delay));
    let spread = || part(probe.period, [pod.uid.as_str(), container.name.as_str(), kind.as_str()]);
    let found = opens_at <= observed.seen_at;
    let grid = if found { after(observed.seen_at, spread()) } else { after(opens_at, probe.period / 2 + spread() / 2) };
    let asked_at = tally.and_then(|tally| tally.asked_at);
    Some(match asked_at {
        None if !found && kind != ProbeKind::Liveness => Turn { at: opens_at, early: true },
        None => Turn { at: grid, early: false },
        Some(asked_at) => Turn { at: next_point(grid, probe.period, asked_at), early: false },
    })
}

/// The first of the points `first`, `first + period`, … that comes after `last`.
fn next_point(first: Timestamp, period: Duration, last: Timestamp) -> Timestamp {
    if last < first {
        return first;
    }
    let gone = between(first, last).as_nanos() / period.as_nanos().max(1);
    let points = u32::try_from(gone.saturating_add(1)).unwrap_or(u32::MAX);
    after(first, period.saturating_mul(points))
}

/// The newest instance and when it started, if it runs.
fn running(known: &ContainerObserved) -> Option<(&Instance, Timestamp)> {
    let newest = known.newest().filter(|newest| newest.held)?;
    match newest.state {
        InstanceState::Running { started_at } => Some((newest, started_at)),
        InstanceState::Created | InstanceState::Exited(_) | InstanceState::Unknown => None,
    }
}

/// What the probes of that instance have told.
fn record<'a>(known: &'a ContainerObserved, instance: &Instance) -> Option<&'a ProbeRecord> {
    known.probes.as_ref().filter(|record| record.id == instance.id)
}

/// Whether the container runs, its `postStart` is done and, if it has a startup probe, it has passed it.
pub(crate) fn has_started(container: &Container, known: Option<&ContainerObserved>) -> bool {
    let Some((known, instance)) = known.and_then(|known| Some((known, known.newest()?))) else {
        return false;
    };
    let passed = || record(known, instance).is_some_and(|record| record.passed_at.is_some());
    let runs = matches!(instance.state, InstanceState::Running { .. }) && !waits_for_post_start(container, instance);
    runs && (container.probes.startup.is_none() || passed())
}

/// Whether the container has started and, if it has a readiness probe, passes it.
pub(crate) fn is_ready(container: &Container, known: Option<&ContainerObserved>) -> bool {
    let told = || {
        let record = known.and_then(|known| record(known, known.newest()?));
        record.and_then(|record| record.tally(ProbeKind::Readiness).verdict) == Some(Verdict::Success)
    };
    has_started(container, known) && (container.probes.readiness.is_none() || told())
}

/// Whether a container whose newest instance has ended so is started again. What was ended for a probe is, unless it never
/// is, whatever code it ended with; what went because all are started again is in any case.
pub(super) fn restarts(container: &Container, known: &ContainerObserved, exit: &Exit) -> bool {
    let ended_for_a_probe = || known.newest().is_some_and(|newest| failed_probe(container, known, newest).is_some());
    let policy = container.restart.policy;
    exit.is_restarting_all()
        || container.restart.restarts_after(exit.code)
        || (policy != RestartPolicy::Never && ended_for_a_probe())
}

/// The probe for whose failure `instance` must end, or has ended.
pub(super) fn failed_probe<'a>(
    container: &'a Container,
    known: &ContainerObserved,
    instance: &Instance,
) -> Option<(ProbeKind, &'a Probe)> {
    let record = record(known, instance)?;
    let failed = |kind: &ProbeKind| record.tally(*kind).verdict == Some(Verdict::Failure);
    let kind = [ProbeKind::Liveness, ProbeKind::Startup].into_iter().find(failed)?;
    Some((kind, container.probes.get(kind)?))
}

/// Why an instance that failed a probe must end, as the Event says it.
pub(super) fn why_stopped(container: &Container, kind: ProbeKind) -> String {
    let (name, kind) = (&container.name, kind.as_str().to_lowercase());
    match (container.role, container.restart.policy) {
        (Role::Sidecar, _) => format!("Init container {name} failed {kind} probe"),
        (_, RestartPolicy::Never) => format!("Container {name} failed {kind} probe"),
        _ => format!("Container {name} failed {kind} probe, will be restarted"),
    }
}

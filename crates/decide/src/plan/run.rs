//! The life of a pod: volumes, a sandbox, and in it every container whose turn it is, started again as its policy says.

use super::draft::Draft;
use super::explain::explain;
use super::turn::Turn;
use super::{Action, TaskKind, garbage, hook, probe, restart_all};
use crate::backoff::Edition;
use crate::observed::{ContainerObserved, Exit, Instance, InstanceState, Sandbox, SandboxState, VolumeState};
use crate::pod::{Container, Role};
use crate::report::Report;
use crate::time::{Timestamp, after};
use std::time::Duration;

/// How soon after the end of a container all may be started again: the kubelet looks at its runtime this often.
const RELIST: Duration = Duration::from_secs(1);

/// What one container needs next.
pub(super) enum Need<'a> {
    /// Nothing: it runs, it is done, it is not its turn, or something is being done about it.
    Nothing,
    /// This instance must not go on; how long it may take to end.
    Stop(&'a Instance, String, Duration),
    /// A new instance.
    Create { attempt: u32 },
    /// This instance is ready to be started.
    Start(&'a Instance),
    /// It is to be restarted, but not before `until`.
    BackOff { until: Timestamp, wait: Duration },
    /// It is to be started with all others, but not before `until`.
    Pause { until: Timestamp },
}

/// Plans the next steps towards every container running.
pub(super) fn plan(draft: &mut Draft<'_>) {
    if draft.observed.volumes != VolumeState::Prepared {
        draft.act(Action::PrepareVolumes, "containers need the pod's volumes");
    }
    if draft.observed.is_restarting_all(draft.pod) {
        restart_all::plan(draft);
        return;
    }
    let pod = draft.pod;
    let turn = Turn::of(pod, draft.observed);
    let needs: Vec<(&Container, Need<'_>)> =
        pod.all_containers().map(|container| (container, need(draft, container, turn))).collect();
    stop_what_must_not_run(draft, &needs);
    super::resize::plan(draft);
    hook::plan(draft);
    let starts = needs.iter().any(|(_, need)| matches!(need, Need::Create { .. } | Need::Start(_)));
    let sandbox = if starts && draft.observed.volumes == VolumeState::Prepared { sandbox(draft) } else { None };
    for (container, need) in &needs {
        if let Some(sandbox) = sandbox {
            bring_up(draft, container, need, sandbox);
        }
        explain(draft, container, need);
    }
    garbage::collect(draft);
}

/// What `container` needs next.
fn need<'a>(draft: &Draft<'a>, container: &Container, turn: Turn<'_>) -> Need<'a> {
    match need_of_instances(draft, container) {
        Need::Create { .. } | Need::Start(_) | Need::BackOff { .. } | Need::Pause { .. } if !turn.is_due(container) => {
            Need::Nothing
        }
        need => need,
    }
}

/// What `container` needs next, judged by its instances alone.
fn need_of_instances<'a>(draft: &Draft<'a>, container: &Container) -> Need<'a> {
    let observed = draft.observed;
    let starts = [TaskKind::CreateContainer, TaskKind::StartContainer];
    let busy = |kind| observed.is_in_flight(kind, Some(&container.name));
    let in_doubt = |kind| observed.is_in_doubt(kind, Some(&container.name));
    if starts.into_iter().any(|kind| busy(kind) || in_doubt(kind)) {
        return Need::Nothing;
    }
    let Some(known) = observed.container(&container.name) else {
        return Need::Create { attempt: 0 };
    };
    let Some(newest) = known.newest() else {
        return Need::Create { attempt: known.streak.restarts };
    };
    if let Some(stray) = known.alive().find(|instance| instance.id != newest.id) {
        return Need::Stop(stray, "a newer instance took its place".into(), draft.pod.grace);
    }
    let next_attempt = newest.attempt.saturating_add(1);
    match &newest.state {
        InstanceState::Created if is_usable(draft, newest, container) => Need::Start(newest),
        InstanceState::Created => Need::Create { attempt: next_attempt },
        InstanceState::Unknown => Need::Stop(newest, "the runtime does not know its state".into(), draft.pod.grace),
        // An init container that runs is let run: an edit is for its next instance.
        InstanceState::Running { .. } if container.role == Role::Init && is_at_home(draft, newest) => Need::Nothing,
        InstanceState::Running { .. } => why_stop(draft, known, newest, container)
            .map_or(Need::Nothing, |(why, grace)| Need::Stop(newest, why, grace)),
        InstanceState::Exited(exit) if exit.is_restarting_all() => match after(exit.finished_at, RELIST) {
            until if until > draft.now => Need::Pause { until },
            _ => Need::Create { attempt: next_attempt },
        },
        InstanceState::Exited(_) if known.owes_restart => Need::Create { attempt: next_attempt },
        // It is its turn only if it succeeded in another sandbox.
        InstanceState::Exited(Exit { code: 0, .. }) if container.role == Role::Init => {
            Need::Create { attempt: next_attempt }
        }
        InstanceState::Exited(exit) if !probe::restarts(container, known, exit) => Need::Nothing,
        InstanceState::Exited(exit) => {
            let wait = known.streak.wait(&Edition::of(container), exit.started_at, exit.finished_at);
            let until = after(exit.finished_at, wait);
            match until > draft.now {
                true => Need::BackOff { until, wait },
                false => Need::Create { attempt: next_attempt },
            }
        }
    }
}

/// Whether a created instance is what the spec asks for now, in the sandbox of now.
fn is_usable(draft: &Draft<'_>, instance: &Instance, container: &Container) -> bool {
    instance.held && why_not_go_on(draft, instance, container).is_none()
}

/// Why a running instance must end, and how long it may take to, if so.
fn why_stop(
    draft: &Draft<'_>,
    known: &ContainerObserved,
    instance: &Instance,
    container: &Container,
) -> Option<(String, Duration)> {
    let grace = draft.pod.grace;
    let changed = why_not_go_on(draft, instance, container)
        .or_else(|| hook::why_not_go_on(instance))
        .or_else(|| super::resize::why_restart(container, instance));
    changed.map(|why| (why, grace)).or_else(|| {
        let (kind, failed) = probe::failed_probe(container, known, instance)?;
        Some((probe::why_stopped(container, kind), failed.grace.unwrap_or(grace)))
    })
}

/// Why an instance must not run (any longer), if so.
fn why_not_go_on(draft: &Draft<'_>, instance: &Instance, container: &Container) -> Option<String> {
    let name = &container.name;
    if !instance.image.is_empty() && instance.image != container.image {
        return Some(match container.role {
            Role::Init | Role::Sidecar => format!("Init container {name} definition changed"),
            Role::Main | Role::Ephemeral => format!("Container {name} definition changed, will be restarted"),
        });
    }
    (!is_at_home(draft, instance)).then(|| format!("Container {name} lost its sandbox, will be restarted"))
}

fn is_at_home(draft: &Draft<'_>, instance: &Instance) -> bool {
    draft.observed.ready_sandbox().is_some_and(|sandbox| sandbox.id == instance.sandbox)
}

fn stop_what_must_not_run(draft: &mut Draft<'_>, needs: &[(&Container, Need<'_>)]) {
    let deadline = after(draft.now, draft.pod.grace);
    for (container, need) in needs {
        if let Need::Stop(instance, why, grace) = need {
            draft.stop(&container.name, instance, after(draft.now, *grace), why.clone(), why.clone());
        }
    }
    // What the spec does not name (any more) has no business here.
    let observed = draft.observed;
    for (name, instance) in observed.alive().filter(|(name, _)| draft.pod.container(name).is_none()) {
        draft.stop(name, instance, deadline, "the spec has no such container", format!("Stopping container {name}"));
    }
}

/// The sandbox to create containers in; asks for one if there is none and nothing of the former one runs.
fn sandbox<'a>(draft: &mut Draft<'a>) -> Option<&'a Sandbox> {
    let observed = draft.observed;
    let changing = [TaskKind::RunSandbox, TaskKind::StopSandbox];
    if changing.into_iter().any(|kind| observed.is_in_flight(kind, None)) {
        return None;
    }
    if observed.is_in_doubt(TaskKind::RunSandbox, None) {
        return None;
    }
    if let Some(ready) = observed.ready_sandbox() {
        return Some(ready);
    }
    let old_ones_rest = observed.sandboxes.iter().all(|sandbox| sandbox.state == SandboxState::NotReady);
    if old_ones_rest && observed.alive().next().is_none() {
        let attempt = observed.sandbox().map_or(0, |newest| newest.attempt.saturating_add(1));
        let changed = "Pod sandbox changed, it will be killed and re-created.";
        let announce = (attempt > 0).then(|| Report::normal("SandboxChanged", changed));
        draft.announce(Action::RunSandbox { attempt }, "containers are to start and no sandbox is ready", announce);
    }
    None
}

/// The next step of a container's start: image, instance, start.
fn bring_up(draft: &mut Draft<'_>, container: &Container, need: &Need<'_>, sandbox: &Sandbox) {
    let name = &container.name;
    match need {
        Need::Create { attempt } => {
            let image = draft.observed.container(name).and_then(|known| known.image.as_ref());
            let action = match image.filter(|image| image.name == container.image) {
                None => Action::PullImage { container: name.clone(), image: container.image.clone() },
                Some(image) => Action::CreateContainer {
                    container: name.clone(),
                    sandbox: sandbox.id.clone(),
                    attempt: *attempt,
                    image: image.id.clone(),
                },
            };
            draft.act(action, format!("container {name} is to run (attempt {attempt})"));
        }
        Need::Start(instance) => {
            let action = Action::StartContainer { container: name.clone(), id: instance.id.clone() };
            draft.act(action, format!("container {name} was created"));
        }
        Need::Nothing | Need::Stop(..) | Need::BackOff { .. } | Need::Pause { .. } => {}
    }
}

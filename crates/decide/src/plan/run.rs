//! The life of a pod: volumes, a sandbox, and in it every container, started again as the restart policy says.

use super::draft::Draft;
use super::{Action, TaskKind, Waiting, hook, probe};
use crate::observed::{ContainerObserved, Instance, InstanceState, Sandbox, SandboxState, Setback, VolumeState};
use crate::pod::Container;
use crate::report::Report;
use crate::time::{Timestamp, after};
use std::time::Duration;

/// How long a container shows why its pull failed before it shows that it waits for the next try.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);

/// What one container needs next.
enum Need<'a> {
    /// Nothing: it runs, it is done, or something is being done about it.
    Nothing,
    /// This instance must not go on; how long it may take to end.
    Stop(&'a Instance, String, Duration),
    /// A new instance.
    Create { attempt: u32 },
    /// This instance is ready to be started.
    Start(&'a Instance),
    /// It is to be restarted, but not before `until`.
    BackOff { until: Timestamp, wait: Duration },
}

/// Plans the next steps towards every container running.
pub(super) fn plan(draft: &mut Draft<'_>) {
    if draft.observed.volumes != VolumeState::Prepared {
        draft.act(Action::PrepareVolumes, "containers need the pod's volumes");
    }
    let pod = draft.pod;
    let needs: Vec<(&Container, Need<'_>)> =
        pod.containers.iter().map(|container| (container, need(draft, container))).collect();
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
    collect_garbage(draft);
}

/// What `container` needs next, judged by its instances alone.
fn need<'a>(draft: &Draft<'a>, container: &Container) -> Need<'a> {
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
        InstanceState::Running { .. } => why_stop(draft, known, newest, container)
            .map_or(Need::Nothing, |(why, grace)| Need::Stop(newest, why, grace)),
        InstanceState::Exited(_) if known.owes_restart => Need::Create { attempt: next_attempt },
        InstanceState::Exited(exit) if !probe::restarts(container, known, exit) => Need::Nothing,
        InstanceState::Exited(exit) => {
            let wait = known.streak.wait(&container.image, exit.started_at, exit.finished_at);
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
    if !instance.image.is_empty() && instance.image != container.image {
        return Some(format!("Container {} definition changed, will be restarted", container.name));
    }
    let ready = draft.observed.ready_sandbox();
    let at_home = ready.is_some_and(|sandbox| sandbox.id == instance.sandbox);
    (!at_home).then(|| format!("Container {} lost its sandbox, will be restarted", container.name))
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
        Need::Nothing | Need::Stop(..) | Need::BackOff { .. } => {}
    }
}

/// Says why `container` does not run, if it is to run.
fn explain(draft: &mut Draft<'_>, container: &Container, need: &Need<'_>) {
    let name = &container.name;
    let known = draft.observed.container(name);
    let newest = known.and_then(|known| known.newest());
    if let Some(waiting) = known.and_then(|known| hook::waiting(draft, container, known)) {
        draft.wait(name, waiting);
        return;
    }
    if let Need::BackOff { until, wait } = need {
        let waiting = crash_loop(draft, container, *until, *wait);
        draft.wait(name, waiting);
        return;
    }
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
        let creating = "ContainerCreating";
        Some(Waiting { reason: creating, message: String::new(), until: None, reports: Vec::new() })
    } else {
        // About to be restarted, without a wait: its last end is what there is to see.
        None
    };
    if let Some(waiting) = waiting {
        draft.wait(name, waiting);
    }
}

fn has_ended_before(draft: &Draft<'_>, container: &Container) -> bool {
    let known = draft.observed.container(&container.name);
    known.is_some_and(|known| known.instances.iter().any(|instance| instance.exit().is_some()))
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

/// One ended instance of each container is kept, for its log; sandboxes go once nothing is kept in them.
pub(super) fn collect_garbage(draft: &mut Draft<'_>) {
    let observed = draft.observed;
    for (name, instance) in observed.held() {
        let known = observed.container(name);
        let newer = |other: &Instance| other.attempt > instance.attempt;
        let has_newer = known.is_some_and(|known| known.instances.iter().any(newer));
        let has_newer_end =
            known.is_some_and(|known| known.instances.iter().any(|one| newer(one) && one.exit().is_some()));
        let garbage = match instance.state {
            InstanceState::Exited(_) => has_newer_end,
            InstanceState::Created => has_newer,
            InstanceState::Running { .. } | InstanceState::Unknown => false,
        };
        if garbage {
            let action = Action::RemoveContainer { container: name.clone(), id: instance.id.clone() };
            draft.act(action, "a newer ended instance is kept instead");
        }
    }
    let Some((_newest, older)) = observed.sandboxes.split_last() else {
        return;
    };
    for sandbox in older {
        let mut inside = observed.held().filter(|(_, instance)| instance.sandbox == sandbox.id).peekable();
        let id = sandbox.id.clone();
        match sandbox.state {
            SandboxState::NotReady if inside.peek().is_none() => {
                draft.act(Action::RemoveSandbox { id }, "a newer sandbox took its place");
            }
            SandboxState::Ready if !inside.any(|(_, instance)| instance.is_alive()) => {
                draft.act(Action::StopSandbox { id }, "a newer sandbox took its place");
            }
            SandboxState::NotReady | SandboxState::Ready => {}
        }
    }
}

/// Whole seconds as the kubelet's messages write them: `40s`, `2m40s`, `5m0s`.
fn go_duration(wait: Duration) -> String {
    let (minutes, seconds) = (wait.as_secs() / 60, wait.as_secs() % 60);
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

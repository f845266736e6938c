//! `status.containerStatuses`: one entry for each container of the spec, by name.

use super::resize;
use crate::names::{ContainerId, ContainerName};
use crate::observed::{Exit, Instance, InstanceState, Observed, SCHEME};
use crate::plan::{Waiting, has_started, is_ready, waits_for_post_start};
use crate::pod::{Container, Pod};
use crate::time::{Timestamp, whole_seconds};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// What the termination messages of one pod may take together, in bytes (the kubelet's `MaxPodTerminationMessageLogLength`).
const MESSAGES_OF_POD: usize = 12 * 1024;

/// The statuses of all containers. `over`: what has not ended by now is shown as never having been found.
pub(super) fn statuses(
    pod: &Pod,
    observed: &Observed,
    waiting: &BTreeMap<ContainerName, Waiting>,
    over: bool,
) -> Vec<api::ContainerStatus> {
    let one = |container: &Container| status(pod, observed, container, waiting.get(&container.name), over);
    let mut statuses: Vec<_> = pod.containers.iter().map(one).collect();
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    statuses
}

fn status(
    pod: &Pod,
    observed: &Observed,
    container: &Container,
    waiting: Option<&Waiting>,
    over: bool,
) -> api::ContainerStatus {
    let before = observed.status.container_statuses.iter().flatten().find(|one| one.name == container.name.as_str());
    let known = observed.container(&container.name);
    // One that was made and not started is no news: what came before it is shown until it starts, or fails to.
    let begun = known.into_iter().flat_map(|known| known.instances.iter().rev());
    let begun = begun.filter(|one| !matches!(one.state, InstanceState::Created));
    let newest = begun.clone().next();
    let longest_message = MESSAGES_OF_POD / pod.all_containers().count().max(1);
    let state = bounded(state(container, newest, waiting, over), longest_message);
    let is_running = state.running.is_some();
    // The newest instance is the present state, unless the container waits: then it is the last one.
    let last_exit = begun.skip(usize::from(state.waiting.is_none())).find_map(|one| Some((one, one.exit()?)));
    let spec = pod.api.spec.iter().flat_map(|spec| &spec.containers).find(|one| one.name == container.name.as_str());
    let resources = spec.and_then(|spec| spec.resources.clone()).unwrap_or_default();
    api::ContainerStatus {
        name: container.name.to_string(),
        ready: is_running && is_ready(container, known),
        started: Some(is_running && has_started(container, known)),
        restart_count: restart_count(newest, before),
        image: newest.map(|one| &one.image).filter(|image| !image.is_empty()).unwrap_or(&container.image).clone(),
        image_id: newest.map(|one| one.image_reference.clone()).unwrap_or_default(),
        container_id: newest.and_then(|one| written(&one.id)),
        state: Some(state),
        last_state: Some(last_exit.map_or_else(api::ContainerState::default, |(one, exit)| {
            bounded(terminated(Some(&one.id), exit), longest_message)
        })),
        allocated_resources: resources.requests.clone(),
        resources: newest.filter(|_| is_running).map(|newest| resize::in_force(container, newest, resources)),
        volume_mounts: Some(container.mounts.iter().map(mount).collect()),
        ..api::ContainerStatus::default()
    }
}

/// Never less than what was published once.
fn restart_count(newest: Option<&Instance>, before: Option<&api::ContainerStatus>) -> i32 {
    let attempt = newest.map_or(0, |newest| i32::try_from(newest.attempt).unwrap_or(i32::MAX));
    attempt.max(before.map_or(0, |before| before.restart_count))
}

fn state(
    container: &Container,
    newest: Option<&Instance>,
    waiting: Option<&Waiting>,
    over: bool,
) -> api::ContainerState {
    if let Some(waiting) = waiting {
        return waits(waiting.reason, &waiting.message);
    }
    match newest.map(|newest| (newest, &newest.state)) {
        Some((newest, InstanceState::Exited(exit))) => terminated(Some(&newest.id), exit),
        // As with any kubelet, it does not run before its hook is done.
        Some((newest, InstanceState::Running { .. })) if waits_for_post_start(container, newest) => {
            waits("ContainerCreating", "")
        }
        Some((_, InstanceState::Running { started_at })) => api::ContainerState {
            running: Some(api::ContainerStateRunning { started_at: Some(Time(whole_seconds(*started_at))) }),
            ..api::ContainerState::default()
        },
        _ if over => never_found(),
        _ => waits("ContainerCreating", ""),
    }
}

fn waits(reason: &str, message: &str) -> api::ContainerState {
    let message = (!message.is_empty()).then(|| message.to_owned());
    api::ContainerState {
        waiting: Some(api::ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..api::ContainerState::default()
    }
}

fn terminated(id: Option<&ContainerId>, exit: &Exit) -> api::ContainerState {
    let time = |at: Timestamp| Time(whole_seconds(at));
    api::ContainerState {
        terminated: Some(api::ContainerStateTerminated {
            container_id: id.and_then(written),
            exit_code: exit.code,
            started_at: exit.started_at.map(time),
            finished_at: Some(time(exit.finished_at)),
            reason: Some(exit.reason.clone()),
            message: (!exit.message.is_empty()).then(|| exit.message.clone()),
            signal: None,
        }),
        ..api::ContainerState::default()
    }
}

/// With no more than so many bytes of the termination message.
fn bounded(mut state: api::ContainerState, longest_message: usize) -> api::ContainerState {
    if let Some(message) = state.terminated.as_mut().and_then(|terminated| terminated.message.as_mut()) {
        message.truncate(message.floor_char_boundary(longest_message));
    }
    state
}

fn never_found() -> api::ContainerState {
    api::ContainerState {
        terminated: Some(api::ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..api::ContainerStateTerminated::default()
        }),
        ..api::ContainerState::default()
    }
}

fn written(id: &ContainerId) -> Option<String> {
    (!id.as_str().is_empty()).then(|| format!("{SCHEME}{id}"))
}

fn mount(mount: &crate::pod::Mount) -> api::VolumeMountStatus {
    api::VolumeMountStatus {
        name: mount.volume.to_string(),
        mount_path: mount.path.clone(),
        read_only: mount.read_only.then_some(true),
        ..api::VolumeMountStatus::default()
    }
}

//! `status.initContainerStatuses`, `containerStatuses` and `ephemeralContainerStatuses`: one entry for each container of
//! the spec.

use super::resize;
use crate::names::{ContainerId, ContainerName};
use crate::observed::{Exit, Instance, InstanceState, Observed, SCHEME};
use crate::plan::{Turn, Waiting, creating, has_started, is_ready, waits_for_post_start};
use crate::pod::{Container, Pod, Role};
use crate::time::{Timestamp, whole_seconds};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// What the termination messages of one pod may take together, in bytes (the kubelet's `MaxPodTerminationMessageLogLength`).
const MESSAGES_OF_POD: usize = 12 * 1024;

/// The statuses of all containers, in the order of the spec.
#[derive(Clone, Debug, Default)]
pub(super) struct Statuses {
    pub(super) init: Vec<api::ContainerStatus>,
    pub(super) main: Vec<api::ContainerStatus>,
    pub(super) ephemeral: Vec<api::ContainerStatus>,
}

impl Statuses {
    /// `over`: what has begun and has not ended by now is shown as never having been found.
    pub(super) fn of(
        pod: &Pod,
        observed: &Observed,
        waiting: &BTreeMap<ContainerName, Waiting>,
        over: bool,
    ) -> Statuses {
        let status = |container: &Container, is_lost: bool| {
            status(pod, observed, container, waiting.get(&container.name), is_lost)
        };
        let has_begun =
            |container: &Container| observed.container(&container.name).is_some_and(|known| known.newest().is_some());
        // The main containers had their turn, or the init containers up to the last that begun, the first in any case.
        let initialized = Turn::of(pod, observed).is_initialized() || pod.containers.iter().any(has_begun);
        let last_begun = pod.init_containers.iter().rposition(has_begun).unwrap_or(0);
        let init = pod.init_containers.iter().enumerate();
        Statuses {
            init: init.map(|(index, one)| status(one, over && index <= last_begun)).collect(),
            main: pod.containers.iter().map(|one| status(one, over && initialized)).collect(),
            ephemeral: pod.ephemeral_containers.iter().map(|one| status(one, false)).collect(),
        }
    }

    /// Those by name, as the lists of main and ephemeral containers are written.
    pub(super) fn by_name(statuses: &[api::ContainerStatus]) -> Vec<api::ContainerStatus> {
        let mut statuses = statuses.to_vec();
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        statuses
    }
}

fn status(
    pod: &Pod,
    observed: &Observed,
    container: &Container,
    waiting: Option<&Waiting>,
    is_lost: bool,
) -> api::ContainerStatus {
    let of_container = |one: &&api::ContainerStatus| one.name == container.name.as_str();
    let before = list(&observed.status, container.role).iter().find(of_container);
    let known = observed.container(&container.name);
    // One that was made and not started is no news: what came before it is shown until it starts, or fails to.
    let begun = known.into_iter().flat_map(|known| known.instances.iter().rev());
    let begun = begun.filter(|one| !matches!(one.state, InstanceState::Created));
    let newest = begun.clone().next();
    let longest_message = MESSAGES_OF_POD / pod.all_containers().count().max(1);
    let state = bounded(state(container, newest, waiting, is_lost, creating(pod)), longest_message);
    let is_running = state.running.is_some();
    // The newest instance is the present state, unless the container waits: then it is the last one.
    let last_exit = begun.skip(usize::from(state.waiting.is_none())).find_map(|one| Some((one, one.exit()?)));
    let has_succeeded = state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
    let started = is_running && has_started(container, known);
    let resources = resources(pod, container);
    api::ContainerStatus {
        name: container.name.to_string(),
        ready: match container.role {
            Role::Init => has_succeeded,
            Role::Sidecar | Role::Main => is_running && is_ready(container, known),
            Role::Ephemeral => false,
        },
        started: (container.role != Role::Ephemeral).then_some(started),
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

/// The list of a status that tells of containers of that role.
fn list(status: &api::PodStatus, role: Role) -> &[api::ContainerStatus] {
    let list = match role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Main => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.as_deref().unwrap_or_default()
}

/// The resources as the spec writes them; ephemeral containers have none.
fn resources(pod: &Pod, container: &Container) -> api::ResourceRequirements {
    let spec = pod.api.spec.iter();
    let mut written = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let spec = written.find(|one| one.name == container.name.as_str());
    spec.and_then(|spec| spec.resources.clone()).unwrap_or_default()
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
    is_lost: bool,
    creating: &'static str,
) -> api::ContainerState {
    if let Some(waiting) = waiting {
        return waits(waiting.reason, &waiting.message);
    }
    match newest.map(|newest| (newest, &newest.state)) {
        Some((newest, InstanceState::Exited(exit))) => terminated(Some(&newest.id), exit),
        // As with any kubelet, it does not run before its hook is done.
        Some((newest, InstanceState::Running { .. })) if waits_for_post_start(container, newest) => waits(creating, ""),
        Some((_, InstanceState::Running { started_at })) => api::ContainerState {
            running: Some(api::ContainerStateRunning { started_at: Some(Time(whole_seconds(*started_at))) }),
            ..api::ContainerState::default()
        },
        _ if is_lost => never_found(),
        _ => waits(creating, ""),
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

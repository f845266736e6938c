//! `status.phase`: what the states of the containers add up to.

use super::containers::Statuses;
use crate::plan::Phase;
use crate::pod::{Pod, Role};
use k8s_openapi::api::core::v1 as api;

/// The phase of a pod whose containers stand so. `over`: it winds down and nothing of it runs any more.
pub(super) fn by_containers(pod: &Pod, statuses: &Statuses, over: bool) -> Phase {
    if over {
        return if has_succeeded(statuses) { Phase::Succeeded } else { Phase::Failed };
    }
    let init = || pod.init_containers.iter().zip(&statuses.init);
    let pending = init().any(|(container, status)| match container.role {
        Role::Sidecar => has_never_ended(status) && status.started != Some(true) && !has_begun(statuses),
        Role::Init | Role::Main | Role::Ephemeral => is_running(status) || has_never_ended(status),
    });
    let waits = |status: &api::ContainerStatus| !is_running(status) && has_never_ended(status);
    let sidecars = init().filter(|(container, _)| container.role == Role::Sidecar).map(|(_, status)| status);
    match pending || sidecars.chain(&statuses.main).any(waits) {
        true => Phase::Pending,
        // If none runs, all have stopped and some are to be restarted, or the last one has yet to be taken down.
        false => Phase::Running,
    }
}

/// Whether every main container ended with 0.
fn has_succeeded(statuses: &Statuses) -> bool {
    let ended = |status: &api::ContainerStatus| status.state.clone().and_then(|state| state.terminated);
    statuses.main.iter().all(|status| ended(status).is_some_and(|ended| ended.exit_code == 0))
}

/// Whether a main container has begun: sidecars that are restarted after that do not make the pod pending again.
fn has_begun(statuses: &Statuses) -> bool {
    statuses.main.iter().any(|status| is_running(status) || !has_never_ended(status))
}

fn is_running(status: &api::ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn has_never_ended(status: &api::ContainerStatus) -> bool {
    let states = [&status.state, &status.last_state];
    states.into_iter().flatten().all(|state| state.terminated.is_none())
}

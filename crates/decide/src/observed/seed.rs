//! What a published status tells of the time before this process: instances and restart counts.
//!
//! The runtime may have lost what the status remembers. Without this, a container that must not run twice would.

use super::{ContainerObserved, Exit, Instance, InstanceState, PostStart, PreStop, ProbeRecord};
use crate::backoff::Streak;
use crate::names::{ContainerId, ContainerName, SandboxId};
use crate::time::Timestamp;
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;

/// The scheme of `containerID`.
pub(crate) const SCHEME: &str = "wasklet://";

/// The containers `status` knows, none of them held by the runtime as yet.
pub(super) fn containers(status: &api::PodStatus, now: Timestamp) -> BTreeMap<ContainerName, ContainerObserved> {
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let statuses = lists.into_iter().flatten().flatten();
    statuses.map(|status| (ContainerName::from(status.name.as_str()), container(status, now))).collect()
}

fn container(status: &api::ContainerStatus, now: Timestamp) -> ContainerObserved {
    let restarts = u32::try_from(status.restart_count).unwrap_or(0);
    let present = status.state.as_ref().and_then(|state| instance_state(state, now));
    let past = status.last_state.as_ref().and_then(|state| instance_state(state, now));
    let mut instances = Vec::new();
    match (present, past) {
        (Some(present), past) => {
            if let (Some(past), Some(attempt)) = (past, restarts.checked_sub(1)) {
                instances.push(instance(status, past, attempt));
            }
            instances.push(instance(status, present, restarts));
        }
        // Waiting to be restarted: the last state is the newest instance.
        (None, Some(past)) => instances.push(instance(status, past, restarts)),
        (None, None) => {}
    }
    let probes = instances.last().filter(|newest| matches!(newest.state, InstanceState::Running { .. }));
    let probes = probes
        .map(|newest| ProbeRecord::remembered(newest.id.clone(), status.started.unwrap_or(false), status.ready, now));
    ContainerObserved { image: None, instances, streak: Streak { of: None, restarts }, owes_restart: false, probes }
}

fn instance(
    status: &api::ContainerStatus,
    (id, state): (Option<ContainerId>, InstanceState),
    attempt: u32,
) -> Instance {
    let own = status.container_id.as_deref().map(container_id);
    Instance {
        id: id.or(own).unwrap_or_else(|| ContainerId::from("")),
        attempt,
        sandbox: SandboxId::from(""),
        image: String::new(),
        image_reference: status.image_id.clone(),
        post_start: PostStart::Done,
        pre_stop: PreStop::Owed,
        enforced: None,
        held: false,
        state,
    }
}

fn container_id(written: &str) -> ContainerId {
    ContainerId::from(written.strip_prefix(SCHEME).unwrap_or(written))
}

fn instance_state(state: &api::ContainerState, now: Timestamp) -> Option<(Option<ContainerId>, InstanceState)> {
    if let Some(running) = &state.running {
        let started_at = running.started_at.as_ref().map_or(now, |at| at.0);
        return Some((None, InstanceState::Running { started_at }));
    }
    let terminated = state.terminated.as_ref()?;
    let exit = Exit {
        started_at: terminated.started_at.as_ref().map(|at| at.0),
        finished_at: terminated.finished_at.as_ref().map_or(now, |at| at.0),
        code: terminated.exit_code,
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
    };
    let id = terminated.container_id.as_deref().filter(|id| !id.is_empty()).map(container_id);
    Some((id, InstanceState::Exited(exit)))
}

//! The end of a pod: containers, then sandboxes, then volumes; then, if nobody wants it, its remains.
//!
//! Main containers stop first and at once, then the sidecars, one after another, the last one first. All of them have one
//! grace period together; once it is over, nobody waits for anybody.

use super::draft::Draft;
use super::{Action, TaskKind, hook};
use crate::observed::{SandboxState, VolumeState};
use crate::pod::{Container, Role};
use crate::time::Timestamp;

/// Plans the next steps of the end.
pub(super) fn plan(draft: &mut Draft<'_>, deadline: Timestamp, remove: bool) {
    let stopped = stop_containers(draft, deadline);
    if stopped && stop_sandboxes(draft) && release_volumes(draft) && remove {
        remove_remains(draft);
    }
}

/// Whether no container runs and none is about to.
fn stop_containers(draft: &mut Draft<'_>, deadline: Timestamp) -> bool {
    let observed = draft.observed;
    for (name, instance) in observed.alive() {
        let killing = format!("Stopping container {name}");
        match draft.pod.container(name) {
            Some(container) if draft.now < deadline && waits_for_others(draft, container) => {
                draft.wake(deadline);
                // Its hook waits for nobody.
                let _its_turn_comes = hook::before_stop(draft, container, instance, deadline, &killing);
            }
            _ => draft.stop(name, instance, deadline, "the pod comes to its end", killing),
        }
    }
    let starting =
        |kind| matches!(kind, TaskKind::CreateContainer | TaskKind::StartContainer | TaskKind::StopContainer);
    observed.alive().next().is_none() && !observed.in_flight.keys().any(|task| starting(task.kind))
}

/// Whether `sidecar` is one and a main container or a later sidecar still runs, or is just being started.
fn waits_for_others(draft: &Draft<'_>, sidecar: &Container) -> bool {
    let (pod, observed) = (draft.pod, draft.observed);
    let runs = |container: &Container| {
        let alive = observed.container(&container.name).is_some_and(|known| known.alive().next().is_some());
        alive || observed.is_in_flight(TaskKind::StartContainer, Some(&container.name))
    };
    let from_it_on = pod.init_containers.iter().skip_while(|container| container.name != sidecar.name);
    let mut later = from_it_on.skip(1).filter(|container| container.role == Role::Sidecar);
    sidecar.role == Role::Sidecar && (pod.containers.iter().any(runs) || later.any(runs))
}

/// Whether no sandbox is ready and none is about to be.
fn stop_sandboxes(draft: &mut Draft<'_>) -> bool {
    let observed = draft.observed;
    let ready = || observed.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
    for sandbox in ready() {
        draft.act(Action::StopSandbox { id: sandbox.id.clone() }, "no container of the pod runs any more");
    }
    ready().next().is_none()
        && !observed.is_in_flight(TaskKind::RunSandbox, None)
        && !observed.is_in_doubt(TaskKind::RunSandbox, None)
        && !observed.is_in_flight(TaskKind::StopSandbox, None)
}

/// Whether the volumes are gone and are not about to be made.
fn release_volumes(draft: &mut Draft<'_>) -> bool {
    let observed = draft.observed;
    if observed.is_in_flight(TaskKind::PrepareVolumes, None) {
        return false;
    }
    if observed.volumes != VolumeState::Released {
        draft.act(Action::ReleaseVolumes, "no sandbox of the pod is left to use its volumes");
    }
    observed.volumes == VolumeState::Released
}

/// Containers first: their sandbox goes when it is empty.
fn remove_remains(draft: &mut Draft<'_>) {
    let observed = draft.observed;
    for (name, instance) in observed.held() {
        let action = Action::RemoveContainer { container: name.clone(), id: instance.id.clone(), keep_log: false };
        draft.act(action, "nobody wants the pod any more");
    }
    if observed.held().next().is_none() {
        for sandbox in &observed.sandboxes {
            draft.act(Action::RemoveSandbox { id: sandbox.id.clone() }, "nobody wants the pod any more");
        }
    }
}

//! What a pod that runs no longer needs: older instances and sandboxes.

use super::Action;
use super::draft::Draft;
use crate::observed::{Instance, InstanceState, SandboxState};

/// One ended instance of each container is kept, for its log; sandboxes go once nothing is kept in them.
pub(super) fn collect(draft: &mut Draft<'_>) {
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
            let action = Action::RemoveContainer { container: name.clone(), id: instance.id.clone(), keep_log: false };
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

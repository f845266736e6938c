//! Amounts that were granted anew, put into force: live where the container allows it, by its restart where it does not.

use super::Action;
use super::draft::Draft;
use crate::observed::{Instance, InstanceState, Observed};
use crate::pod::{Container, Enforced};

/// Why `instance` must be restarted to get the amounts of `container`, if so. What an instance has that the runtime says
/// nothing of cannot be compared, and needs no restart.
pub(crate) fn why_restart(container: &Container, instance: &Instance) -> Option<String> {
    let (has, wants, policy) = (instance.enforced?, container.enforced(), container.resize_policy);
    let cpu = (has.cpu_quota_micros, has.cpu_shares) != (wants.cpu_quota_micros, wants.cpu_shares);
    let memory = has.memory_limit_bytes != wants.memory_limit_bytes;
    let restart = (cpu && policy.restart_for_cpu) || (memory && policy.restart_for_memory);
    restart.then(|| format!("Container {} resize requires restart", container.name))
}

/// The amounts that `instance` of `container` is to be held to and is not.
pub(crate) fn lacks(container: &Container, instance: &Instance, observed: &Observed) -> Option<Enforced> {
    let wants = container.enforced();
    let differs = match instance.enforced {
        Some(has) => has != wants,
        // The runtime does not tell: once for each resize.
        None => observed.resize.is_in_progress(),
    };
    let may_be_used = matches!(instance.state, InstanceState::Created | InstanceState::Running { .. });
    (differs && may_be_used && instance.held).then_some(wants)
}

/// Plans the changes that need no restart.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let (pod, observed) = (draft.pod, draft.observed);
    for container in pod.all_containers() {
        let newest = observed.container(&container.name).and_then(|known| known.newest());
        let Some(instance) = newest.filter(|instance| why_restart(container, instance).is_none()) else { continue };
        if let Some(enforced) = lacks(container, instance, observed) {
            let action = Action::UpdateResources {
                container: container.name.clone(),
                id: instance.id.clone(),
                resources: enforced,
            };
            draft.act(action, "other amounts were granted than are in force");
        }
    }
}

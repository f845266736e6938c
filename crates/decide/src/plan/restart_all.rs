//! All containers are to be started again: first everything goes, those that asked for it last.

use super::draft::Draft;
use super::{Action, Waiting};
use crate::observed::{Exit, REMOVED, RESTARTING_ALL};

/// Plans the next steps until nothing is left of the containers.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let (pod, observed) = (draft.pod, draft.observed);
    let why = "a container ended, and its rule has all of them started again";
    for (container, instance) in observed.restarted_together(pod).filter(|(_, instance)| instance.is_alive()) {
        draft.stop(&container.name, instance, draft.now, why, "killing".into());
    }
    let ended = || observed.restarted_together(pod).filter(|(_, instance)| instance.held && !instance.is_alive());
    let only_those_that_asked = observed
        .restarted_together(pod)
        .all(|(container, instance)| !instance.held || instance.asks_for_all(container));
    for (container, instance) in ended() {
        if only_those_that_asked || !instance.asks_for_all(container) {
            let (container, id) = (container.name.clone(), instance.id.clone());
            draft.act(Action::RemoveContainer { container, id, keep_log: true }, why);
        }
    }
    for container in pod.init_containers.iter().chain(&pod.containers) {
        let newest = observed.container(&container.name).and_then(|known| known.newest());
        if newest.and_then(|newest| newest.exit()).is_some_and(Exit::is_restarting_all) {
            let waiting = Waiting { reason: RESTARTING_ALL, message: REMOVED.into(), until: None, reports: Vec::new() };
            draft.wait(&container.name, waiting);
        }
    }
}

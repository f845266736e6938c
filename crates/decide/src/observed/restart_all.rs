//! The restart of all containers that an exit code asked for (`RestartAllContainers`), as far as it has come.
//!
//! It is asked for by an ended container that the runtime still holds, or by the pod's own condition, so a kubelet that
//! comes anew goes on with it. Everything is stopped and removed, those that asked last; what is gone is remembered as
//! gone for that, so that nothing counts as done any more.

use super::{Exit, Instance, InstanceState, Observed};
use crate::plan::Phase;
use crate::pod::{Container, Pod};
use crate::time::Timestamp;

/// The reason of what was removed to be started again, and of a container that waits for that.
pub(crate) const RESTARTING_ALL: &str = "RestartingAllContainers";
/// What such a container says.
pub(crate) const REMOVED: &str = "The container is removed because RestartAllContainers in place";
/// The condition that is true from the exit until everything is removed.
pub(crate) const CONDITION: &str = "AllContainersRestarting";

impl Exit {
    /// The end of an instance that was removed because every container of the pod is started again.
    #[must_use]
    pub fn restarting_all(started_at: Option<Timestamp>, finished_at: Timestamp) -> Self {
        Exit { started_at, finished_at, code: 137, reason: RESTARTING_ALL.into(), message: REMOVED.into() }
    }

    /// Whether it stands for such a removal: then the container is started again, whatever its policy.
    #[must_use]
    pub fn is_restarting_all(&self) -> bool {
        self.reason == RESTARTING_ALL
    }
}

impl Instance {
    /// Whether its end asks for a restart of all.
    #[must_use]
    pub fn asks_for_all(&self, container: &Container) -> bool {
        self.held && self.exit().is_some_and(|exit| container.restart.restarts_all_after(exit.code))
    }
}

impl Observed {
    /// Whether every container is to be started again and something is still there that must go before.
    #[must_use]
    pub fn is_restarting_all(&self, pod: &Pod) -> bool {
        self.must_restart_all(pod) && self.restarted_together(pod).any(|(_, instance)| instance.held)
    }

    /// Every instance of the containers that a restart of all is about: all but the ephemeral ones.
    pub fn restarted_together<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (&'a Container, &'a Instance)> {
        pod.init_containers.iter().chain(&pod.containers).flat_map(|container| {
            let instances = self.container(&container.name).into_iter().flat_map(|known| &known.instances);
            instances.map(move |instance| (container, instance))
        })
    }

    /// What went while all containers are to be started again went for that.
    pub(super) fn forget_what_went(&mut self, pod: &Pod) {
        if !self.must_restart_all(pod) {
            return;
        }
        for container in pod.init_containers.iter().chain(&pod.containers) {
            let newest = self.containers.get_mut(&container.name).and_then(|known| known.instances.last_mut());
            let Some(newest) = newest.filter(|newest| !newest.held) else {
                continue;
            };
            if let InstanceState::Exited(exit) = &mut newest.state {
                *exit = Exit::restarting_all(exit.started_at, exit.finished_at);
            }
        }
    }

    fn must_restart_all(&self, pod: &Pod) -> bool {
        let conditions = self.status.conditions.iter().flatten();
        let mut said = conditions.filter(|condition| condition.type_ == CONDITION);
        let asks = |container: &Container| {
            let newest = self.container(&container.name).and_then(|known| known.newest());
            newest.is_some_and(|newest| newest.asks_for_all(container))
        };
        Phase::terminal(&self.status).is_none()
            && self.ending.is_none()
            && (said.any(|condition| condition.status == "True")
                || pod.init_containers.iter().chain(&pod.containers).any(asks))
    }
}

//! Whose turn it is: init containers one after another, sidecars in their place among them, then the main containers.
//!
//! How far a pod has come is read from the instances in the sandbox of now: the last init container that has one is where
//! the pod is, and all before it have had their turn. A main container in that sandbox says that all had. So nothing is
//! run again because the runtime no longer holds what has ended, and everything is once the sandbox is a new one.

use super::has_started;
use crate::observed::{Observed, Sandbox};
use crate::pod::{Container, Pod, RestartPolicy, Role};

/// Whose turn it is in a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    pod: &'a Pod,
    /// How many init containers have had their turn.
    passed: usize,
}

impl<'a> Turn<'a> {
    pub(crate) fn of(pod: &'a Pod, observed: &Observed) -> Self {
        let sandbox = observed.ready_sandbox();
        let has_begun = |container: &Container| has_begun(container, observed, sandbox);
        let passed = if pod.containers.iter().any(has_begun) {
            pod.init_containers.len()
        } else {
            match pod.init_containers.iter().rposition(has_begun) {
                None => 0,
                Some(last) => last + usize::from(lets_others_begin(&pod.init_containers[last], observed)),
            }
        };
        Turn { pod, passed }
    }

    /// Whether every init container has had its turn.
    pub(crate) fn is_initialized(&self) -> bool {
        self.passed >= self.pod.init_containers.len()
    }

    /// Whether `container` is to be brought up now: it is its turn, or it goes on beside what came after it.
    pub(crate) fn is_due(&self, container: &Container) -> bool {
        let place = || self.pod.init_containers.iter().position(|one| one.name == container.name);
        match container.role {
            Role::Init => place() == Some(self.passed),
            Role::Sidecar => place().is_some_and(|place| place <= self.passed),
            Role::Main => self.is_initialized(),
            Role::Ephemeral => true,
        }
    }
}

/// Whether the newest instance is one of the sandbox of now. A container that must not run twice has had its only turn
/// once it succeeded, whatever became of its sandbox.
fn has_begun(container: &Container, observed: &Observed, sandbox: Option<&Sandbox>) -> bool {
    let Some(newest) = observed.container(&container.name).and_then(|known| known.newest()) else {
        return false;
    };
    let ran_once = container.role == Role::Init && container.restart.policy == RestartPolicy::Never;
    match newest.exit() {
        Some(exit) if exit.is_restarting_all() => false,
        Some(exit) if ran_once && exit.code == 0 => true,
        _ => sandbox.is_some_and(|sandbox| newest.is_of(sandbox)),
    }
}

fn lets_others_begin(container: &Container, observed: &Observed) -> bool {
    match container.role {
        Role::Sidecar => has_started(container, observed.container(&container.name)),
        Role::Init | Role::Main | Role::Ephemeral => {
            let newest = observed.container(&container.name).and_then(|known| known.newest());
            newest.and_then(|newest| newest.exit()).is_some_and(|exit| exit.code == 0)
        }
    }
}

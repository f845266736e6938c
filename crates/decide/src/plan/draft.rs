//! A plan being written: it takes what should be done and leaves out what is under way or must wait.

use super::{Action, Planned, Waiting, hook};
use crate::names::ContainerName;
use crate::observed::{Instance, Observed, PreStop, SHORTEST_GRACE};
use crate::pod::Pod;
use crate::report::Report;
use crate::time::{Timestamp, between};

use std::collections::BTreeMap;

/// A plan being written.
pub(super) struct Draft<'a> {
    pub(super) pod: &'a Pod,
    pub(super) observed: &'a Observed,
    pub(super) now: Timestamp,
    pub(super) actions: Vec<Planned>,
    pub(super) waiting: BTreeMap<ContainerName, Waiting>,
    pub(super) wake_at: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(pod: &'a Pod, observed: &'a Observed, now: Timestamp) -> Self {
        Draft { pod, observed, now, actions: Vec::new(), waiting: BTreeMap::new(), wake_at: None }
    }

    /// Asks for `action`, unless its task is in flight or waits to be tried again.
    pub(super) fn act(&mut self, action: Action, why: impl Into<String>) {
        self.announce(action, why, None);
    }

    /// The same, with something to say when it begins.
    pub(super) fn announce(&mut self, action: Action, why: impl Into<String>, announce: Option<Report>) {
        let task = action.task();
        if self.observed.in_flight.get(&task).is_some_and(|under_way| !replaces(&action, under_way)) {
            return;
        }
        if self.actions.iter().any(|planned| planned.action.task() == task) {
            return;
        }
        let setback = self.observed.failures.get(&task).filter(|setback| setback.retry_at > self.now);
        if let Some(setback) = setback.filter(|_| !self.observed.in_flight.contains_key(&task)) {
            self.wake(setback.retry_at);
            return;
        }
        self.actions.push(Planned { action, why: why.into(), announce });
    }

    /// Stops `instance`, at the latest at `deadline`.
    pub(super) fn stop(
        &mut self,
        container: &ContainerName,
        instance: &Instance,
        deadline: Timestamp,
        why: impl Into<String>,
        killing: String,
    ) {
        let of_spec = self.pod.container(container);
        let deadline = match of_spec {
            Some(of_spec) => match hook::before_stop(self, of_spec, instance, deadline, &killing) {
                Some(deadline) => deadline,
                None => return,
            },
            None => deadline,
        };
        let action = Action::StopContainer {
            container: container.clone(),
            id: instance.id.clone(),
            grace: between(self.now, deadline).max(SHORTEST_GRACE),
            deadline,
        };
        // Said once: when its hook began, or when the first of its stops did.
        let said = self.observed.in_flight.contains_key(&action.task()) || instance.pre_stop != PreStop::Owed;
        let announce = (!said).then(|| Report::normal("Killing", killing).of(container));
        self.announce(action, why, announce);
    }

    /// The plan is to be made again at `at`, if that lies ahead.
    pub(super) fn wake(&mut self, at: Timestamp) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// `container` does not run, for that reason.
    pub(super) fn wait(&mut self, container: &ContainerName, waiting: Waiting) {
        if let Some(until) = waiting.until {
            self.wake(until);
        }
        self.waiting.insert(container.clone(), waiting);
    }
}

/// A stop takes the place of one under way that would end later, and a probe that of one about another instance: that one
/// is gone, and its answer means nothing any more.
fn replaces(action: &Action, under_way: &Action) -> bool {
    match (action, under_way) {
        (Action::StopContainer { id, deadline, .. }, Action::StopContainer { id: other, deadline: later, .. }) => {
            id == other && deadline < later
        }
        (Action::Probe { id, .. }, Action::Probe { id: other, .. }) => id != other,
        _ => false,
    }
}

//! What came of hooks.

use super::{ContainerObserved, Observed, PostStart, PreStop};
use crate::event::Failure;
use crate::names::{ContainerId, ContainerName};
use crate::report::Report;
use crate::time::Timestamp;

impl Observed {
    /// A `postStart` has ended. What it said is for the status alone: it may tell secrets.
    pub(super) fn post_start_run(
        &mut self,
        name: &ContainerName,
        id: &ContainerId,
        result: Result<(), Failure>,
        now: Timestamp,
    ) -> Vec<Report> {
        let known = self.containers.entry(name.clone()).or_default();
        let report = result.is_err().then(|| Report::warning("FailedPostStartHook", "PostStartHook failed").of(name));
        let post_start = match result {
            Ok(()) => PostStart::Done,
            Err(failure) => PostStart::Failed { message: failure.message, at: now },
        };
        for instance in known.instances.iter_mut().filter(|instance| instance.id == *id) {
            instance.post_start = post_start.clone();
        }
        report.into_iter().collect()
    }
}

/// A `preStop` has ended; whatever came of it, the stop follows.
pub(super) fn pre_stop_run(name: &ContainerName, result: &Result<(), Failure>) -> Vec<Report> {
    let report = || Report::warning("FailedPreStopHook", "PreStopHook failed").of(name);
    result.is_err().then(report).into_iter().collect()
}

impl ContainerObserved {
    pub(super) fn pre_stop_begins(&mut self, id: &ContainerId, deadline: Timestamp) {
        for instance in self.instances.iter_mut().filter(|instance| instance.id == *id) {
            instance.pre_stop = PreStop::Begun { deadline };
        }
    }
}

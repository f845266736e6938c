//! What is known of a pod's resize: what was granted last, and what people were told of it.

use super::{InstanceState, Observed};
use crate::allocation::{Allocation, PendingReason, PendingResize};
use crate::names::ContainerName;
use crate::plan::{TaskKind, lacks, why_restart};
use crate::pod::Pod;
use crate::report::Report;
use k8s_openapi::api::core::v1 as api;

/// What is known of a pod's resize.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResizeObserved {
    /// What was granted last; none before the pod was first heard of in this process.
    granted: Option<Allocation>,
    /// The generation of the pod whose amounts were granted and are not known to be in force.
    in_progress: Option<Option<i64>>,
    /// Reason, message and generation of what was last said not to be granted.
    pending: Option<(String, String, Option<i64>)>,
}

impl ResizeObserved {
    /// What the conditions of a published status tell.
    pub(super) fn of(status: &api::PodStatus) -> Self {
        let condition =
            |type_: &str| status.conditions.iter().flatten().find(|one| one.type_ == type_ && one.status == "True");
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ResizeObserved {
            granted: None,
            in_progress: condition("PodResizeInProgress").map(|one| one.observed_generation),
            pending: condition("PodResizePending")
                .map(|one| (text(&one.reason), text(&one.message), one.observed_generation)),
        }
    }

    /// Whether amounts were granted that are not known to be in force.
    #[must_use]
    pub fn is_in_progress(&self) -> bool {
        self.in_progress.is_some()
    }

    /// The generation of the pod whose amounts are being put into force.
    #[must_use]
    pub fn generation(&self) -> Option<i64> {
        self.in_progress.flatten()
    }

    /// The source, or the node, says something new about the pod.
    pub(super) fn desired(&mut self, pod: &Pod) -> Vec<Report> {
        let mut reports = Vec::new();
        let granted = Allocation::of(&pod.api);
        if self.granted.as_ref().is_some_and(|before| *before != granted) {
            self.in_progress = Some(pod.generation);
            let summary = granted.summary(pod, None);
            reports.push(Report::normal("ResizeStarted", format!("Pod resize started: {summary}")));
        }
        self.granted = Some(granted);
        let pending = pod.pending_resize.as_ref();
        let said = pending.map(|pending| (pending.reason.as_str().into(), pending.message.clone(), pending.generation));
        if said != self.pending {
            reports.extend(pending.map(|pending| not_granted(pod, pending)));
            self.pending = said;
        }
        reports
    }
}

fn not_granted(pod: &Pod, pending: &PendingResize) -> Report {
    let summary = pending.wanted.summary(pod, Some(&pending.message));
    let reason = match pending.reason {
        PendingReason::Deferred => "ResizeDeferred",
        PendingReason::Infeasible => "ResizeInfeasible",
    };
    Report::warning(reason, format!("Pod resize {}: {summary}", pending.reason.as_str()))
}

impl Observed {
    /// Whether it has come to be that every container that runs has what was granted to it, and what to say then.
    pub(super) fn resized(&mut self, pod: &Pod) -> Option<Report> {
        let in_force = pod.all_containers().all(|container| {
            let Some(known) = self.container(&container.name) else { return true };
            let has_its_amounts = known.newest().is_none_or(|newest| match newest.state {
                InstanceState::Created => false,
                InstanceState::Running { .. } => lacks(container, newest, self).is_none(),
                // The next one is made with them.
                InstanceState::Exited(_) | InstanceState::Unknown => true,
            });
            has_its_amounts
                && !known.owes_restart
                && !self.is_in_flight(TaskKind::UpdateResources, Some(&container.name))
        });
        if !self.synced || !in_force {
            return None;
        }
        self.resize.in_progress.take()?;
        let summary = Allocation::of(&pod.api).summary(pod, None);
        Some(Report::normal("ResizeCompleted", format!("Pod resize completed: {summary}")))
    }

    /// What to say of a change of amounts that failed with this message; nothing if it failed so before.
    pub(super) fn resize_failed(&self, pod: &Pod, container: &ContainerName, message: &str) -> Option<Report> {
        let before = self.setback(TaskKind::UpdateResources, Some(container));
        let is_news = before.is_none_or(|before| before.failure.message != message);
        let summary = || Allocation::of(&pod.api).summary(pod, Some(message));
        is_news.then(|| Report::warning("ResizeError", format!("Pod resize error: {}", summary())))
    }

    /// Whether the container's end was ours, so that it gets other amounts: it is started again whatever its policy says.
    pub(super) fn was_stopped_for_a_resize(&self, pod: &Pod, name: &ContainerName) -> bool {
        let newest = self.container(name).and_then(|known| known.newest());
        let restarts = pod.container(name).zip(newest).and_then(|(container, newest)| why_restart(container, newest));
        self.ending.is_none() && restarts.is_some()
    }
}

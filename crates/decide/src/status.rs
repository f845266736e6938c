//! The pod's status, as the API server and `kubectl` see it.
//!
//! Comes in: the pod, what is known of it, its course and why containers wait. Goes out: a full `PodStatus`, and
//! [`merge`] for the publisher. Never here: a way back from a terminal phase.

mod conditions;
mod containers;
mod phase;
mod resize;
#[cfg(test)]
mod tests;

use crate::names::ContainerName;
use crate::observed::{Admission, Observed};
use crate::plan::{Because, Course, Phase, TaskKind, Waiting};
use crate::pod::{Pod, Rejection};
use crate::qos;
use crate::time::{Timestamp, whole_seconds};
use containers::Statuses;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The status of `pod` at `now`.
pub(crate) fn of(
    pod: &Pod,
    observed: &Observed,
    course: &Course,
    waiting: &BTreeMap<ContainerName, Waiting>,
    now: Timestamp,
) -> api::PodStatus {
    let before = &observed.status;
    if !observed.synced && before.phase.is_some() {
        return before.clone();
    }
    let over = is_over(observed, course);
    // A pod that was rejected, now or once, has no containers to tell of.
    let rejected = match course {
        Course::WindDown { because: Because::Rejected, .. } => true,
        _ => Phase::terminal(before).is_some() && before.container_statuses.is_none(),
    };
    let statuses = (!rejected).then(|| Statuses::of(pod, observed, waiting, over));
    let (phase, reason, message) = phase(pod, observed, course, statuses.as_ref(), over);
    let pod_ips = pod_ips(pod, observed);
    let conditions = match &statuses {
        None => conditions::foreign_and_kept(pod, before),
        Some(statuses) => conditions::all(pod, observed, phase, statuses, now),
    };
    let Statuses { init, main, ephemeral } = statuses.unwrap_or_default();
    api::PodStatus {
        phase: Some(phase.as_str().into()),
        reason,
        message,
        observed_generation: pod.generation,
        conditions: Some(conditions),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: (!main.is_empty()).then(|| Statuses::by_name(&main)),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then(|| Statuses::by_name(&ephemeral)),
        host_ip: observed.host_ips.first().map(ToString::to_string),
        host_ips: Some(observed.host_ips.iter().map(|ip| api::HostIP { ip: ip.to_string() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| pod_ips.into_iter().map(|ip| api::PodIP { ip }).collect()),
        qos_class: Some(before.qos_class.clone().unwrap_or_else(|| qos::class(pod).as_str().into())),
        start_time: Some(before.start_time.clone().unwrap_or_else(|| Time(whole_seconds(observed.seen_at)))),
        ..foreign(pod)
    }
}

/// The status of a pod that could not be read, or asks for what this node does not do.
#[must_use]
pub fn refused(pod: &api::Pod, rejection: &Rejection, host_ips: &[IpAddr], now: Timestamp) -> api::PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    if Phase::terminal(&before).is_some() {
        return before;
    }
    api::PodStatus {
        phase: Some(Phase::Failed.as_str().into()),
        reason: Some(rejection.reason.clone().into_owned()),
        message: Some(rejection_message(rejection)),
        observed_generation: pod.metadata.generation,
        start_time: before.start_time.clone().or_else(|| Some(Time(whole_seconds(now)))),
        host_ip: host_ips.first().map(ToString::to_string),
        host_ips: Some(host_ips.iter().map(|ip| api::HostIP { ip: ip.to_string() }).collect()),
        ..before
    }
}

/// What to write over `current`, the status the API server has, when `ours` is to be published: conditions of others
/// stay, transition times stay where nothing moved, and a terminal phase stays whatever `ours` says.
#[must_use]
pub fn merge(current: &api::PodStatus, ours: &api::PodStatus) -> api::PodStatus {
    let conditions = conditions::merge(
        current.conditions.as_deref().unwrap_or_default(),
        ours.conditions.as_deref().unwrap_or_default(),
    );
    let ended = Phase::terminal(current).is_some();
    let phase_of = if ended { current } else { ours };
    api::PodStatus {
        phase: phase_of.phase.clone(),
        reason: phase_of.reason.clone(),
        message: phase_of.message.clone(),
        conditions: Some(conditions),
        start_time: current.start_time.clone().or_else(|| ours.start_time.clone()),
        nominated_node_name: current.nominated_node_name.clone(),
        resource_claim_statuses: current.resource_claim_statuses.clone(),
        extended_resource_claim_status: current.extended_resource_claim_status.clone(),
        ..ours.clone()
    }
}

/// What others write into the status.
fn foreign(pod: &Pod) -> api::PodStatus {
    let theirs = pod.api.status.clone().unwrap_or_default();
    api::PodStatus {
        nominated_node_name: theirs.nominated_node_name,
        resource_claim_statuses: theirs.resource_claim_statuses,
        extended_resource_claim_status: theirs.extended_resource_claim_status,
        ..api::PodStatus::default()
    }
}

fn rejection_message(rejection: &Rejection) -> String {
    format!("Pod was rejected: {}", rejection.message)
}

/// Whether the pod winds down and nothing of it runs or is about to: what has not ended by now never will.
fn is_over(observed: &Observed, course: &Course) -> bool {
    let starts = [TaskKind::CreateContainer, TaskKind::StartContainer];
    matches!(course, Course::WindDown { .. })
        && observed.alive().next().is_none()
        && !observed.in_flight.keys().any(|task| starts.contains(&task.kind))
        && !starts.into_iter().any(|kind| observed.is_any_in_doubt(kind))
}

/// Phase, reason and message. A terminal phase stays with its reason and message.
fn phase(
    pod: &Pod,
    observed: &Observed,
    course: &Course,
    statuses: Option<&Statuses>,
    over: bool,
) -> (Phase, Option<String>, Option<String>) {
    let before = &observed.status;
    if let Some(phase) = Phase::terminal(before) {
        return (phase, before.reason.clone(), before.message.clone());
    }
    if let (Course::WindDown { because: Because::Rejected, .. }, Admission::Rejected(rejection)) =
        (course, &observed.admission)
    {
        return (Phase::Failed, Some(rejection.reason.clone().into_owned()), Some(rejection_message(rejection)));
    }
    let by_containers = || statuses.map_or(Phase::Pending, |statuses| phase::by_containers(pod, statuses, over));
    if let Some(eviction) = observed.evicted.as_ref().filter(|_| over) {
        return (Phase::Failed, Some(eviction.reason.into()), Some(eviction.message.into()));
    }
    if matches!(course, Course::WindDown { because: Because::DeadlineExceeded, .. }) {
        let phase = if over { Phase::Failed } else { by_containers() };
        let message = "Pod was active on the node longer than the specified deadline";
        return (phase, Some("DeadlineExceeded".into()), Some(message.into()));
    }
    (by_containers(), None, None)
}

/// The pod's addresses: its sandbox's, the node's for `hostNetwork`, else those it had last.
fn pod_ips(pod: &Pod, observed: &Observed) -> Vec<String> {
    let texts = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let sandbox = observed.sandbox();
    if pod.network.host_network && sandbox.is_some() {
        return texts(&observed.host_ips);
    }
    match sandbox.map(|sandbox| texts(&sandbox.ips)) {
        Some(ips) if !ips.is_empty() => ips,
        _ => observed.status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    }
}

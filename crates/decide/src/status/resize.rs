//! What a status says of amounts: what is in force, what is not granted, what is being put into force.

use crate::observed::{Instance, Observed};
use crate::plan::TaskKind;
use crate::pod::{Container, Pod};
use crate::quantity::Amount;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// A condition about a resize; its absence says that there is nothing to say.
pub(super) struct ResizeCondition {
    pub(super) type_: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) message: Option<String>,
    pub(super) generation: Option<i64>,
}

/// The conditions of the pod's resize.
pub(super) fn conditions(pod: &Pod, observed: &Observed) -> Vec<ResizeCondition> {
    let pending = pod.pending_resize.as_ref().map(|pending| ResizeCondition {
        type_: "PodResizePending",
        reason: Some(pending.reason.as_str()),
        message: Some(pending.message.clone()),
        generation: pending.generation,
    });
    let failures = pod.all_containers().filter_map(|container| {
        let setback = observed.setback(TaskKind::UpdateResources, Some(&container.name))?;
        Some(setback.failure.message.as_str())
    });
    let failures: Vec<&str> = failures.collect();
    let in_progress = observed.resize.is_in_progress().then(|| ResizeCondition {
        type_: "PodResizeInProgress",
        reason: (!failures.is_empty()).then_some("Error"),
        message: (!failures.is_empty()).then(|| failures.join("; ")),
        generation: observed.resize.generation(),
    });
    pending.into_iter().chain(in_progress).collect()
}

/// What is in force for a running instance: what was granted, but for what the runtime holds it to otherwise.
pub(super) fn in_force(
    container: &Container,
    instance: &Instance,
    granted: api::ResourceRequirements,
) -> api::ResourceRequirements {
    let mut amounts = api::ResourceRequirements { claims: None, ..granted };
    let wants = container.enforced();
    let Some(has) = instance.enforced.filter(|has| *has != wants) else { return amounts };
    let cpu = |millis: u64| Amount::thousandths(i64::try_from(millis).unwrap_or(i64::MAX)).decimal();
    if has.cpu_quota_micros != wants.cpu_quota_micros {
        put(&mut amounts.limits, "cpu", has.cpu_limit_millis().map(cpu));
    }
    if has.memory_limit_bytes != wants.memory_limit_bytes {
        put(&mut amounts.limits, "memory", has.memory_limit_bytes.map(|bytes| Amount::units(bytes).binary()));
    }
    if has.cpu_shares != wants.cpu_shares {
        put(&mut amounts.requests, "cpu", Some(cpu(has.cpu_request_millis())));
    }
    amounts
}

fn put(amounts: &mut Option<BTreeMap<String, Quantity>>, name: &str, amount: Option<Quantity>) {
    let all = amounts.get_or_insert_default();
    match amount {
        Some(amount) => drop(all.insert(name.into(), amount)),
        None => drop(all.remove(name)),
    }
    if all.is_empty() {
        *amounts = None;
    }
}

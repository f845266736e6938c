//! What the node has granted of what a pod's spec asks for, now that the spec may ask for other amounts while it runs.
//!
//! Comes in: the pod as its source wants it, what was granted before, the other pods as granted, what the node has. Goes
//! out: the object with the granted amounts in it, from which the pod is parsed that everything else works with, and a
//! verdict on what was not granted. Never here: what a runtime enforces; the plan sees to that.
//!
//! What was granted outlives the process in the pod's own status: `allocatedResources` has the requests, `resources` the
//! limits in force. Requests and limits are granted together, so requests that are those of the spec tell that all is.

#[cfg(test)]
mod tests;

use crate::admission::{Capacity, Preemption, room};
use crate::pod::Pod;
use crate::qos::{self, QosClass};
use crate::time::Timestamp;
use k8s_openapi::api::core::v1 as api;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Amounts granted to containers whose amounts can change: main ones and sidecars, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation(BTreeMap<String, api::ResourceRequirements>);

/// Why the node does not grant what a spec asks for (the reasons of the condition `PodResizePending`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingReason {
    /// Not now: others have what it wants.
    Deferred,
    /// Not on this node.
    Infeasible,
}

impl PendingReason {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PendingReason::Deferred => "Deferred",
            PendingReason::Infeasible => "Infeasible",
        }
    }
}

/// A resize that was not granted.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingResize {
    /// Why.
    pub reason: PendingReason,
    /// What is missing, in the kubelet's words.
    pub message: String,
    /// The generation of the pod that was judged.
    pub generation: Option<i64>,
    /// The amounts that were asked for, for the Event.
    pub wanted: Allocation,
}

impl PendingResize {
    /// What the pod's status says is not granted, and since when, if the spec asks for other amounts than `granted`.
    #[must_use]
    pub fn remembered(pod: &api::Pod, granted: &Allocation) -> Option<(Self, Timestamp)> {
        let wanted = Allocation::of(pod);
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let mut pending = conditions.filter(|one| one.type_ == "PodResizePending" && one.status == "True");
        let condition = pending.next().filter(|_| wanted != *granted)?;
        let reason = match condition.reason.as_deref() {
            Some("Deferred") => PendingReason::Deferred,
            Some("Infeasible") => PendingReason::Infeasible,
            _ => return None,
        };
        let message = condition.message.clone().unwrap_or_default();
        let since = condition.last_transition_time.as_ref()?.0;
        Some((PendingResize { reason, message, generation: condition.observed_generation, wanted }, since))
    }
}

impl Allocation {
    /// All that the spec asks for.
    #[must_use]
    pub fn of(pod: &api::Pod) -> Self {
        let amounts = |container: &api::Container| {
            let amounts = container.resources.clone().unwrap_or_default();
            (container.name.clone(), api::ResourceRequirements { claims: None, ..amounts })
        };
        Allocation(resizable(pod).map(amounts).collect())
    }

    /// What the pod's status says was granted; all, if it says nothing.
    #[must_use]
    pub fn remembered(pod: &api::Pod) -> Self {
        let wanted = Self::of(pod);
        let Some(status) = &pod.status else { return wanted };
        let both = [&status.container_statuses, &status.init_container_statuses];
        let statuses: BTreeMap<&str, &api::ContainerStatus> =
            both.into_iter().flatten().flatten().map(|status| (status.name.as_str(), status)).collect();
        let granted = |name: &str| statuses.get(name).and_then(|status| status.allocated_resources.clone());
        let is_granted = |(name, amounts): (&String, &api::ResourceRequirements)| {
            granted(name).is_none_or(|granted| granted == amounts.requests.clone().unwrap_or_default())
        };
        if wanted.0.iter().all(is_granted) {
            return wanted;
        }
        let of_container = |(name, amounts): (String, api::ResourceRequirements)| {
            let in_force = statuses.get(name.as_str()).and_then(|status| status.resources.clone());
            let limits = in_force.map_or(amounts.limits, |in_force| in_force.limits);
            let requests = granted(&name).or(amounts.requests);
            (name, api::ResourceRequirements { limits, requests, claims: None })
        };
        Allocation(wanted.0.into_iter().map(of_container).collect())
    }

    /// The object with these amounts in the place of its own.
    #[must_use]
    pub fn applied_to(&self, pod: &Arc<api::Pod>) -> Arc<api::Pod> {
        if *self == Self::of(pod) {
            return Arc::clone(pod);
        }
        let mut object = (**pod).clone();
        let spec = object.spec.iter_mut();
        let lists = spec.flat_map(|spec| spec.init_containers.iter_mut().flatten().chain(&mut spec.containers));
        for container in lists {
            if let Some(amounts) = self.0.get(&container.name) {
                let claims = container.resources.as_mut().and_then(|resources| resources.claims.take());
                container.resources = Some(api::ResourceRequirements { claims, ..amounts.clone() });
            }
        }
        Arc::new(object)
    }

    /// The amounts as the kubelet's Events tell them, in JSON.
    #[must_use]
    pub(crate) fn summary(&self, pod: &Pod, error: Option<&str>) -> String {
        let spec = pod.api.spec.as_ref();
        let of = |list: &[api::Container]| {
            let one = |container: &api::Container| {
                let resources = self.0.get(&container.name)?.clone();
                Some(Amounts { name: container.name.clone(), resources })
            };
            list.iter().filter_map(one).collect()
        };
        let summary = Summary {
            init_containers: of(spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()),
            containers: of(spec.map(|spec| spec.containers.as_slice()).unwrap_or_default()),
            generation: pod.generation.unwrap_or(0),
            error,
        };
        serde_json::to_string(&summary).unwrap_or_default()
    }
}

/// What an Event tells of a resize.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Amounts>,
    containers: Vec<Amounts>,
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Amounts {
    name: String,
    resources: api::ResourceRequirements,
}

/// Containers whose amounts can change while they run.
fn resizable(pod: &api::Pod) -> impl Iterator<Item = &api::Container> {
    let is_sidecar = |container: &&api::Container| container.restart_policy.as_deref() == Some("Always");
    let spec = pod.spec.iter();
    spec.flat_map(move |spec| spec.init_containers.iter().flatten().filter(is_sidecar).chain(&spec.containers))
}

/// Whether a node of `capacity` that has granted `others` what they have can give `wanted` what it asks for: at once, or,
/// being critical, once others have ended for it.
///
/// # Errors
/// It cannot, now or ever.
pub fn judge(wanted: &Pod, others: &[&Pod], capacity: &Capacity) -> Result<Option<Preemption>, PendingResize> {
    let pending = |reason, message: String| PendingResize {
        reason,
        message,
        generation: wanted.generation,
        wanted: Allocation::of(&wanted.api),
    };
    if wanted.is_static {
        let message = "In-place resize of static-pods is not supported";
        return Err(pending(PendingReason::Infeasible, message.into()));
    }
    let (asked, has) = (wanted.requests(), &capacity.allocatable);
    let amounts = [("memory", asked.memory_bytes, has.memory_bytes), ("cpu", asked.cpu_millis, has.cpu_millis)];
    for (name, asked, has) in amounts {
        if let (Some(asked), Some(has)) = (asked, has)
            && asked > has
        {
            let message = format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {has}");
            return Err(pending(PendingReason::Infeasible, message));
        }
    }
    room(wanted, others, capacity).map_err(|rejection| pending(PendingReason::Deferred, rejection.message))
}

/// What decides which of several resizes is judged first: the least one. Those that ask for no more, then the pod's
/// priority, then its class, then the time it has waited.
#[must_use]
pub fn precedence(wanted: &Pod, granted: &Pod, waits_since: Timestamp) -> impl Ord + use<> {
    let (new, old) = (wanted.requests(), granted.requests());
    let grows = new.cpu_millis > old.cpu_millis || new.memory_bytes > old.memory_bytes;
    let priority = wanted.priority().unwrap_or(0);
    (grows, std::cmp::Reverse(priority), qos::class(granted) != QosClass::Guaranteed, waits_since)
}

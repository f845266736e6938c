//! Whether this node takes a pod, given those it has: the last check before anything is done for it.
//!
//! Comes in: the pod, the node's other pods, what the node has. Goes out: yes, yes once others have ended for it, or a
//! rejection in the kubelet's words. What no wasklet node runs was refused before, by `parse`.

mod affinity;
mod preemption;
mod taints;
#[cfg(test)]
mod tests;

pub use preemption::Preemption;

use crate::plan::Phase;
use crate::pod::{Pod, Port, Rejection, Resources};
use k8s_openapi::api::core::v1 as api;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a node has to give, and what it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capacity {
    /// The most pods at a time.
    pub pods: u64,
    /// What all of them may ask for together; absent is not counted.
    pub allocatable: Resources,
    /// The extended resources that the Node object lists, as `example.com/dongle`, in whole units.
    pub extended: BTreeMap<String, u64>,
    /// The node's name.
    pub node_name: String,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// The node's taints.
    pub taints: Vec<api::Taint>,
}

/// Whether a node of `capacity` that has `others` takes `pod` too: at once, or, being critical, once others have ended
/// for it.
///
/// # Errors
/// It does not; the rejection says what is short.
pub fn admit(pod: &Pod, others: &[&Pod], capacity: &Capacity) -> Result<Option<Preemption>, Rejection> {
    operating_system(pod, capacity)?;
    let fits_otherwise = placement(pod, capacity)
        .and_then(|()| host_ports(pod, &those_that_count(pod, others)))
        .and_then(|()| toleration(pod, capacity));
    let room = room(pod, others, capacity);
    match (&room, pod.is_critical()) {
        // An ordinary pod hears of the room first…
        (Err(_), false) => room,
        // …and no room would help a critical one that is in the wrong place, so nobody ends for it.
        _ => fits_otherwise.and(room),
    }
}

/// The same as far as amounts go: whether there is enough of everything that `pod` asks for.
///
/// # Errors
/// There is not; the rejection says of what.
pub fn room(pod: &Pod, others: &[&Pod], capacity: &Capacity) -> Result<Option<Preemption>, Rejection> {
    let others = those_that_count(pod, others);
    let short = shortages(pod, &others, capacity);
    match short.first() {
        None => Ok(None),
        Some(_) if pod.is_critical() => preemption::choose(pod, &others, &short).map(Some),
        Some(first) => Err(first.rejection()),
    }
}

fn those_that_count<'a>(pod: &Pod, others: &[&'a Pod]) -> Vec<&'a Pod> {
    let others = others.iter().filter(|other| other.uid != pod.uid && !has_ended(other));
    others.copied().collect()
}

fn has_ended(pod: &Pod) -> bool {
    pod.api.status.as_ref().is_some_and(|status| Phase::terminal(status).is_some())
}

/// The kubelet asks the pod's own label here; a selector is the placement's business.
fn operating_system(pod: &Pod, capacity: &Capacity) -> Result<(), Rejection> {
    let label = "kubernetes.io/os";
    match (pod.labels.get(label), capacity.labels.get(label)) {
        (Some(wanted), Some(is)) if wanted != is => Err(Rejection {
            reason: "PodOSSelectorNodeLabelDoesNotMatch".into(),
            message: format!("Failed to admit pod as the `{label}` label doesn't match node label"),
        }),
        _ => Ok(()),
    }
}

fn placement(pod: &Pod, capacity: &Capacity) -> Result<(), Rejection> {
    let selected = pod.node_selector.iter().all(|(key, value)| capacity.labels.get(key) == Some(value));
    let affine = pod.node_affinity.as_ref().is_none_or(|selector| affinity::matches(selector, capacity));
    match selected && affine {
        true => Ok(()),
        false => Err(Rejection {
            reason: "NodeAffinity".into(),
            message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into(),
        }),
    }
}

/// The node's own pods are nobody's to keep away.
fn toleration(pod: &Pod, capacity: &Capacity) -> Result<(), Rejection> {
    match pod.is_static || taints::are_tolerated(&capacity.taints, &pod.api) {
        true => Ok(()),
        false => Err(Rejection {
            reason: "TaintToleration".into(),
            message: "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate".into(),
        }),
    }
}

fn host_ports(pod: &Pod, others: &[&Pod]) -> Result<(), Rejection> {
    let taken: Vec<&Port> = others.iter().flat_map(|other| ports(other)).collect();
    match ports(pod).find(|port| taken.iter().any(|other| clash(port, other))) {
        None => Ok(()),
        Some(port) => Err(Rejection {
            reason: "NodePorts".into(),
            message: format!(
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports (host port {})",
                port.host_port.unwrap_or(port.container_port)
            ),
        }),
    }
}

fn ports(pod: &Pod) -> impl Iterator<Item = &Port> {
    let ports = pod.lasting_containers().flat_map(|container| &container.ports);
    ports.filter(|port| port.host_port.is_some())
}

fn clash(one: &Port, other: &Port) -> bool {
    let everywhere = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    one.host_port == other.host_port
        && one.protocol == other.protocol
        && (everywhere(one.host_ip) || everywhere(other.host_ip) || one.host_ip == other.host_ip)
}

/// A resource of which there is not enough: its Kubernetes name, and how much of it in thousandths (`cpu`) or whole units.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shortage {
    resource: Cow<'static, str>,
    requested: u64,
    used: u64,
    capacity: u64,
}

impl Shortage {
    /// By how much there is too little.
    fn missing(&self) -> u64 {
        self.requested.saturating_add(self.used).saturating_sub(self.capacity)
    }

    fn rejection(&self) -> Rejection {
        let Shortage { resource, requested, used, capacity } = self;
        let amounts = format!("requested: {requested}, used: {used}, capacity: {capacity}");
        Rejection {
            reason: format!("OutOf{resource}").into(),
            message: format!("Node didn't have enough resource: {resource}, {amounts}"),
        }
    }
}

/// In the kubelet's order: pods, CPU, memory, storage, then extended resources. Of those only what the node lists counts:
/// others are the cluster's to hand out.
fn shortages(pod: &Pod, others: &[&Pod], capacity: &Capacity) -> Vec<Shortage> {
    let wanted = pod.requests();
    let used = others.iter().map(|other| other.requests()).fold(Resources::default(), Resources::plus);
    let has = &capacity.allocatable;
    let pods = u64::try_from(others.len()).unwrap_or(u64::MAX);
    let own = [
        ("pods", Some(1), Some(pods), Some(capacity.pods)),
        ("cpu", wanted.cpu_millis, used.cpu_millis, has.cpu_millis),
        ("memory", wanted.memory_bytes, used.memory_bytes, has.memory_bytes),
        (
            "ephemeral-storage",
            wanted.ephemeral_storage_bytes,
            used.ephemeral_storage_bytes,
            has.ephemeral_storage_bytes,
        ),
    ];
    let own = own.map(|(name, wanted, used, has)| (Cow::from(name), wanted.unwrap_or(0), used.unwrap_or(0), has));
    let extended = pod.extended_requests().into_iter().map(|(name, wanted)| {
        let used = others.iter().map(|other| other.request(&name)).fold(0, u64::saturating_add);
        let has = capacity.extended.get(&name).copied();
        (Cow::from(name), wanted, used, has)
    });
    let short = own.into_iter().chain(extended).filter_map(|(resource, requested, used, capacity)| {
        let capacity = capacity?;
        // A pod that asks for nothing fits everywhere.
        (requested > 0 && requested.saturating_add(used) > capacity).then_some(Shortage {
            resource,
            requested,
            used,
            capacity,
        })
    });
    short.collect()
}

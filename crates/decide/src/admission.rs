//! Whether this node takes a pod, given those it has: the last check before anything is done for it.
//!
//! Comes in: the pod, the node's other pods, what the node has. Goes out: yes, or a rejection in the kubelet's words.
//! What no wasklet node runs was refused before, by `parse`.

mod affinity;
#[cfg(test)]
mod tests;

use crate::plan::Phase;
use crate::pod::{Pod, Port, Rejection, Resources};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a node has to give, and what it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capacity {
    /// The most pods at a time.
    pub pods: u64,
    /// What all of them may ask for together; absent is not counted.
    pub allocatable: Resources,
    /// The node's name.
    pub node_name: String,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
}

/// Whether a node of `capacity` that has `others` takes `pod` too.
///
/// # Errors
/// It does not; the rejection says what is short.
pub fn admit(pod: &Pod, others: &[&Pod], capacity: &Capacity) -> Result<(), Rejection> {
    let others = others.iter().filter(|other| other.uid != pod.uid && !has_ended(other));
    let others: Vec<&Pod> = others.copied().collect();
    operating_system(pod, capacity)?;
    placement(pod, capacity)?;
    host_ports(pod, &others)?;
    resources(pod, &others, capacity)
}

/// What a node of `capacity` that has `others` is short of for `pod`, if anything.
#[must_use]
pub fn shortage(pod: &Pod, others: &[&Pod], capacity: &Capacity) -> Option<Rejection> {
    let others = others.iter().filter(|other| other.uid != pod.uid && !has_ended(other));
    resources(pod, &others.copied().collect::<Vec<_>>(), capacity).err()
}

fn has_ended(pod: &Pod) -> bool {
    pod.api.status.as_ref().is_some_and(|status| Phase::terminal(status).is_some())
}

fn operating_system(pod: &Pod, capacity: &Capacity) -> Result<(), Rejection> {
    let label = "kubernetes.io/os";
    match (pod.node_selector.get(label), capacity.labels.get(label)) {
        (Some(wanted), Some(is)) if wanted != is => Err(Rejection {
            reason: "PodOSSelectorNodeLabelDoesNotMatch".into(),
            message: format!("the pod selects nodes with {label}={wanted}, and this one has {label}={is}"),
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

fn resources(pod: &Pod, others: &[&Pod], capacity: &Capacity) -> Result<(), Rejection> {
    let wanted = pod.requests();
    let used = others.iter().map(|other| other.requests()).fold(Resources::default(), Resources::plus);
    let has = &capacity.allocatable;
    let pods = u64::try_from(others.len()).unwrap_or(u64::MAX);
    let checks = [
        ("pods", "OutOfpods", Some(1), Some(pods), Some(capacity.pods)),
        ("cpu", "OutOfcpu", wanted.cpu_millis, used.cpu_millis, has.cpu_millis),
        ("memory", "OutOfmemory", wanted.memory_bytes, used.memory_bytes, has.memory_bytes),
        (
            "ephemeral-storage",
            "OutOfephemeral-storage",
            wanted.ephemeral_storage_bytes,
            used.ephemeral_storage_bytes,
            has.ephemeral_storage_bytes,
        ),
    ];
    for (name, reason, wanted, used, has) in checks {
        let (wanted, used) = (wanted.unwrap_or(0), used.unwrap_or(0));
        // A pod that asks for nothing fits everywhere.
        if let Some(has) = has.filter(|has| wanted > 0 && wanted.saturating_add(used) > *has) {
            let amounts = format!("requested: {wanted}, used: {used}, capacity: {has}");
            let message = format!("Node didn't have enough resource: {name}, {amounts}");
            return Err(Rejection { reason: reason.into(), message });
        }
    }
    Ok(())
}

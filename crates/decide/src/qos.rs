//! `status.qosClass`: how much a pod has asked for, in one word.

use crate::pod::{Pod, Resources};

/// The three classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QosClass {
    /// Nothing asked, nothing limited.
    BestEffort,
    /// Something in between.
    Burstable,
    /// CPU and memory limited in every container, and requested in full.
    Guaranteed,
}

impl QosClass {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::BestEffort => "BestEffort",
            QosClass::Burstable => "Burstable",
            QosClass::Guaranteed => "Guaranteed",
        }
    }
}

/// The class of `pod`; only CPU and memory count, and ephemeral containers do not.
#[must_use]
pub fn class(pod: &Pod) -> QosClass {
    let asks = |amounts: &Resources| set(amounts.cpu_millis) || set(amounts.memory_bytes);
    let containers = || pod.init_containers.iter().chain(&pod.containers);
    if !containers().any(|container| asks(&container.requests) || asks(&container.limits)) {
        return QosClass::BestEffort;
    }
    let guaranteed = containers().all(|container| {
        let (requests, limits) = (&container.requests, &container.limits);
        set(limits.cpu_millis)
            && set(limits.memory_bytes)
            && requests.cpu_millis == limits.cpu_millis
            && requests.memory_bytes == limits.memory_bytes
    });
    if guaranteed { QosClass::Guaranteed } else { QosClass::Burstable }
}

fn set(amount: Option<u64>) -> bool {
    amount.is_some_and(|amount| amount > 0)
}

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

#[cfg(test)]
mod tests {
    use super::QosClass::{BestEffort, Burstable, Guaranteed};
    use super::{QosClass, class};
    use crate::parse::parse;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn check(init: &Value, main: &Value, wanted: QosClass) {
        let container = |name: &str, resources: &Value| json!({ "name": name, "image": "i", "resources": resources });
        let spec = json!({ "initContainers": [container("i", init)], "containers": [container("c", main)] });
        let object = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec });
        let pod =
            parse(Arc::new(serde_json::from_value(object).unwrap())).map_err(|refused| refused.rejection).unwrap();
        assert_eq!(class(&pod), wanted, "{init} {main}");
    }

    #[test]
    fn a_class_follows_from_every_container() {
        let none = json!({});
        let all = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
        check(&none, &none, BestEffort);
        check(&none, &json!({ "requests": { "ephemeral-storage": "1Gi" } }), BestEffort);
        check(&none, &json!({ "limits": { "example.com/dongle": "1" } }), BestEffort);
        check(&all, &all, Guaranteed);
        check(&none, &all, Burstable);
        check(&all, &json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } }), Burstable);
        check(&all, &json!({ "limits": { "memory": "1Gi" } }), Burstable);
        check(&none, &json!({ "requests": { "cpu": "1m" } }), Burstable);
        check(&none, &json!({ "requests": { "cpu": "0" } }), BestEffort);
    }
}

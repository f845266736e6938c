//! Node selector terms: whether the part of a pod's node affinity that must hold does.

use super::Capacity;
use k8s_openapi::api::core::v1 as api;

/// One term must match. A term without a requirement matches nothing.
pub(super) fn matches(selector: &api::NodeSelector, capacity: &Capacity) -> bool {
    selector.node_selector_terms.iter().any(|term| {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let label = |requirement: &api::NodeSelectorRequirement| {
            holds(requirement, capacity.labels.get(&requirement.key).map(String::as_str))
        };
        let field = |requirement: &api::NodeSelectorRequirement| {
            let value = (requirement.key == "metadata.name").then_some(capacity.node_name.as_str());
            holds(requirement, value)
        };
        !(labels.is_empty() && fields.is_empty()) && labels.iter().all(label) && fields.iter().all(field)
    })
}

/// An operator that nobody knows does not hold.
fn holds(requirement: &api::NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|one| one == value);
    let bound = || values.first().and_then(|bound| bound.parse::<i64>().ok());
    let number = || value.and_then(|value| value.parse::<i64>().ok());
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
        "Lt" => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
        _ => false,
    }
}

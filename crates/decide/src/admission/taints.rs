//! Taints: whether a pod tolerates those of its node that nobody may run on without.
//!
//! The kubelet asks about `NoExecute` only; the other effects are the scheduler's.

use k8s_openapi::api::core::v1 as api;

/// Whether every `NoExecute` taint is tolerated. For how long is not asked here.
pub(super) fn are_tolerated(taints: &[api::Taint], pod: &api::Pod) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut taints = taints.iter().filter(|taint| taint.effect == "NoExecute");
    taints.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// An operator that nobody knows tolerates nothing.
fn tolerates(toleration: &api::Toleration, taint: &api::Taint) -> bool {
    let or_any =
        |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == is);
    let value_holds = match toleration.operator.as_deref() {
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some("Exists") => true,
        Some(_) => false,
    };
    or_any(&toleration.effect, &taint.effect) && or_any(&toleration.key, &taint.key) && value_holds
}

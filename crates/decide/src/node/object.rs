//! The object's metadata and spec: labels, annotation, taints.
//!
//! Comes in: [`Input`] and, where the node is there already, its object. Goes out: a new object, or the patch that brings
//! the old one's own labels back. Taints are given at birth only: a kubelet may not change them afterwards.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec, Taint},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};

use super::{Input, status::status};

/// What a wasm node is to the scheduler, and keeps Linux workloads away by their own selectors.
const OS: &str = "wasi";
const ARCH: &str = "wasm32-wasi";
const ATTACH_DETACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// The object that registers the node, status included.
#[must_use]
pub fn desired_node(input: &Input, now: Timestamp) -> Node {
    let taints = input.taints.clone().unwrap_or_else(|| {
        vec![Taint {
            key: "kubernetes.io/arch".to_owned(),
            value: Some(ARCH.to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        }]
    });
    Node {
        metadata: ObjectMeta {
            name: Some(input.name.clone()),
            labels: Some(labels(input)),
            annotations: Some(BTreeMap::from([(ATTACH_DETACH.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: input.provider_id.clone(),
            taints: (!taints.is_empty()).then_some(taints),
            ..NodeSpec::default()
        }),
        status: Some(status(input, None, now)),
    }
}

fn labels(input: &Input) -> BTreeMap<String, String> {
    own_labels(&input.hostname).into_iter().chain(input.labels.clone()).collect()
}

/// The labels every wasklet node has.
#[must_use]
pub fn own_labels(hostname: &str) -> BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", hostname),
        ("kubernetes.io/os", OS),
        ("kubernetes.io/arch", ARCH),
        ("beta.kubernetes.io/os", OS),
        ("beta.kubernetes.io/arch", ARCH),
    ];
    own.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The merge patch that gives an existing node its labels and annotation again; `None` where it has them. Whatever else
/// it has stays.
#[must_use]
pub fn metadata_patch(input: &Input, existing: &Node) -> Option<Value> {
    let has = existing.metadata.labels.as_ref();
    let missing: BTreeMap<String, String> =
        labels(input).into_iter().filter(|(key, value)| has.and_then(|has| has.get(key)) != Some(value)).collect();
    let annotated =
        existing.metadata.annotations.as_ref().is_some_and(|has| has.get(ATTACH_DETACH).is_some_and(|on| on == "true"));
    let mut metadata = serde_json::Map::new();
    if !missing.is_empty() {
        metadata.insert("labels".to_owned(), json!(missing));
    }
    if !annotated {
        metadata.insert("annotations".to_owned(), json!({ ATTACH_DETACH: "true" }));
    }
    (!metadata.is_empty()).then(|| json!({ "metadata": metadata }))
}

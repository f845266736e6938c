//! Which mirrors the API server is to have of this node's static pods: the static pods and the mirrors that are there come
//! in; which mirrors go and which are made goes out.
//!
//! A mirror is the API server's picture of a pod that it did not give: people see it there, and its deletion changes
//! nothing of the pod. It carries the hash of the pod that it shows, so that a changed pod is seen to need another one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use crate::names::{PodName, PodUid};

/// The annotation that makes an object of the API server a mirror; its value is the hash of the pod it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation of a static pod that tells it from others of its name.
pub const HASH: &str = "kubernetes.io/config.hash";

/// A static pod, as far as its mirror goes.
#[derive(Clone, Debug)]
pub enum StaticPod {
    /// It is wanted: it is to have a mirror.
    Wanted(Arc<Pod>),
    /// It still ends, though no source wants it any more: the mirror that is there stays until it is gone.
    Ending,
}

/// What is to be done about the mirrors of one name, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorWork {
    /// The name of the pod and of its mirror.
    pub name: PodName,
    /// The UIDs of the mirrors that go.
    pub delete: Vec<PodUid>,
    /// The static pod that gets a mirror then.
    pub create: Option<Arc<Pod>>,
}

/// Whether the API server's pod is a mirror.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    shows(pod).is_some()
}

/// The UID of the static pod that the mirror shows: the pods of files and URLs have their hash as UID.
#[must_use]
pub fn shows(mirror: &Pod) -> Option<PodUid> {
    annotation(mirror, MIRROR).map(PodUid::from)
}

/// What the API server's mirrors need to become those of `static_pods`. Unless `complete`, there may be static pods that
/// are not known yet, and mirrors of none are left alone.
#[must_use]
pub fn work<'a>(
    static_pods: &BTreeMap<PodName, StaticPod>,
    mirrors: impl IntoIterator<Item = &'a Pod>,
    complete: bool,
) -> Vec<MirrorWork> {
    let mut there: BTreeMap<PodName, Vec<&Pod>> = BTreeMap::new();
    for mirror in mirrors {
        there.entry(name_of(mirror)).or_default().push(mirror);
    }
    let names: BTreeSet<&PodName> = static_pods.keys().chain(there.keys()).collect();
    let each = names.into_iter().filter_map(|name| {
        let there = there.get(name).map(Vec::as_slice).unwrap_or_default();
        let wanted = match static_pods.get(name) {
            Some(StaticPod::Wanted(pod)) => Some(pod),
            Some(StaticPod::Ending) => return None,
            None if complete => None,
            None => return None,
        };
        let is_right = |mirror: &Pod| wanted.is_some_and(|pod| is_mirror_of(mirror, pod));
        let delete = there.iter().filter(|mirror| !is_right(mirror));
        let delete: Vec<PodUid> =
            delete.filter_map(|mirror| mirror.metadata.uid.as_deref().map(PodUid::from)).collect();
        let create = wanted.filter(|_| !there.iter().any(|mirror| is_right(mirror))).cloned();
        let anything = create.is_some() || !delete.is_empty();
        anything.then(|| MirrorWork { name: name.clone(), delete, create })
    });
    each.collect()
}

/// Whether the mirror shows this pod and is there to stay.
fn is_mirror_of(mirror: &Pod, pod: &Pod) -> bool {
    mirror.metadata.deletion_timestamp.is_none() && annotation(mirror, MIRROR) == annotation(pod, HASH)
}

/// The mirror of a static pod, owned by its node.
#[must_use]
pub fn object(pod: &Pod, node: &Node) -> Pod {
    let mut metadata = pod.metadata.clone();
    metadata.uid = None;
    metadata.resource_version = None;
    metadata.creation_timestamp = None;
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    Pod { metadata, spec: pod.spec.clone(), status: None }
}

/// What of the API server's a pod refers to, as its resource is called; a static pod may not, and its mirror would be
/// refused.
#[must_use]
pub fn api_reference(spec: &PodSpec) -> Option<&'static str> {
    if spec.service_account_name.as_ref().or(spec.service_account.as_ref()).is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    refers(&serde_json::to_value(spec).unwrap_or_default())
}

fn refers(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(fields) => {
            fields.iter().find_map(|(name, value)| resource(name, value).or_else(|| refers(value)))
        }
        Value::Array(items) => items.iter().find_map(refers),
        _ => None,
    }
}

/// The resource that a field of this name refers to. Labels may have such names, too, but not such values.
fn resource(field: &str, value: &Value) -> Option<&'static str> {
    let refers = value.is_object() || value.as_array().is_some_and(|items| !items.is_empty());
    let resource = match field {
        "imagePullSecrets" | "secret" | "secretRef" | "secretKeyRef" => "secrets",
        "configMap" | "configMapRef" | "configMapKeyRef" => "configmaps",
        "serviceAccountToken" => "serviceaccounts",
        "clusterTrustBundle" => "clustertrustbundles",
        "podCertificate" => "podcertificates",
        "persistentVolumeClaim" | "ephemeral" => "persistentvolumeclaims",
        "resourceClaims" => "resourceclaims",
        _ => return None,
    };
    refers.then_some(resource)
}

/// Namespace and name of an object.
#[must_use]
pub fn name_of(pod: &Pod) -> PodName {
    PodName {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: &Value) -> Pod {
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "containers": [] } })).unwrap()
    }

    fn static_pod(hash: &str) -> StaticPod {
        let annotations = json!({ HASH: hash });
        StaticPod::Wanted(Arc::new(pod(&json!({ "name": "a-n", "namespace": "x", "annotations": annotations }))))
    }

    fn mirror(uid: &str, hash: &str) -> Pod {
        pod(&json!({ "name": "a-n", "namespace": "x", "uid": uid, "annotations": { MIRROR: hash, HASH: hash } }))
    }

    fn leaving(mut mirror: Pod) -> Pod {
        mirror.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        mirror
    }

    fn check(of: Option<StaticPod>, mirrors: &[Pod], complete: bool, deleted: &[&str], created: bool) {
        let name = PodName { namespace: "x".into(), name: "a-n".into() };
        let work = work(&of.map(|pod| (name.clone(), pod)).into_iter().collect(), mirrors, complete);
        let found = work.first().map(|work| (work.delete.clone(), work.create.is_some()));
        let deleted: Vec<PodUid> = deleted.iter().map(|uid| PodUid::from(*uid)).collect();
        assert_eq!(found.unwrap_or_default(), (deleted, created));
    }

    #[test]
    fn a_static_pod_has_one_mirror_and_that_shows_it() {
        check(Some(static_pod("h")), &[], false, &[], true);
        check(Some(static_pod("h")), &[mirror("m", "h")], true, &[], false);
        check(Some(static_pod("h")), &[mirror("m", "old")], true, &["m"], true);
        check(Some(static_pod("h")), &[mirror("m", "old"), mirror("n", "h")], true, &["m"], false);
    }

    #[test]
    fn a_mirror_that_was_deleted_is_finished_and_made_again() {
        check(Some(static_pod("h")), &[leaving(mirror("m", "h"))], true, &["m"], true);
    }

    #[test]
    fn a_mirror_goes_when_its_pod_has_ended_and_no_sooner() {
        check(Some(StaticPod::Ending), &[mirror("m", "h")], true, &[], false);
        check(None, &[mirror("m", "h")], true, &["m"], false);
        // A source that has not said anything yet may still want it.
        check(None, &[mirror("m", "h")], false, &[], false);
    }

    #[test]
    fn what_a_static_pod_may_not_refer_to_is_found_wherever_it_stands() {
        for (field, value, wanted) in [
            ("nodeSelector", json!({ "secret": "label" }), None),
            ("imagePullSecrets", json!([]), None),
            ("imagePullSecrets", json!([{ "name": "s" }]), Some("secrets")),
            ("serviceAccountName", json!("s"), Some("serviceaccounts")),
            ("volumes", json!([{ "name": "v", "configMap": { "name": "m" } }]), Some("configmaps")),
            ("volumes", json!([{ "name": "v", "hostPath": { "path": "/" } }]), None),
            (
                "initContainers",
                json!([{ "name": "i", "envFrom": [{ "secretRef": { "name": "s" } }] }]),
                Some("secrets"),
            ),
        ] {
            let spec = serde_json::from_value(json!({ "containers": [], field: value })).unwrap();
            assert_eq!(api_reference(&spec), wanted, "{field}: {value}");
        }
    }

    #[test]
    fn a_mirror_is_owned_by_its_node_and_names_what_it_shows() {
        let StaticPod::Wanted(pod) = static_pod("h") else { panic!("it is wanted") };
        let node = serde_json::from_value(json!({ "metadata": { "name": "n", "uid": "u" } })).unwrap();
        let mirror = object(&pod, &node);
        assert_eq!(shows(&mirror), Some("h".into()));
        assert!(is_mirror(&mirror) && !is_mirror(&pod));
        let owners = serde_json::to_value(&mirror.metadata.owner_references).unwrap();
        assert_eq!(
            owners,
            json!([{ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true }])
        );
        assert_eq!((mirror.metadata.uid, &mirror.spec), (None, &pod.spec));
    }
}

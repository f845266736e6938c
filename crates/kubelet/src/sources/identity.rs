//! What the API server would have given a pod, for those of the node's own manifests: name, namespace, UID, annotations.
//!
//! Comes in: a pod as somebody wrote it, and where it was found. Goes out: the same with an identity that follows its
//! content: a changed manifest is a new pod, and an unchanged one is the same pod after a restart.

use decide::mirror::{HASH, api_reference};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use sha2::{Digest, Sha256};

use super::SOURCE;
use crate::tables::Origin;

/// How the pods of a node's own manifests are named.
#[derive(Clone, Debug)]
pub struct Naming {
    /// Becomes part of the UIDs, and of the names of static pods.
    pub node_name: String,
    /// Static pods of a node are named `<pod>-<node>`, as their mirrors in the API are.
    pub suffix: bool,
}

/// Gives a pod that was found at `place` its identity.
///
/// # Errors
/// It has no name or no spec, or is static and refers to what only the API server has; the words say so.
pub fn identify(mut pod: Pod, origin: Origin, place: &[u8], naming: &Naming) -> Result<Pod, String> {
    let Some(name) = pod.metadata.name.clone().filter(|name| !name.is_empty()) else {
        return Err("Pod: metadata.name is missing".to_owned());
    };
    if pod.metadata.uid.is_none() {
        let content = serde_json::to_vec(&pod).map_err(|error| error.to_string())?;
        let mut hash = Sha256::new();
        for part in [naming.node_name.as_bytes(), place, &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        pod.metadata.uid = Some(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect());
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if naming.suffix {
        pod.metadata.name = Some(format!("{name}-{}", naming.node_name.to_lowercase()));
    }
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE.to_owned(), origin.as_str().to_owned());
    annotations.insert(HASH.to_owned(), uid);
    let Some(spec) = &mut pod.spec else {
        return Err(format!("Pod {name}: spec is missing"));
    };
    spec.node_name = Some(naming.node_name.clone());
    if naming.suffix {
        if let Some(resource) = api_reference(spec) {
            return Err(format!("Pod {name}: static pods may not reference {resource}"));
        }
        // As on a stock node, where a pod of a URL may be evicted.
        if origin == Origin::File {
            stays_through_taints(spec);
        }
    }
    Ok(pod)
}

/// A static pod's mirror is not evicted by a taint of its node.
fn stays_through_taints(spec: &mut PodSpec) {
    let (operator, effect) = (Some("Exists".to_owned()), Some("NoExecute".to_owned()));
    let wanted = Toleration { operator, effect, ..Toleration::default() };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&wanted) {
        tolerations.push(wanted);
    }
}

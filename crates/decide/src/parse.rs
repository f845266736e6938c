//! API `Pod` in, our [`Pod`] or a rejection out. Nothing unsupported passes.

use crate::names::{PodName, PodUid};
use crate::pod::{Pod, Rejection};
use k8s_openapi::api::core::v1 as api;
use std::sync::Arc;

/// A pod that this node will not run, whatever else happens.
#[derive(Clone, Debug)]
pub struct Refused {
    /// `metadata.uid`; empty if the object has none.
    pub uid: PodUid,
    /// Namespace and name.
    pub name: PodName,
    /// Why.
    pub rejection: Rejection,
    /// The object as the source gave it.
    pub api: Arc<api::Pod>,
}

/// Reads `api` once and for all.
///
/// # Errors
/// The pod asks for something this node does not do, or is malformed.
pub fn parse(api: Arc<api::Pod>) -> Result<Pod, Box<Refused>> {
    Err(Box::new(Refused {
        uid: PodUid::from(api.metadata.uid.clone().unwrap_or_default()),
        name: PodName {
            namespace: api.metadata.namespace.clone().unwrap_or_default(),
            name: api.metadata.name.clone().unwrap_or_default(),
        },
        rejection: Rejection { reason: "PodFeatureUnsupported", message: "spec: not read yet".into() },
        api,
    }))
}

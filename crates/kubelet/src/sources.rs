//! Where desired pods come from.
//!
//! Comes in: a watch of the API server's pods bound to this node; manifest files. Goes out: [`Change`]s over one bounded
//! queue. Never here: an opinion about a pod; that is the admission's and the plan's.

pub mod api;
pub mod files;

use std::collections::BTreeMap;
use std::sync::Arc;

use decide::names::PodUid;
use k8s_openapi::api::core::v1::Pod;

use crate::tables::Origin;

/// What a source says.
#[derive(Clone, Debug)]
pub enum Change {
    /// This source wants exactly these pods: what it wanted before and is not among them is wanted no more. A source's
    /// first `All` also says that it can be trusted to be complete.
    All(Origin, BTreeMap<PodUid, Arc<Pod>>),
    /// This pod is new or changed.
    One(Origin, PodUid, Arc<Pod>),
    /// This pod is wanted no more.
    Gone(Origin, PodUid),
}

/// The pod's UID, which every pod of a source has.
pub(crate) fn uid_of(pod: &Pod) -> Option<PodUid> {
    pod.metadata.uid.as_deref().filter(|uid| !uid.is_empty()).map(PodUid::from)
}

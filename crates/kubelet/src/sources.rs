//! Where desired pods come from.
//!
//! Comes in: a watch of the API server's pods bound to this node; manifests, of files and of a URL. Goes out: [`Change`]s over one bounded
//! queue. Never here: an opinion about a pod; that is the admission's and the plan's.

pub mod api;
pub mod files;
pub mod http;
pub mod identity;

use std::collections::BTreeMap;
use std::sync::Arc;

use decide::names::PodUid;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::tables::Origin;

/// The annotation of a static pod that says where it came from.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";

/// The annotation of a static pod that says when it was first seen.
const SEEN: &str = "kubernetes.io/config.seen";

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
pub fn uid_of(pod: &Pod) -> Option<PodUid> {
    pod.metadata.uid.as_deref().filter(|uid| !uid.is_empty()).map(PodUid::from)
}

/// When each pod of a source was first seen, which its annotations tell.
#[derive(Debug, Default)]
struct FirstSeen(BTreeMap<PodUid, Timestamp>);

impl FirstSeen {
    /// The pods with that annotation. What is not among them is forgotten.
    fn noted<'a>(&mut self, pods: impl IntoIterator<Item = &'a Pod>, now: Timestamp) -> BTreeMap<PodUid, Arc<Pod>> {
        let mut known = std::mem::take(&mut self.0);
        let each = pods.into_iter().filter_map(|pod| {
            let uid = uid_of(pod)?;
            let at = known.remove(&uid).unwrap_or(now);
            let mut pod = pod.clone();
            pod.metadata.annotations.get_or_insert_default().insert(SEEN.to_owned(), at.to_string());
            self.0.insert(uid.clone(), at);
            Some((uid, Arc::new(pod)))
        });
        each.collect()
    }
}

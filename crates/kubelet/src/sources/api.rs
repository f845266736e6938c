//! The API server as a source: a watch of the pods bound to this node.
//!
//! Comes in: watch events. Goes out: [`Change`]s. Mirrors of static pods are shadows, not wishes: they are left out. While the API server is away nothing goes out, so pods run on; the
//! watch is taken up again with a growing, jittered pause.

use std::collections::BTreeMap;
use std::sync::Arc;

use decide::names::PodUid;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::mpsc;

use super::{Change, uid_of};
use crate::tables::Origin;

/// The annotation of a mirror: the API server's picture of a pod that comes from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Watches until the receiver is gone.
pub async fn watch_pods(client: kube::Client, node_name: String, changes: mpsc::Sender<Change>) {
    let pods: kube::Api<Pod> = kube::Api::all(client);
    let bound_here = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    let mut events = watcher(pods, bound_here).default_backoff().boxed();
    let mut listing: BTreeMap<PodUid, Arc<Pod>> = BTreeMap::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                if let Some(uid) = wanted(&pod) {
                    listing.insert(uid, Arc::new(pod));
                }
                continue;
            }
            Ok(watcher::Event::InitDone) => Change::All(Origin::Api, std::mem::take(&mut listing)),
            Ok(watcher::Event::Apply(pod)) => match wanted(&pod) {
                Some(uid) => Change::One(Origin::Api, uid, Arc::new(pod)),
                None => continue,
            },
            Ok(watcher::Event::Delete(pod)) => match wanted(&pod) {
                Some(uid) => Change::Gone(Origin::Api, uid),
                None => continue,
            },
            Err(error) => {
                tracing::warn!(node = node_name, "watching the pods of this node: {error:#}; trying again");
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// The UID of a pod that is to run here.
fn wanted(pod: &Pod) -> Option<PodUid> {
    let is_mirror = pod.metadata.annotations.iter().flatten().any(|(key, _)| key == MIRROR);
    if is_mirror { None } else { uid_of(pod) }
}

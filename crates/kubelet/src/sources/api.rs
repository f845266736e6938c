//! The API server as a source: a watch of the pods bound to this node.
//!
//! Comes in: watch events. Goes out: [`Change`]s. Mirrors of static pods are shadows, not wishes: they go to [`Mirrors`].
//! While the API server is away nothing goes out, so pods run on; the watch is taken up again with a growing, jittered
//! pause.

use std::collections::BTreeMap;
use std::sync::Arc;

use decide::mirror::is_mirror;
use decide::names::PodUid;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::mpsc;

use super::{Change, uid_of};
use crate::mirrors::Mirrors;
use crate::tables::Origin;

/// Watches until the receiver is gone.
pub async fn watch_pods(client: kube::Client, node_name: String, changes: mpsc::Sender<Change>, mirrors: Arc<Mirrors>) {
    let pods: kube::Api<Pod> = kube::Api::all(client);
    let bound_here = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    let mut events = watcher(pods, bound_here).default_backoff().boxed();
    let mut listing: BTreeMap<PodUid, Arc<Pod>> = BTreeMap::new();
    let mut mirrored: BTreeMap<PodUid, Arc<Pod>> = BTreeMap::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                listing.clear();
                mirrored.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                let list = if is_mirror(&pod) { &mut mirrored } else { &mut listing };
                if let Some(uid) = uid_of(&pod) {
                    list.insert(uid, Arc::new(pod));
                }
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                mirrors.all(std::mem::take(&mut mirrored));
                Change::All(Origin::Api, std::mem::take(&mut listing))
            }
            Ok(watcher::Event::Apply(pod)) if is_mirror(&pod) => {
                mirrors.set(pod);
                continue;
            }
            Ok(watcher::Event::Apply(pod)) => match uid_of(&pod) {
                Some(uid) => Change::One(Origin::Api, uid, Arc::new(pod)),
                None => continue,
            },
            Ok(watcher::Event::Delete(pod)) => match uid_of(&pod) {
                Some(uid) if is_mirror(&pod) => {
                    mirrors.gone(&uid);
                    continue;
                }
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

//! What the runtime and the disk still hold of pods that nobody wants: they went while this process was not there.
//!
//! Comes in: the two tables, the runtime's sandboxes, the volumes on disk. Goes out: the end of those that belong to no pod
//! of the tables. Never here: a pod that a worker owns, or one that another program made.

use std::collections::HashSet;
use std::sync::Arc;

use cri::client::CallError;
use cri::names::PodIdentity;
use decide::names::PodUid;
use decide::plan::Stage;

use crate::tables::Tables;
use crate::worker::Shared;

/// Looks once. To be called when all sources have said what they want.
pub(super) async fn sweep(shared: Arc<Shared>) {
    let Some(left) = end_sandboxes(&shared).await else { return };
    let desired = shared.tables.desired.all().into_iter().map(|(uid, _)| uid);
    let observed = shared.tables.observed.all().into_iter().map(|(uid, _)| uid);
    let known: HashSet<PodUid> = desired.chain(observed).chain(left).collect();
    shared.effects.volumes.sweep(&known).await;
}

/// Ends the sandboxes of orphans. The pods whose sandboxes are still there afterwards; none if the runtime does not say.
async fn end_sandboxes(shared: &Shared) -> Option<HashSet<PodUid>> {
    let sandboxes = match shared.effects.runtime.list_pod_sandboxes(None).await {
        Ok(sandboxes) => sandboxes,
        Err(error) => {
            tracing::warn!("looking for pods that nobody wants: {error}: {}; trying again", error.message());
            return None;
        }
    };
    let mut left = HashSet::new();
    for sandbox in sandboxes {
        let labels = sandbox.labels.into_iter().collect();
        // What no kubelet made is not the kubelet's to end.
        let Some(pod) = PodIdentity::of(&labels) else { continue };
        let uid = PodUid::from(pod.uid.as_str());
        // Asked for each anew: a pod may have come meanwhile.
        if is_owned(&shared.tables, &uid) {
            continue;
        }
        tracing::info!(namespace = pod.namespace, name = pod.name, %uid, "ending a pod that nobody wants");
        match end(shared, &sandbox.id).await {
            Ok(()) => shared.effects.logs.remove_pod(&pod).await,
            Err(error) => {
                tracing::warn!("{error}: {}; trying again with the next look", error.message());
                left.insert(uid);
            }
        }
    }
    Some(left)
}

pub(super) async fn end(shared: &Shared, sandbox: &str) -> Result<(), CallError> {
    shared.effects.runtime.stop_pod_sandbox(sandbox).await?;
    shared.effects.runtime.remove_pod_sandbox(sandbox).await
}

/// Whether a worker answers for what the runtime holds of the pod. A pod that was refused has none, and one that was
/// released has nothing there.
pub(super) fn is_owned(tables: &Tables, uid: &PodUid) -> bool {
    match tables.observed.get(uid) {
        Some(row) => row.stage != Stage::Released,
        None => tables.desired.get(uid).is_some(),
    }
}

//! What a static pod waits for before it starts: the end of the pod that had its name before, where that one's manifest
//! changed while no kubelet was there.
//!
//! Comes in: a static pod that is to start, the runtime's sandboxes. Goes out: the end of sandboxes of other static pods of
//! the same name. Never here: a pod that has a worker; the dispatcher waits for that one itself.

use std::time::Duration;

use cri::client::CallError;
use cri::names::PodIdentity;
use decide::names::PodUid;
use decide::pod::Pod;

use super::orphans;
use crate::sources::SOURCE;
use crate::worker::Shared;

/// The pause after the runtime did not answer or did not end one.
const RETRY: Duration = Duration::from_secs(2);

/// Returns when the runtime holds no other static pod of this name.
pub(super) async fn end(shared: &Shared, pod: &Pod) {
    if !pod.is_static {
        return;
    }
    while let Err(error) = end_once(shared, pod).await {
        tracing::warn!("ending the pod that had this name before: {error}: {}; trying again", error.message());
        tokio::time::sleep(RETRY).await;
    }
}

async fn end_once(shared: &Shared, pod: &Pod) -> Result<(), CallError> {
    for sandbox in shared.effects.runtime.list_pod_sandboxes(None).await? {
        let is_static = sandbox.annotations.contains_key(SOURCE);
        let labels = sandbox.labels.into_iter().collect();
        let Some(before) = PodIdentity::of(&labels) else { continue };
        let uid = PodUid::from(before.uid.as_str());
        let has_name = before.namespace == pod.name.namespace && before.name == pod.name.name;
        if is_static && has_name && uid != pod.uid && !orphans::is_owned(&shared.tables, &uid) {
            tracing::info!(%uid, "ending the pod that had this name before");
            orphans::end(shared, &sandbox.id).await?;
            shared.effects.logs.remove_pod(&before).await;
        }
    }
    Ok(())
}

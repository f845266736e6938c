//! Status out: what the workers observed, written to the API server.
//!
//! Comes in: the uid of each pod whose observed row moved. Goes out: one status patch per change, and the final delete of
//! a pod whose everything here is gone. One write per pod at a time; a failed one is tried again with a growing, jittered
//! pause, and always writes what is true then, not what was true when it failed. Never here: a status made up.

mod patch;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use decide::names::PodUid;
use decide::plan::Stage;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::tables::{ObservedPod, Origin, Tables};

/// Writes under way at once.
const CONCURRENT_WRITES: usize = 16;
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Says which pods have something new; cheap to clone, never waits, bounded by the number of pods.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    changed: Mutex<HashSet<PodUid>>,
    wake: Notify,
}

impl Publisher {
    /// The observed row of this pod moved.
    pub fn changed(&self, uid: PodUid) {
        self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
        self.shared.wake.notify_one();
    }

    fn take(&self) -> HashSet<PodUid> {
        std::mem::take(&mut *self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What became of one write.
enum Written {
    /// The API server has this status now.
    Status(Box<PodStatus>),
    /// There is nothing to write, or nobody to write it to any more.
    Nothing,
    /// The object is deleted, or was not this pod any more.
    Gone,
    Failed,
}

/// Publishes until cancelled.
pub async fn publish(client: kube::Client, tables: Arc<Tables>, publisher: Publisher) {
    let mut published: HashMap<PodUid, Arc<PodStatus>> = HashMap::new();
    let mut waiting: HashSet<PodUid> = HashSet::new();
    let mut writing: HashSet<PodUid> = HashSet::new();
    let mut failures: HashMap<PodUid, u32> = HashMap::new();
    let mut writes: JoinSet<(PodUid, Written)> = JoinSet::new();
    loop {
        waiting.extend(publisher.take());
        for uid in startable(&waiting, &writing) {
            waiting.remove(&uid);
            let Some(row) = tables.observed.get(&uid) else {
                published.remove(&uid);
                failures.remove(&uid);
                continue;
            };
            if row.origin != Origin::Api {
                continue;
            }
            let pause = failures.get(&uid).map_or(Duration::ZERO, |&count| retry_pause(count));
            let (client, tables, last) = (client.clone(), Arc::clone(&tables), published.get(&uid).cloned());
            writing.insert(uid.clone());
            writes.spawn(async move {
                tokio::time::sleep(pause).await;
                // Read again after the pause: what is true now is what is written.
                let row = tables.observed.get(&uid).unwrap_or(row);
                let written = write(&client, &row, last.as_deref()).await;
                (uid, written)
            });
        }
        tokio::select! {
            () = publisher.shared.wake.notified() => {}
            Some(done) = writes.join_next() => {
                let Ok((uid, written)) = done else { continue };
                writing.remove(&uid);
                match written {
                    Written::Failed => {
                        *failures.entry(uid.clone()).or_default() += 1;
                        waiting.insert(uid);
                        continue;
                    }
                    Written::Status(status) => {
                        published.insert(uid.clone(), Arc::new(*status));
                    }
                    Written::Gone => {
                        published.remove(&uid);
                    }
                    Written::Nothing => {}
                }
                failures.remove(&uid);
            }
        }
    }
}

fn startable(waiting: &HashSet<PodUid>, writing: &HashSet<PodUid>) -> Vec<PodUid> {
    let free = CONCURRENT_WRITES.saturating_sub(writing.len());
    waiting.difference(writing).take(free).cloned().collect()
}

fn retry_pause(failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(LAST_RETRY);
    doubled.mul_f64(0.75 + rand::random::<f64>() / 2.0)
}

async fn write(client: &kube::Client, row: &ObservedPod, last: Option<&PodStatus>) -> Written {
    let metadata = &row.object.metadata;
    let (Some(namespace), Some(name), Some(uid)) = (&metadata.namespace, &metadata.name, &metadata.uid) else {
        return Written::Nothing;
    };
    let pods: kube::Api<Pod> = kube::Api::namespaced(client.clone(), namespace);
    let had = last.or(row.object.status.as_ref());
    let mut result = Written::Nothing;
    if had != Some(&row.status) {
        let body = patch::status_patch(uid, had, &row.status);
        let (parameters, body) = (PatchParams::default(), Patch::Strategic(body));
        let call = pods.patch_status(name, &parameters, &body);
        match outcome(tokio::time::timeout(WRITE_TIMEOUT, call).await, namespace, name, "patching the status") {
            Written::Nothing => result = Written::Status(Box::new(row.status.clone())),
            other => return other,
        }
    }
    if row.stage == Stage::Released && metadata.deletion_timestamp.is_some() {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let call = pods.delete(name, &params);
        match outcome(tokio::time::timeout(WRITE_TIMEOUT, call).await, namespace, name, "deleting the pod") {
            Written::Nothing => return Written::Gone,
            other => return other,
        }
    }
    result
}

fn outcome<T>(
    call: Result<Result<T, kube::Error>, tokio::time::error::Elapsed>,
    namespace: &str,
    name: &str,
    step: &str,
) -> Written {
    match call {
        Ok(Ok(_)) => Written::Nothing,
        // 404: the object is gone. 409: it is another pod of the same name, by the UID we sent along.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 || status.code == 409 => {
            tracing::debug!(namespace, name, "{step}: {}", status.message);
            Written::Gone
        }
        Ok(Err(error)) => {
            tracing::warn!(namespace, name, "{step}: {error:#}; trying again");
            Written::Failed
        }
        Err(_) => {
            tracing::warn!(namespace, name, "{step}: no answer for {WRITE_TIMEOUT:?}; trying again");
            Written::Failed
        }
    }
}

//! Status out: what the workers observed, written to the API server.
//!
//! Comes in: the uid of each pod whose observed row moved, be it the status or the object that it belongs to. Goes out: one
//! status patch per change, and the final delete of a pod whose everything here is gone, once its last status is written.
//! One write per pod at a time; each begins with what the API server has, so that what others wrote stays and what others
//! overwrote comes back. A failed one is tried again with a growing, jittered pause, and always writes what is true then,
//! not what was true when it failed. The status of a static pod goes to its mirror, which is never deleted here. Never here:
//! a status made up.

mod patch;
mod queue;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use decide::names::PodUid;
use decide::plan::Stage;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::mirrors::Mirrors;
use crate::tables::{ObservedPod, Tables};
use queue::Queue;

/// Writes under way at once.
const CONCURRENT_WRITES: usize = 16;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(15);

/// Says which pods have something new; cheap to clone, never waits, bounded by the number of pods.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    changed: Mutex<HashSet<PodUid>>,
    wake: Notify,
}

impl Publisher {
    /// One that [`publish`] listens to.
    pub fn to_api() -> Self {
        Self { shared: Some(Arc::default()) }
    }

    /// One for where there is no API server.
    pub fn to_nobody() -> Self {
        Self { shared: None }
    }

    /// The observed row of this pod moved.
    pub fn changed(&self, uid: PodUid) {
        if let Some(shared) = &self.shared {
            shared.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
            shared.wake.notify_one();
        }
    }

    fn take(&self) -> HashSet<PodUid> {
        let changed =
            |shared: &Arc<Shared>| std::mem::take(&mut *shared.changed.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.as_ref().map(changed).unwrap_or_default()
    }

    async fn moved(&self) {
        match &self.shared {
            Some(shared) => shared.wake.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// What became of a write.
enum Written {
    /// The API server has the pod's status, or the pod no more.
    Done,
    /// It is to be tried again.
    Failed,
}

/// Publishes until cancelled.
pub async fn publish(client: kube::Client, tables: Arc<Tables>, mirrors: Arc<Mirrors>, publisher: Publisher) {
    let mut queue = Queue::default();
    let mut writing: HashMap<Id, PodUid> = HashMap::new();
    let mut writes: JoinSet<Written> = JoinSet::new();
    loop {
        for uid in publisher.take() {
            queue.changed(uid);
        }
        while writing.len() < CONCURRENT_WRITES {
            let Some((uid, failures)) = queue.take(Instant::now()) else { break };
            let row = tables.observed.get(&uid);
            match row.and_then(|row| Some((shown_by(&row, &mirrors, &uid)?, row))) {
                Some((object, row)) => {
                    let client = client.clone();
                    let write = async move { write(&client, &object, &row, failures).await };
                    writing.insert(writes.spawn(write).id(), uid);
                }
                None => queue.done(&uid),
            }
        }
        tokio::select! {
            () = publisher.moved() => {}
            Some(ended) = writes.join_next_with_id() => {
                let (id, written) = match ended {
                    Ok(ended) => ended,
                    Err(error) => {
                        tracing::error!("writing a status broke: {error}");
                        (error.id(), Written::Failed)
                    }
                };
                let Some(uid) = writing.remove(&id) else { continue };
                match written {
                    Written::Done => queue.done(&uid),
                    Written::Failed => queue.failed(uid, Instant::now()),
                }
            }
            () = until(queue.next_retry()), if writing.len() < CONCURRENT_WRITES => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The API server's object of the pod: itself, or the mirror of a static one.
fn shown_by(row: &ObservedPod, mirrors: &Mirrors, uid: &PodUid) -> Option<Arc<Pod>> {
    if row.origin.is_static() { mirrors.of(uid) } else { Some(Arc::clone(&row.object)) }
}

/// How one call ended.
enum Call<T> {
    /// With this answer.
    Answer(T),
    /// There is no such pod any more.
    Gone,
    Failed,
}

/// Writes the row's status over what the API server has in `object`, then deletes the pod if it is to go and nothing is left
/// of it.
async fn write(client: &kube::Client, object: &Pod, row: &ObservedPod, failures: u32) -> Written {
    let metadata = &object.metadata;
    let (Some(namespace), Some(name), Some(uid)) = (&metadata.namespace, &metadata.name, &metadata.uid) else {
        return Written::Done;
    };
    let released = row.stage == Stage::Released && !row.origin.is_static();
    let leaves = released && metadata.deletion_timestamp.is_some();
    if !leaves && change(uid, object.status.as_ref(), &row.status).is_none() {
        return Written::Done;
    }
    let at = Place { namespace, name, failures };
    let pods: kube::Api<Pod> = kube::Api::namespaced(client.clone(), namespace);
    let current = match at.call("reading the pod", pods.get(name)).await {
        Call::Answer(current) => current,
        Call::Gone => return Written::Done,
        Call::Failed => return Written::Failed,
    };
    if current.metadata.uid.as_ref() != Some(uid) {
        // A namesake; ours is gone.
        return Written::Done;
    }
    if let Some(body) = change(uid, current.status.as_ref(), &row.status) {
        let (parameters, body) = (PatchParams::default(), Patch::Strategic(body));
        match at.call("patching the status", pods.patch_status(name, &parameters, &body)).await {
            Call::Answer(_) => {}
            Call::Gone => return Written::Done,
            Call::Failed => return Written::Failed,
        }
    }
    if released && current.metadata.deletion_timestamp.is_some() {
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        if let Call::Failed = at.call("deleting the pod", pods.delete(name, &parameters)).await {
            return Written::Failed;
        }
    }
    Written::Done
}

/// The patch that makes `ours` of `current`, as far as it is ours; none if it is.
fn change(uid: &str, current: Option<&PodStatus>, ours: &PodStatus) -> Option<serde_json::Value> {
    let current = current.cloned().unwrap_or_default();
    patch::status_patch(uid, &current, &decide::status::merge(&current, ours))
}

/// What a call is about.
struct Place<'a> {
    namespace: &'a str,
    name: &'a str,
    failures: u32,
}

impl Place<'_> {
    /// One call in its time. A conflict is a failure: the next try reads what stands there by then.
    async fn call<T>(&self, step: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Call<T> {
        let Self { namespace, name, failures } = *self;
        // Said once: an API server that is away fails every pod every few seconds.
        let mut said_at = 0;
        let message = match timeout(CALL, call).await {
            Ok(Ok(answer)) => return Call::Answer(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Call::Gone,
            Ok(Err(kube::Error::Api(status))) => {
                // A node is refused what is not bound to it, and so a pod that has just gone. The next try knows.
                said_at = u32::from(status.code == 403);
                status.message
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer for {CALL:?}"),
        };
        if failures == said_at {
            tracing::warn!(namespace, name, "{step}: {message}; trying again");
        } else {
            tracing::debug!(namespace, name, failures, "{step}: {message}; trying again");
        }
        Call::Failed
    }
}

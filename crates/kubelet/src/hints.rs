//! Hints that the runtime holds something new for a pod.
//!
//! Comes in: CRI's container events. Goes out: a nudge to the pod's worker, which then lists. Hints carry no data, so a
//! lost or doubled one does no harm; while the stream of events is down, workers list by themselves every second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cri::Client;
use cri::v1::ContainerEventType;
use decide::names::PodUid;
use futures::StreamExt;
use tokio::sync::Notify;

/// How often a worker lists while events come.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(60);
/// How often a worker lists while they do not; the kubelet's own period.
const RELIST_WITHOUT_EVENTS: Duration = Duration::from_secs(1);
/// The pause before the stream is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Who is to be nudged for which pod.
#[derive(Debug, Default)]
pub struct Hints {
    workers: RwLock<HashMap<PodUid, Arc<Notify>>>,
    live: AtomicBool,
}

impl Hints {
    /// A worker's nudge.
    pub fn subscribe(&self, uid: PodUid) -> Arc<Notify> {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(workers.entry(uid).or_default())
    }

    /// The worker is gone.
    pub fn unsubscribe(&self, uid: &PodUid) {
        self.workers.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// How long a worker may go without listing.
    pub fn relist_period(&self) -> Duration {
        if self.live.load(Ordering::Relaxed) { RELIST_WITH_EVENTS } else { RELIST_WITHOUT_EVENTS }
    }

    fn nudge(&self, uid: &PodUid) {
        if let Some(worker) = self.workers.read().unwrap_or_else(PoisonError::into_inner).get(uid) {
            worker.notify_one();
        }
    }

    fn nudge_all(&self) {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).values().for_each(|worker| worker.notify_one());
    }
}

/// Passes the runtime's events on until cancelled.
pub async fn follow_events(runtime: Client, hints: Arc<Hints>) {
    loop {
        match runtime.container_events().await {
            Ok(mut events) => {
                hints.live.store(true, Ordering::Relaxed);
                // What happened before the stream was open is found by listing.
                hints.nudge_all();
                while let Some(Ok(event)) = events.next().await {
                    // Whoever creates and starts containers hears of it in the answer.
                    if matches!(
                        event.container_event_type(),
                        ContainerEventType::ContainerCreatedEvent | ContainerEventType::ContainerStartedEvent
                    ) {
                        continue;
                    }
                    let metadata = event.pod_sandbox_status.and_then(|status| status.metadata);
                    match metadata {
                        Some(metadata) => hints.nudge(&PodUid::from(metadata.uid)),
                        None => hints.nudge_all(),
                    }
                }
                tracing::warn!("the runtime's event stream ended; listing every {RELIST_WITHOUT_EVENTS:?} meanwhile");
            }
            Err(error) => tracing::warn!("{error}: {}; trying again", error.message()),
        }
        hints.live.store(false, Ordering::Relaxed);
        hints.nudge_all();
        tokio::time::sleep(REOPEN).await;
    }
}

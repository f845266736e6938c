//! Kubernetes Events: what the node tells people about its pods.
//!
//! Comes in: [`EventRecord`]s over a bounded queue that never makes its sender wait. Goes out: core/v1 Events, as
//! [`decide::correlation`] counts, combines and limits them. Never here: a reason to act; events are for reading.

mod write;

use decide::report::{Kind, Report};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio::sync::mpsc;

pub use write::write_events;

/// Records waiting to be written; beyond it new ones are dropped, with a line in the log.
const QUEUE: usize = 1000;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// What it is about: a pod (with its fieldPath for a container) or the node.
    pub about: ObjectReference,
    /// A warning rather than the normal course.
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// The sending half.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<EventRecord>,
}

impl Recorder {
    /// A recorder and the queue that [`write_events`] empties.
    pub fn new() -> (Self, mpsc::Receiver<EventRecord>) {
        let (queue, records) = mpsc::channel(QUEUE);
        (Self { queue }, records)
    }

    /// Takes the record, or drops it aloud when the API server is too slow for them.
    pub fn record(&self, record: EventRecord) {
        let EventRecord { about, reason, message, .. } = &record;
        let (kind, name) = (about.kind.as_deref().unwrap_or_default(), about.name.as_deref().unwrap_or_default());
        let namespace = about.namespace.as_deref().unwrap_or_default();
        if record.warning {
            tracing::warn!(kind, namespace, name, reason, "{message}");
        } else {
            tracing::info!(kind, namespace, name, reason, "{message}");
        }
        if let Err(mpsc::error::TrySendError::Full(lost)) = self.queue.try_send(record) {
            tracing::warn!(reason = lost.reason, "event not written: {QUEUE} others are waiting");
        }
    }
}

/// Says events into the log alone, where there is no API server; [`Recorder::record`] has already done so.
pub async fn drain_events(mut records: mpsc::Receiver<EventRecord>) {
    while records.recv().await.is_some() {}
}

/// The node as what an event is about.
pub(crate) fn node_reference(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        // Kubelets put the name here, and `kubectl describe node` looks for it.
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// A report about a pod, or about one of its containers.
pub fn about_pod(pod: &Pod, report: Report) -> EventRecord {
    let field_path = Some(report.field_path(pod)).filter(|path| !path.is_empty());
    EventRecord {
        about: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        },
        warning: report.kind == Kind::Warning,
        reason: report.reason.into_owned(),
        message: report.message,
    }
}

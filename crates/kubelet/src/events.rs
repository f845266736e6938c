//! Kubernetes Events: what the node tells people about its pods.
//!
//! Comes in: [`EventRecord`]s over a bounded queue that never makes its sender wait. Goes out: core/v1 Events; the same
//! words again raise the count of the event that is there. Never here: a reason to act; events are for reading.

mod spam;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use decide::report::{Kind, Report};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::EventRate;
use spam::SpamFilter;

/// Records waiting to be written; beyond it new ones are dropped and counted in the log.
const QUEUE: usize = 1000;
/// Texts remembered for counting; the API server forgets events after an hour anyway.
const REMEMBERED: usize = 4096;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an event is tried while the API server does not answer; then it is dropped.
const TRIES: u32 = 5;
/// The pause after the first failed try, doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest an event's name may begin with; what makes it unique follows, and 253 is what a name may be long.
const NAME_START: usize = 220;

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
    spam: Arc<Mutex<SpamFilter>>,
}

impl Recorder {
    /// A recorder and the queue that [`write_events`] empties.
    pub fn new() -> (Self, mpsc::Receiver<EventRecord>) {
        let (queue, records) = mpsc::channel(QUEUE);
        (Self { queue, spam: Arc::default() }, records)
    }

    /// Takes the record, or drops it aloud when the API server is too slow for them. What says more of one object than
    /// anybody reads is not taken, nor logged as news.
    pub fn record(&self, record: EventRecord) {
        let uid = record.about.uid.as_deref().unwrap_or_default();
        if !self.spam.lock().unwrap_or_else(PoisonError::into_inner).lets_through(uid, Instant::now()) {
            tracing::debug!(uid, reason = record.reason, "not told, as so much was: {}", record.message);
            return;
        }
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

/// Writes events until all recorders are gone.
///
/// `rate` holds on the long run; beyond it events wait, and when too many wait, new ones are dropped.
pub async fn write_events(
    client: kube::Client,
    node_name: String,
    rate: EventRate,
    mut records: mpsc::Receiver<EventRecord>,
) {
    let mut pace = Pace::new(rate);
    let mut writer = Writer { client, node_name, written: HashMap::new() };
    while let Some(record) = records.recv().await {
        pace.wait().await;
        writer.write_or_drop(&record).await;
    }
}

/// A bucket of tokens, one per event.
struct Pace {
    rate: EventRate,
    tokens: f64,
    filled_at: Instant,
}

impl Pace {
    fn new(rate: EventRate) -> Self {
        Self { rate, tokens: f64::from(rate.burst.max(1)), filled_at: Instant::now() }
    }

    async fn wait(&mut self) {
        // 0 is without limit, as in the kubelet's eventRecordQPS.
        if self.rate.per_second == 0 {
            return;
        }
        let per_second = f64::from(self.rate.per_second);
        let now = Instant::now();
        let filled = self.tokens + (now - self.filled_at).as_secs_f64() * per_second;
        self.tokens = filled.min(f64::from(self.rate.burst.max(1))) - 1.0;
        self.filled_at = now;
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens / per_second)).await;
        }
    }
}

/// What makes two events the same one, counted twice.
#[derive(PartialEq, Eq, Hash)]
struct Same {
    uid: String,
    field_path: String,
    reason: String,
    message: String,
}

struct Written {
    name: String,
    count: i32,
}

struct Writer {
    client: kube::Client,
    node_name: String,
    written: HashMap<Same, Written>,
}

impl Writer {
    /// Tries again while the API server is away. What it refuses is dropped.
    async fn write_or_drop(&mut self, record: &EventRecord) {
        let reason = &record.reason;
        for tried in 1..=TRIES {
            match tokio::time::timeout(WRITE_TIMEOUT, self.write(record)).await {
                Ok(Ok(())) => return,
                Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
                    tracing::debug!(reason, "writing an event: {}", status.message);
                    return;
                }
                Ok(Err(error)) => tracing::debug!(reason, tried, "writing an event: {error:#}"),
                Err(_) => tracing::debug!(reason, tried, "writing an event: no answer for {WRITE_TIMEOUT:?}"),
            }
            if tried < TRIES {
                let pause = FIRST_RETRY.saturating_mul(1 << (tried - 1));
                tokio::time::sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
            }
        }
        tracing::warn!(reason, "event not written: the API server did not take it in {TRIES} tries");
    }

    async fn write(&mut self, record: &EventRecord) -> Result<(), kube::Error> {
        let namespace = record.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: kube::Api<Event> = kube::Api::namespaced(self.client.clone(), &namespace);
        let same = Same {
            uid: record.about.uid.clone().unwrap_or_default(),
            field_path: record.about.field_path.clone().unwrap_or_default(),
            reason: record.reason.clone(),
            message: record.message.clone(),
        };
        let now = Time(Timestamp::now());
        if let Some(written) = self.written.get_mut(&same) {
            let again = serde_json::json!({ "count": written.count + 1, "lastTimestamp": now });
            match events.patch(&written.name, &PatchParams::default(), &Patch::Merge(again)).await {
                Ok(_) => {
                    written.count += 1;
                    return Ok(());
                }
                // The API server has forgotten it: it is a new event then.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = new_event(record.clone(), &namespace, &self.node_name, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        events.create(&PostParams::default(), &event).await?;
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        self.written.insert(same, Written { name, count: 1 });
        Ok(())
    }
}

fn new_event(record: EventRecord, namespace: &str, node_name: &str, now: Time) -> Event {
    let object_name: String = record.about.name.iter().flat_map(|name| name.chars()).take(NAME_START).collect();
    // Unique by time as client-go's are, and by a random part for two in one nanosecond.
    let suffix = format!("{:x}{:04x}", now.0.as_nanosecond(), rand::random::<u16>());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{object_name}.{suffix}")),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        involved_object: record.about,
        message: Some(record.message),
        reason: Some(record.reason),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node_name.to_owned()) }),
        type_: Some(if record.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
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
        reason: report.reason.to_owned(),
        message: report.message,
    }
}

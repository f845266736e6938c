//! Events into the API server.
//!
//! Comes in: the queue of records, and how fast events may be written. Goes out: an Event for what is new, a patch for what
//! is known. What the API server refuses is dropped; while it is away, each event is tried a few times.

use std::time::Duration;

use decide::correlation::{Correlator, Entry, Object, Occurrence};
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::EventRecord;
use crate::clock::Clock;
use crate::config::EventRate;

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an event is tried while the API server does not answer; then it is dropped.
const TRIES: u32 = 5;
/// The pause after the first failed try, doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest an event's name may begin with; what makes it unique follows, and 253 is what a name may be long.
const NAME_START: usize = 220;

/// Writes events until all recorders are gone.
///
/// `rate` holds on the long run; beyond it events wait, and when too many wait, new ones are dropped.
pub async fn write_events(
    client: kube::Client,
    node_name: String,
    rate: EventRate,
    clock: Clock,
    mut records: mpsc::Receiver<EventRecord>,
) {
    let mut pace = Pace::new(rate);
    let mut correlator = Correlator::default();
    let writer = Writer { client, node_name, clock };
    while let Some(record) = records.recv().await {
        let entry = correlator.observe(occurrence(&record), writer.new_name(&record), clock.now());
        match entry {
            Some(entry) => {
                pace.wait().await;
                writer.write_or_drop(&record, &entry).await;
            }
            None => tracing::debug!(reason = record.reason, "event not written: too many about one object"),
        }
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

fn occurrence(record: &EventRecord) -> Occurrence {
    let about = &record.about;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Occurrence {
        object: Object {
            api_version: text(&about.api_version),
            kind: text(&about.kind),
            namespace: text(&about.namespace),
            name: text(&about.name),
            uid: text(&about.uid),
        },
        field_path: text(&about.field_path),
        warning: record.warning,
        reason: record.reason.clone(),
        message: record.message.clone(),
    }
}

struct Writer {
    client: kube::Client,
    node_name: String,
    clock: Clock,
}

impl Writer {
    /// Unique by time as client-go's are, and by a random part for two in one nanosecond.
    fn new_name(&self, record: &EventRecord) -> String {
        let object: String = record.about.name.iter().flat_map(|name| name.chars()).take(NAME_START).collect();
        format!("{object}.{:x}{:04x}", self.clock.now().as_nanosecond(), rand::random::<u16>())
    }

    /// Tries again while the API server is away. What it refuses is dropped.
    async fn write_or_drop(&self, record: &EventRecord, entry: &Entry) {
        let reason = &record.reason;
        for tried in 1..=TRIES {
            match tokio::time::timeout(WRITE_TIMEOUT, self.write(record, entry)).await {
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

    async fn write(&self, record: &EventRecord, entry: &Entry) -> Result<(), kube::Error> {
        let namespace = record.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: kube::Api<Event> = kube::Api::namespaced(self.client.clone(), &namespace);
        let now = Time(self.clock.now());
        if entry.count > 1 {
            let again = serde_json::json!({ "count": entry.count, "lastTimestamp": now, "message": entry.message });
            match events.patch(&entry.name, &PatchParams::default(), &Patch::Merge(again)).await {
                Ok(_) => return Ok(()),
                // The API server has forgotten it, or never had it: it is made anew, with what is known of it.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        events.create(&PostParams::default(), &self.event(record, entry, &namespace, now)).await.map(drop)
    }

    fn event(&self, record: &EventRecord, entry: &Entry, namespace: &str, now: Time) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(entry.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            count: Some(i32::try_from(entry.count).unwrap_or(i32::MAX)),
            first_timestamp: Some(Time(entry.first_at)),
            last_timestamp: Some(now),
            involved_object: record.about.clone(),
            message: Some(entry.message.clone()),
            reason: Some(record.reason.clone()),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node_name.clone()),
            source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(self.node_name.clone()) }),
            type_: Some(if record.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}

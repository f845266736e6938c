//! From sources to workers: one worker for each pod that any source wants.
//!
//! Comes in: [`Change`]s of the sources. Goes out: the desired table, workers with what is wanted of them, and the end of
//! whatever the runtime still holds of pods that nobody wants. Here, in the order the pods arrive, the node's admission
//! is asked. Never here: anything about how a pod runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cri::names;
use decide::admission::{self, Capacity};
use decide::names::PodUid;
use decide::observed::Observed;
use decide::parse::{self, Refused};
use decide::plan::Stage;
use decide::pod::{Pod, Rejection};
use decide::report::Report;
use k8s_openapi::api::core::v1 as api;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::events::about_pod;
use crate::sources::Change;
use crate::tables::{DesiredPod, ObservedPod, Origin};
use crate::worker::{self, Shared, Start, Wanted};

/// How often what nobody wants is looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// What the dispatcher knows of the node.
pub struct Node {
    /// The node's addresses, the primary one first.
    pub host_ips: watch::Receiver<Vec<std::net::IpAddr>>,
    /// What pods may use, and the labels they may ask for.
    pub capacity: watch::Receiver<Capacity>,
}

/// One pod's worker, seen from here.
struct Handle {
    origin: Origin,
    /// What the worker was last given, for the admission of others.
    pod: Arc<Pod>,
    wanted: watch::Sender<Wanted>,
}

/// Starts and ends workers.
pub struct Dispatcher {
    shared: Arc<Shared>,
    node: Node,
    workers: HashMap<PodUid, Handle>,
    running: JoinSet<PodUid>,
    /// Sources that have not yet said everything: until they have, nothing is swept away.
    unheard: HashSet<Origin>,
}

impl Dispatcher {
    /// A dispatcher that waits for these sources before it takes a pod for unwanted.
    pub fn new(shared: Arc<Shared>, node: Node, sources: impl IntoIterator<Item = Origin>) -> Self {
        Self {
            shared,
            node,
            workers: HashMap::new(),
            running: JoinSet::new(),
            unheard: sources.into_iter().collect(),
        }
    }

    /// Takes changes until the queue closes.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        let mut sweeps = tokio::time::interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => {
                        let waited = !self.unheard.is_empty();
                        self.take(change);
                        if waited && self.unheard.is_empty() {
                            sweeps.reset_immediately();
                        }
                    }
                    None => return,
                },
                Some(ended) = self.running.join_next() => self.ended(ended),
                _ = sweeps.tick() => self.sweep().await,
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::All(origin, pods) => {
                self.unheard.remove(&origin);
                let of_origin = |row: &Arc<DesiredPod>| row.origin == origin;
                let known = self.shared.tables.desired.all();
                for (uid, _) in known.iter().filter(|(uid, row)| of_origin(row) && !pods.contains_key(uid)) {
                    self.gone(uid);
                }
                for (uid, object) in by_age(pods) {
                    self.desire(origin, uid, object);
                }
            }
            Change::One(origin, uid, object) => self.desire(origin, uid, object),
            Change::Gone(_, uid) => self.gone(&uid),
        }
    }

    fn desire(&mut self, origin: Origin, uid: PodUid, object: Arc<api::Pod>) {
        let known = self.shared.tables.desired.get(&uid);
        if known.is_some_and(|row| row.object == object) {
            return;
        }
        self.shared.tables.desired.set(uid.clone(), DesiredPod { object: Arc::clone(&object), origin });
        match parse::parse(object) {
            Ok(pod) => self.run_pod(origin, Arc::new(pod)),
            Err(refused) => self.refuse(origin, *refused),
        }
    }

    fn run_pod(&mut self, origin: Origin, pod: Arc<Pod>) {
        if let Some(handle) = self.workers.get_mut(&pod.uid) {
            handle.pod = Arc::clone(&pod);
            handle.wanted.send_replace(Wanted::Pod(pod));
            return;
        }
        let admission = self.admit(&pod);
        let status = pod.api.status.clone().unwrap_or_default();
        let host_ips = self.node.host_ips.borrow().clone();
        let observed = Observed::new(status, host_ips, self.shared.clock.now());
        let (wanted, receiver) = watch::channel(Wanted::Pod(Arc::clone(&pod)));
        let nudge = self.shared.hints.subscribe(pod.uid.clone());
        let start = Start { pod: Arc::clone(&pod), origin, observed, admission, wanted: receiver, nudge };
        let (shared, uid) = (Arc::clone(&self.shared), pod.uid.clone());
        self.running.spawn(async move {
            worker::run(shared, start).await;
            uid
        });
        self.workers.insert(pod.uid.clone(), Handle { origin, pod, wanted });
    }

    fn admit(&self, pod: &Pod) -> Result<(), Rejection> {
        let others: Vec<&Pod> = self.workers.values().map(|handle| &*handle.pod).collect();
        admission::admit(pod, &others, &self.node.capacity.borrow())
    }

    /// A pod this node cannot run is Failed, aloud. One that runs already and was changed into such a pod runs on as it
    /// was; the change is refused aloud.
    fn refuse(&self, origin: Origin, refused: Refused) {
        let Refused { uid, rejection, api, .. } = refused;
        let report = Report::warning(rejection.reason, rejection.message.clone());
        self.shared.recorder.record(about_pod(&api, report));
        if self.workers.contains_key(&uid) {
            return;
        }
        let host_ips = self.node.host_ips.borrow().clone();
        let status = decide::status::refused(&api, &rejection, &host_ips, self.shared.clock.now());
        let row = ObservedPod { object: api, origin, status, containers: Vec::new(), stage: Stage::Released };
        self.shared.tables.observed.set(uid.clone(), row);
        self.shared.publisher.changed(uid);
    }

    fn gone(&mut self, uid: &PodUid) {
        self.shared.tables.desired.remove(uid);
        match self.workers.get(uid) {
            Some(handle) => {
                handle.wanted.send_replace(Wanted::Gone);
            }
            None => self.forget(uid),
        }
    }

    fn ended(&mut self, ended: Result<PodUid, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                let handle = self.workers.remove(&uid);
                self.forget(&uid);
                // Wanted again while it ended: the source has it, so a new worker takes it up.
                if let (Some(row), Some(handle)) = (self.shared.tables.desired.get(&uid), handle) {
                    if let Ok(pod) = parse::parse(Arc::clone(&row.object)) {
                        self.run_pod(handle.origin, Arc::new(pod));
                    }
                }
            }
            Err(error) => self.restart_lost_workers(&error),
        }
    }

    /// A worker that panicked is started again: all it knew is in the runtime and in the API.
    fn restart_lost_workers(&mut self, error: &tokio::task::JoinError) {
        tracing::error!("a pod worker broke: {error}");
        let lost: Vec<PodUid> = self
            .workers
            .iter()
            .filter(|(_, handle)| handle.wanted.is_closed())
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in lost {
            if let Some(handle) = self.workers.remove(&uid) {
                self.run_pod(handle.origin, handle.pod);
            }
        }
    }

    fn forget(&self, uid: &PodUid) {
        self.shared.hints.unsubscribe(uid);
        self.shared.tables.observed.remove(uid);
        self.shared.publisher.changed(uid.clone());
    }

    /// Ends what the runtime holds of pods that no source has and no worker owns: they went while this process was not
    /// there.
    async fn sweep(&self) {
        if !self.unheard.is_empty() {
            return;
        }
        let runtime = &self.shared.effects.runtime;
        let sandboxes = match runtime.list_pod_sandboxes(None).await {
            Ok(sandboxes) => sandboxes,
            Err(error) => {
                tracing::warn!("looking for pods that nobody wants: {error}: {}", error.message());
                return;
            }
        };
        for sandbox in sandboxes {
            let labels = sandbox.labels.into_iter().collect();
            // What no kubelet made is not the kubelet's to end.
            let Some(pod) = names::PodIdentity::of(&labels) else { continue };
            if self.workers.contains_key(&PodUid::from(pod.uid.as_str())) {
                continue;
            }
            tracing::info!(namespace = pod.namespace, name = pod.name, uid = pod.uid, "ending a pod that nobody wants");
            let stopped = runtime.stop_pod_sandbox(&sandbox.id).await;
            let removed = match stopped {
                Ok(()) => runtime.remove_pod_sandbox(&sandbox.id).await,
                error => error,
            };
            if let Err(error) = removed {
                tracing::warn!("{error}: {}; trying again in {SWEEP:?}", error.message());
            }
        }
        let known: HashSet<PodUid> = self.workers.keys().cloned().collect();
        self.shared.effects.volumes.sweep(&known).await;
    }
}

/// Older pods first: they were admitted first before a restart, too.
fn by_age(pods: BTreeMap<PodUid, Arc<api::Pod>>) -> Vec<(PodUid, Arc<api::Pod>)> {
    let mut pods: Vec<_> = pods.into_iter().collect();
    pods.sort_by(|(_, a), (_, b)| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
    pods
}

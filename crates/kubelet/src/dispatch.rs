//! From sources to workers: one worker for each pod that any source wants.
//!
//! Comes in: [`Change`]s of the sources. Goes out: the desired table, workers with what is wanted of them, and the end of
//! whatever the runtime still holds of pods that nobody wants. Here, in the order the pods arrive, the node's admission
//! is asked. Never here: anything about how a pod runs.

mod orphans;
mod predecessors;
mod preemption;
mod resize;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use decide::admission::{self, Capacity, Preemption};
use decide::allocation::{Allocation, PendingResize};
use decide::event::Eviction;
use decide::mirror;
use decide::names::{PodName, PodUid};
use decide::observed::Observed;
use decide::parse::{self, Refused};
use decide::plan::{Phase, Stage};
use decide::pod::{Pod, Rejection};
use decide::report::Report;
use k8s_openapi::api::core::v1 as api;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tracing::Instrument;

use crate::events::about_pod;
use crate::sources::Change;
use crate::tables::{DesiredPod, ObservedPod, Origin};
use crate::worker::{self, Shared, Start, Wanted};
use preemption::Queue;
use resize::{Resizes, as_granted};

/// How often what nobody wants is looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// The pause before a worker that broke begins again.
const BROKEN: Duration = Duration::from_secs(10);

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
    /// What its source wants.
    wanted_pod: Arc<Pod>,
    /// The amounts granted to its containers.
    granted: Allocation,
    /// What the worker was last given: what its source wants, with the amounts granted. The admission of others reads it.
    pod: Arc<Pod>,
    /// Whether the node took it.
    admission: Result<(), Rejection>,
    /// Why the node ends it before its time, if it does.
    evicted: Option<Eviction>,
    /// Why its last change was not taken, if it was not.
    refused: Option<Rejection>,
    wanted: watch::Sender<Wanted>,
    task: Id,
}

impl Handle {
    /// Gives the worker the pod with the amounts granted. That it is evicted is said each time: the worker may not have
    /// heard what was said before.
    fn want(&mut self, pod: Arc<Pod>) {
        self.pod = Arc::clone(&pod);
        self.wanted.send_replace(match self.evicted.clone() {
            None => Wanted::Pod(pod),
            Some(eviction) => Wanted::Evicted(pod, eviction),
        });
    }

    /// Has the worker end the pod.
    fn evict(&mut self, eviction: Eviction) {
        self.evicted = Some(eviction);
        self.want(Arc::clone(&self.pod));
    }
}

/// Starts and ends workers.
pub struct Dispatcher {
    shared: Arc<Shared>,
    node: Node,
    workers: HashMap<PodUid, Handle>,
    resizes: Resizes,
    queue: Queue,
    running: JoinSet<PodUid>,
    /// The sweep under way, if one is.
    sweeping: JoinSet<()>,
    /// Sources that have not yet said everything: until they have, nothing is swept away.
    unheard: HashSet<Origin>,
    /// Whether all have.
    heard: watch::Sender<bool>,
}

impl Dispatcher {
    /// A dispatcher that waits for these sources before it takes a pod for unwanted, and tells `heard` when all have
    /// said what they want.
    pub fn new(
        shared: Arc<Shared>,
        node: Node,
        sources: impl IntoIterator<Item = Origin>,
        heard: watch::Sender<bool>,
    ) -> Self {
        Self {
            shared,
            node,
            workers: HashMap::new(),
            resizes: Resizes::new(),
            queue: Queue::default(),
            running: JoinSet::new(),
            sweeping: JoinSet::new(),
            unheard: sources.into_iter().collect(),
            heard,
        }
    }

    /// Takes changes until the queue closes.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        let mut sweeps = tokio::time::interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut observed = self.shared.tables.observed.changes();
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(change),
                    None => return,
                },
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                Ok(()) = observed.changed(), if self.queue.holds() => {}
                () = until(self.queue.wakes()) => {}
                Some(swept) = self.sweeping.join_next() => {
                    if let Err(error) = swept {
                        tracing::error!("looking for pods that nobody wants broke: {error}");
                    }
                }
                _ = sweeps.tick(), if self.unheard.is_empty() && self.sweeping.is_empty() => {
                    // The node may have more room than before, and a pod of a file may have ended.
                    self.sweeping.spawn(orphans::sweep(Arc::clone(&self.shared)));
                }
            }
            self.settle_preemption();
            self.settle_resizes();
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::All(origin, pods) => {
                self.unheard.remove(&origin);
                let known = self.shared.tables.desired.all();
                for (uid, _) in known.iter().filter(|(uid, _)| !pods.contains_key(uid)) {
                    self.gone(origin, uid);
                }
                for (uid, object) in by_age(pods) {
                    self.desire(origin, &uid, &object);
                }
                self.heard.send_replace(self.unheard.is_empty());
            }
            Change::One(origin, uid, object) => self.desire(origin, &uid, &object),
            Change::Gone(origin, uid) => self.gone(origin, &uid),
        }
    }

    fn desire(&mut self, origin: Origin, uid: &PodUid, object: &Arc<api::Pod>) {
        match self.shared.tables.desired.get(uid) {
            Some(row) if row.origin != origin => {
                tracing::warn!(%uid, "{origin:?} wants a pod whose UID one of {:?} has; it is left out", row.origin);
                return;
            }
            Some(row) if row.object == *object => return,
            _ => {}
        }
        self.shared.tables.desired.set(uid.clone(), DesiredPod { object: Arc::clone(object), origin });
        self.take_up(origin, uid, object);
    }

    fn take_up(&mut self, origin: Origin, uid: &PodUid, object: &Arc<api::Pod>) {
        if let Some(pod) = self.read(origin, uid, object) {
            self.run_pod(origin, pod);
        }
    }

    /// The pod; none if it is refused, and then that is seen to.
    fn read(&mut self, origin: Origin, uid: &PodUid, object: &Arc<api::Pod>) -> Option<Arc<Pod>> {
        match parse::parse(Arc::clone(object)) {
            Ok(pod) => {
                if let Some(handle) = self.workers.get_mut(uid) {
                    handle.refused = None;
                }
                Some(Arc::new(Pod { is_static: origin.is_static(), ..pod }))
            }
            Err(refused) => {
                self.refuse(origin, *refused);
                None
            }
        }
    }

    fn run_pod(&mut self, origin: Origin, pod: Arc<Pod>) {
        let Some(handle) = self.workers.get_mut(&pod.uid) else {
            if origin.is_static() && self.name_is_taken(&pod) {
                tracing::info!(pod = %pod.name, uid = %pod.uid, "waiting until the pod that had this name before is gone");
                return;
            }
            if self.holds_back(&pod) {
                return;
            }
            let granted = Allocation::remembered(&pod.api);
            let admission = match self.admit(&pod, &granted) {
                Ok(Some(preemption)) => return self.preempt(&pod, preemption),
                Ok(None) => Ok(()),
                Err(rejection) => Err(rejection),
            };
            return self.start_worker(origin, pod, granted, admission, Duration::ZERO);
        };
        let differs = Allocation::of(&pod.api) != handle.granted;
        let pending = handle.pod.pending_resize.clone().filter(|_| differs);
        match as_granted(&pod, &handle.granted, pending) {
            Ok(granted) => {
                handle.wanted_pod = Arc::clone(&pod);
                handle.want(granted);
                self.expect_resize(&pod.uid, differs, self.shared.clock.now());
            }
            Err(rejection) => tracing::error!(pod = %pod.name, "a change is not taken: {}", rejection.message),
        }
    }

    /// Whether another static pod of this name is still here: one whose manifest changed.
    fn name_is_taken(&self, pod: &Pod) -> bool {
        self.workers.values().any(|handle| handle.origin.is_static() && handle.pod.name == pod.name)
    }

    /// A static pod is gone: who waits for its name has it now.
    fn take_up_successor(&mut self, name: &PodName) {
        for (uid, row) in self.shared.tables.desired.those(|row| row.origin.is_static()) {
            if !self.workers.contains_key(&uid) && mirror::name_of(&row.object) == *name {
                self.take_up(row.origin, &uid, &row.object);
            }
        }
    }

    fn start_worker(
        &mut self,
        origin: Origin,
        wanted_pod: Arc<Pod>,
        granted: Allocation,
        admission: Result<(), Rejection>,
        pause: Duration,
    ) {
        let now = self.shared.clock.now();
        let pending = PendingResize::remembered(&wanted_pod.api, &granted);
        let since = pending.as_ref().map_or(now, |(_, since)| *since);
        let differs = Allocation::of(&wanted_pod.api) != granted;
        let pod = match as_granted(&wanted_pod, &granted, pending.map(|(pending, _)| pending)) {
            Ok(pod) => pod,
            Err(rejection) => {
                tracing::error!(pod = %wanted_pod.name, "what was granted is not taken up: {}", rejection.message);
                Arc::clone(&wanted_pod)
            }
        };
        self.expect_resize(&pod.uid, differs, since);
        let status = pod.api.status.clone().unwrap_or_default();
        let host_ips = self.node.host_ips.borrow().clone();
        let observed = Observed::new(status, host_ips, now);
        let (wanted, receiver) = watch::channel(Wanted::Pod(Arc::clone(&pod)));
        let nudge = self.shared.hints.subscribe(pod.uid.clone());
        let told = admission.clone();
        let start = Start { pod: Arc::clone(&pod), origin, observed, admission: told, wanted: receiver, nudge };
        let (shared, uid) = (Arc::clone(&self.shared), pod.uid.clone());
        let span =
            tracing::info_span!("pod", namespace = pod.name.namespace, name = pod.name.name, uid = pod.uid.as_str());
        let worker = async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            if start.origin.is_static() {
                predecessors::end(&shared, &start.pod).await;
            }
            worker::run(shared, start).await;
            uid
        };
        let task = self.running.spawn(worker.instrument(span)).id();
        let (evicted, refused) = (None, None);
        let handle = Handle { origin, wanted_pod, granted, pod, admission, evicted, refused, wanted, task };
        self.workers.insert(handle.pod.uid.clone(), handle);
    }

    fn admit(&self, pod: &Arc<Pod>, granted: &Allocation) -> Result<Option<Preemption>, Rejection> {
        if preemption::needs_no_room(pod) {
            return Ok(None);
        }
        let pod = as_granted(pod, granted, None).unwrap_or_else(|_| Arc::clone(pod));
        admission::admit(&pod, &self.residents(), &self.node.capacity.borrow())
    }

    /// The pods that take up room.
    fn residents(&self) -> Vec<&Pod> {
        let resident = |(uid, handle): &(&PodUid, &Handle)| handle.admission.is_ok() && !self.has_ended(uid);
        self.workers.iter().filter(resident).map(|(_, handle)| &*handle.pod).collect()
    }

    /// A pod this node cannot run is Failed, aloud. One that runs already and was changed into such a pod runs on as it
    /// was; the change is refused aloud.
    fn refuse(&mut self, origin: Origin, refused: Refused) {
        let Refused { uid, rejection, api, .. } = refused;
        let report = about_pod(&api, Report::warning(rejection.reason.clone(), rejection.message.clone()));
        if let Some(handle) = self.workers.get_mut(&uid) {
            if handle.refused.as_ref() != Some(&rejection) {
                self.shared.recorder.record(report);
                handle.refused = Some(rejection);
            }
            // All but the spec still counts: its deletion above all.
            let spec = handle.pod.api.spec.clone();
            match parse::parse(Arc::new(api::Pod { spec, ..(*api).clone() })) {
                Ok(pod) => self.run_pod(origin, Arc::new(Pod { is_static: origin.is_static(), ..pod })),
                Err(refused) => tracing::error!(%uid, "a change is not taken: {}", refused.rejection.message),
            }
            return;
        }
        let host_ips = self.node.host_ips.borrow().clone();
        let status = decide::status::refused(&api, &rejection, &host_ips, self.shared.clock.now());
        let ended_before = api.status.as_ref().is_some_and(|status| Phase::terminal(status).is_some());
        if !ended_before && self.shared.tables.observed.get(&uid).is_none_or(|row| row.status.message != status.message)
        {
            self.shared.recorder.record(report);
        }
        let row = ObservedPod { object: api, origin, status, containers: Vec::new(), stage: Stage::Released };
        self.shared.tables.observed.set(uid.clone(), row);
        self.shared.publisher.changed(uid);
    }

    fn gone(&mut self, origin: Origin, uid: &PodUid) {
        if self.shared.tables.desired.get(uid).is_none_or(|row| row.origin != origin) {
            return;
        }
        self.shared.tables.desired.remove(uid);
        match self.workers.get(uid) {
            Some(handle) => {
                handle.wanted.send_replace(Wanted::Gone);
            }
            None => self.forget(uid),
        }
    }

    fn ended(&mut self, ended: Result<(Id, PodUid), JoinError>) {
        match ended {
            Ok((_, uid)) => {
                let ended = self.workers.remove(&uid);
                self.forget(&uid);
                // Wanted again while it ended: the source has it, so a new worker takes it up.
                if let Some(row) = self.shared.tables.desired.get(&uid) {
                    self.take_up(row.origin, &uid, &row.object);
                }
                if let Some(handle) = ended.filter(|handle| handle.origin.is_static()) {
                    self.take_up_successor(&handle.pod.name);
                }
            }
            Err(error) => self.restart(&error),
        }
    }

    /// A worker that panicked is started again: all it knew is in the runtime and in the API.
    fn restart(&mut self, error: &JoinError) {
        let lost = self.workers.iter().find(|(_, handle)| handle.task == error.id()).map(|(uid, _)| uid.clone());
        let Some(uid) = lost else { return };
        let Some(handle) = self.workers.remove(&uid) else { return };
        tracing::error!(pod = %handle.pod.name, %uid, "the worker of a pod broke: {error}; it begins again in {BROKEN:?}");
        self.start_worker(handle.origin, handle.wanted_pod, handle.granted, handle.admission, BROKEN);
        let wanted = self.shared.tables.desired.get(&uid).is_some();
        match (self.workers.get_mut(&uid), handle.evicted) {
            (Some(handle), _) if !wanted => drop(handle.wanted.send_replace(Wanted::Gone)),
            (Some(handle), Some(eviction)) => handle.evict(eviction),
            _ => {}
        }
    }

    fn forget(&self, uid: &PodUid) {
        self.shared.hints.unsubscribe(uid);
        self.shared.tables.observed.remove(uid);
        self.shared.publisher.changed(uid.clone());
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Older pods first: they were admitted first before a restart, too.
fn by_age(pods: BTreeMap<PodUid, Arc<api::Pod>>) -> Vec<(PodUid, Arc<api::Pod>)> {
    let mut pods: Vec<_> = pods.into_iter().collect();
    pods.sort_by(|(_, a), (_, b)| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
    pods
}

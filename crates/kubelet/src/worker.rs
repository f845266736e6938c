//! The pod worker: one task that owns one pod.
//!
//! Comes in: what is wanted of the pod, nudges to look at the runtime, outcomes of its own effects, time. Goes out:
//! effects, the pod's observed row, events. It is a thin shell: [`Observed::apply`] folds what happened,
//! [`decide::plan::next`] says what to do, and nothing is decided here.
//!
//! Invariants: at most one effect per task counts; every effect ends in exactly one outcome, even if it panics, and the
//! outcome of one that was replaced is dropped; a listing that an outcome overtook is dropped and made again; the observed
//! row has one writer.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cri::client::CallError;
use decide::event::{Event, Eviction, Outcome, RuntimeView};
use decide::observed::Observed;
use decide::plan::{self, Action, Plan, Stage, Task};
use decide::pod::{Pod, Rejection};
use decide::report::Report;
use futures::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use crate::clock::Clock;
use crate::effects::{self, Effects, Subject, view};
use crate::events::{Recorder, about_pod};
use crate::hints::Hints;
use crate::metrics::Metrics;
use crate::status::Publisher;
use crate::tables::{ObservedContainer, ObservedPod, Origin, Tables};

/// The pause after a listing that failed, doubled for each further one…
const FIRST_LIST_RETRY: Duration = Duration::from_secs(1);
/// …up to this.
const LAST_LIST_RETRY: Duration = Duration::from_secs(10);
/// The pause after a listing that was overtaken: where one outcome came, the next is often near.
const SETTLE: Duration = Duration::from_millis(20);

/// What all workers share.
pub struct Shared {
    /// How actions are carried out.
    pub effects: Effects,
    /// The two maps.
    pub tables: Arc<Tables>,
    /// Where statuses go.
    pub publisher: Publisher,
    /// Where events go.
    pub recorder: Recorder,
    /// Who says that the runtime has news.
    pub hints: Arc<Hints>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// What is wanted of a pod.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// It is to be as this says, or to end as this says.
    Pod(Arc<Pod>),
    /// It is to be as this says, and the node ends it before its time.
    Evicted(Arc<Pod>, Eviction),
    /// No source knows it any more: it is to end, and the worker with it.
    Gone,
}

/// What ends in the worker's own tasks.
enum Done {
    Effect(Task, Outcome),
    View(Result<RuntimeView, CallError>),
}

struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    origin: Origin,
    gone: bool,
    observed: Observed,
    previous: Option<Plan>,
    tasks: JoinSet<Done>,
    effects: HashMap<Task, AbortHandle>,
    listing: Listing,
    failed_listings: u32,
    row: Option<ObservedPod>,
}

/// Where the worker is with looking at the runtime.
enum Listing {
    /// It looks again then.
    Due(Instant),
    /// It is looking.
    UnderWay {
        /// The task that looks.
        task: Id,
        /// Something happened meanwhile: it looks again after this.
        again: bool,
        /// An outcome came in meanwhile that changed what the runtime holds: what is seen may lack it.
        overtaken: bool,
    },
}

/// What a worker begins with.
pub struct Start {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Who wants it.
    pub origin: Origin,
    /// What is known of it: the status the API server has, the node's addresses.
    pub observed: Observed,
    /// Whether the node takes it.
    pub admission: Result<(), Rejection>,
    /// What is wanted of it from now on.
    pub wanted: watch::Receiver<Wanted>,
    /// Rings when the runtime has news of it.
    pub nudge: Arc<Notify>,
}

/// Runs the pod until no source wants it and nothing is left of it.
pub async fn run(shared: Arc<Shared>, start: Start) {
    let Start { pod, origin, observed, admission, mut wanted, nudge } = start;
    let mut references = shared.effects.objects.changed();
    let mut worker = Worker {
        shared,
        pod: Arc::clone(&pod),
        origin,
        gone: false,
        observed,
        previous: None,
        tasks: JoinSet::new(),
        effects: HashMap::new(),
        listing: Listing::Due(Instant::now()),
        failed_listings: 0,
        row: None,
    };
    worker.apply(Event::Desired(pod));
    worker.apply(Event::Admission(admission));
    loop {
        worker.list_when_due();
        let plan = worker.step();
        if worker.gone && plan.stage == Stage::Released {
            worker.shared.effects.logs.remove_pod(&effects::messages::identity(&worker.pod)).await;
            // What is still being asked must not be counted after this.
            worker.tasks.shutdown().await;
            worker.shared.metrics.forget_probes_of(&worker.pod.uid);
            return;
        }
        let wake = plan.wake_at.map(|at| worker.instant(at));
        let next_list = match worker.listing {
            Listing::Due(at) => Some(at),
            Listing::UnderWay { .. } => None,
        };
        tokio::select! {
            Ok(()) = wanted.changed() => {
                let now_wanted = wanted.borrow_and_update().clone();
                worker.want(now_wanted);
            }
            () = nudge.notified() => worker.look_soon(),
            Ok(()) = references.changed() => worker.apply(Event::ReferencesChanged),
            Some(done) = worker.tasks.join_next_with_id() => worker.finish(done),
            () = until(wake) => worker.apply(Event::Tick),
            () = until(next_list) => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Worker {
    /// Folds one event into what is known, and tells what it means to people.
    fn apply(&mut self, event: Event) {
        let reports = self.observed.apply(&self.pod, event, self.shared.clock.now());
        self.say(reports);
    }

    fn say(&self, reports: impl IntoIterator<Item = Report>) {
        for report in reports {
            self.shared.recorder.record(about_pod(&self.pod.api, report));
        }
    }

    fn want(&mut self, wanted: Wanted) {
        match wanted {
            Wanted::Pod(pod) => self.desire(pod),
            Wanted::Evicted(pod, eviction) => {
                self.desire(pod);
                self.apply(Event::Evicted(eviction));
            }
            Wanted::Gone => {
                self.gone = true;
                self.apply(Event::Removed);
            }
        }
    }

    fn desire(&mut self, pod: Arc<Pod>) {
        self.pod = Arc::clone(&pod);
        self.shared.effects.volumes.update(&pod);
        self.apply(Event::Desired(pod));
    }

    /// Plans, begins what is planned, and shows how the pod stands.
    fn step(&mut self) -> Plan {
        let began = Instant::now();
        let now = self.shared.clock.now();
        let plan = plan::next(&self.pod, &self.observed, now);
        self.say(plan::announcements(self.previous.as_ref(), &plan));
        self.observed.accept(&plan);
        // What the plan displaces nobody waits for any more.
        let in_flight = &self.observed.in_flight;
        for (_, displaced) in self.effects.extract_if(|task, _| !in_flight.contains_key(task)) {
            displaced.abort();
        }
        for planned in &plan.actions {
            tracing::debug!(why = planned.why, "{:?}", planned.action);
            self.say(planned.announce.clone());
            self.begin(planned.action.clone());
        }
        self.show(&plan);
        let seen_for = decide::time::between(self.observed.seen_at, now);
        self.shared.metrics.stepped(self.previous.as_ref(), &plan, began.elapsed(), seen_for);
        self.previous = Some(plan.clone());
        plan
    }

    fn begin(&mut self, action: Action) {
        self.shared.metrics.begun(&self.pod, &action);
        let task = action.task();
        let (shared, subject) = (Arc::clone(&self.shared), self.subject());
        let (of, if_lost) = (task.clone(), action.clone());
        let effect = async move {
            let recorder = &shared.recorder;
            let say = |report| recorder.record(about_pod(&subject.pod.api, report));
            let performed = AssertUnwindSafe(shared.effects.perform(&subject, action, &say)).catch_unwind().await;
            let outcome = performed.unwrap_or_else(|_| Outcome::lost(if_lost, "the effect panicked; see the log"));
            Done::Effect(of, outcome)
        };
        let handle = self.tasks.spawn(effect.in_current_span());
        // A stop with a shorter grace takes the place of the longer one.
        if let Some(replaced) = self.effects.insert(task, handle) {
            replaced.abort();
        }
    }

    fn subject(&self) -> Subject {
        let ready = self.observed.ready_sandbox();
        let host_ips = self.observed.host_ips.clone();
        let pod_ips = match ready {
            _ if self.pod.network.host_network => host_ips.clone(),
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        };
        Subject {
            pod: Arc::clone(&self.pod),
            pod_ips,
            host_ips,
            sandbox_attempt: ready.map_or(0, |sandbox| sandbox.attempt),
        }
    }

    fn finish(&mut self, done: Result<(Id, Done), JoinError>) {
        match done {
            Ok((id, Done::Effect(task, outcome))) => self.effect_ended(id, &task, outcome),
            Ok((_, Done::View(result))) => self.listed(result),
            Err(error) if matches!(self.listing, Listing::UnderWay { task, .. } if task == error.id()) => {
                tracing::error!("listing broke: {error}");
                self.list_later();
            }
            // An effect that was replaced: its successor will answer.
            Err(_) => {}
        }
    }

    fn effect_ended(&mut self, id: Id, task: &Task, outcome: Outcome) {
        if self.effects.get(task).is_none_or(|current| current.id() != id) {
            // It was replaced when it had just ended: its successor will answer, and only that is waited for.
            return;
        }
        self.effects.remove(task);
        self.shared.metrics.ended(&self.pod, &outcome);
        if let Listing::UnderWay { overtaken, .. } = &mut self.listing {
            *overtaken |= touches_runtime(&outcome);
        }
        // An outcome says all there is to know, but for two: what failed may have been done all the same, and what was
        // started may have ended since.
        let look =
            touches_runtime(&outcome) && (has_failed(&outcome) || matches!(outcome, Outcome::ContainerStarted { .. }));
        self.apply(Event::Done(outcome));
        if look {
            self.look_soon();
        }
    }

    fn listed(&mut self, result: Result<RuntimeView, CallError>) {
        let (again, overtaken) = match self.listing {
            Listing::UnderWay { again, overtaken, .. } => (again, overtaken),
            Listing::Due(_) => (false, false),
        };
        match result {
            Ok(_) if overtaken => self.listing = Listing::Due(Instant::now() + SETTLE),
            Ok(mut view) => {
                // It shows every outcome so far, and must say so even where the clock stands still or was set back.
                let settled = self.observed.settled_at.map(|at| decide::time::after(at, Duration::from_nanos(1)));
                view.as_of = settled.map_or(view.as_of, |settled| settled.max(view.as_of));
                self.failed_listings = 0;
                let next = if again { Duration::ZERO } else { spread(self.shared.hints.relist_period()) };
                self.listing = Listing::Due(Instant::now() + next);
                self.apply(Event::Runtime(view));
            }
            Err(error) => {
                tracing::warn!("{error}: {}; trying again", error.message());
                self.list_later();
            }
        }
    }

    fn list_later(&mut self) {
        let pause = FIRST_LIST_RETRY.saturating_mul(1 << self.failed_listings.min(8)).min(LAST_LIST_RETRY);
        self.failed_listings = self.failed_listings.saturating_add(1);
        self.listing = Listing::Due(Instant::now() + spread(pause));
    }

    fn look_soon(&mut self) {
        match &mut self.listing {
            Listing::Due(at) => *at = Instant::now(),
            Listing::UnderWay { again, .. } => *again = true,
        }
    }

    fn list_when_due(&mut self) {
        let Listing::Due(at) = self.listing else { return };
        if at > Instant::now() {
            return;
        }
        let (shared, uid) = (Arc::clone(&self.shared), self.pod.uid.clone());
        let as_of = shared.clock.now();
        let listing = async move { Done::View(view::runtime_view(&shared.effects.runtime, &uid, as_of).await) };
        let task = self.tasks.spawn(listing.in_current_span()).id();
        self.listing = Listing::UnderWay { task, again: false, overtaken: false };
    }

    /// Writes the pod's observed row, if it moved.
    fn show(&mut self, plan: &Plan) {
        let containers = self.observed.containers.iter().flat_map(|(name, container)| {
            let held = container.instances.iter().filter(|instance| instance.held);
            held.map(|instance| ObservedContainer {
                name: name.clone(),
                id: instance.id.clone(),
                attempt: instance.attempt,
            })
        });
        let row = ObservedPod {
            object: Arc::clone(&self.pod.api),
            origin: self.origin,
            status: plan.status.clone(),
            containers: containers.collect(),
            stage: plan.stage,
        };
        let unchanged = self.row.as_ref().is_some_and(|shown| {
            Arc::ptr_eq(&shown.object, &row.object)
                && shown.status == row.status
                && shown.containers == row.containers
                && shown.stage == row.stage
        });
        if !unchanged {
            self.shared.tables.observed.set(self.pod.uid.clone(), row.clone());
            self.shared.publisher.changed(self.pod.uid.clone());
            self.row = Some(row);
        }
    }

    fn instant(&self, at: jiff::Timestamp) -> Instant {
        Instant::now() + decide::time::between(self.shared.clock.now(), at)
    }
}

fn touches_runtime(outcome: &Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::ImagePulled { .. }
            | Outcome::VolumesPrepared(_)
            | Outcome::VolumesReleased(_)
            | Outcome::Probed { .. }
    )
}

fn has_failed(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::VolumesPrepared(result) | Outcome::VolumesReleased(result) => result.is_err(),
        Outcome::SandboxRun(result) => result.is_err(),
        Outcome::SandboxStopped { result, .. }
        | Outcome::SandboxRemoved { result, .. }
        | Outcome::ContainerRemoved { result, .. } => result.is_err(),
        Outcome::ImagePulled { result, .. } => result.is_err(),
        Outcome::ContainerCreated { result, .. } => result.is_err(),
        Outcome::ContainerStarted { result, .. } => result.is_err(),
        Outcome::PostStartRun { result, .. } | Outcome::PreStopRun { result, .. } => result.is_err(),
        Outcome::ResourcesUpdated { result, .. } => result.is_err(),
        Outcome::ContainerStopped { result, .. } => result.is_err(),
        // Whatever a probe told, it was carried out.
        Outcome::Probed { .. } => false,
    }
}

/// Up to a tenth more or less, so that pods do not list all at once.
fn spread(period: Duration) -> Duration {
    period.mul_f64(0.9 + rand::random::<f64>() / 5.0)
}

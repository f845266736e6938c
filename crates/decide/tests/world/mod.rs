//! A node in miniature: a worker's loop over the pure core, and a runtime that does as it is told.
//!
//! In: events, faults, lives of containers. Out: a journal of every event and what followed from it. Time is a number
//! here: it moves a millisecond with each event, and as far as asked between them.

#![allow(clippy::allow_attributes, reason = "each test binary uses a part of this module")]
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this module")]

mod journal;
mod runtime;

pub(crate) use journal::Entry;
use journal::{entry, event_words};
pub(crate) use runtime::{Health, Life, Run, Runtime, Told};

use decide::admission::Capacity;
use decide::allocation::{Allocation, judge};
use decide::event::{Event, Failure, Outcome, ProbeResult};
use decide::names::ContainerName;
use decide::observed::Observed;
use decide::parse::parse;
use decide::plan::{self, Action, Plan, Task};
use decide::pod::Pod;
use decide::report::Report;
use decide::time::{Timestamp, after};
use k8s_openapi::api::core::v1 as api;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// When a world begins.
pub(crate) const EPOCH: i64 = 1_800_000_000;

/// An action that has begun, and when it will end.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) action: Action,
    pub(crate) due: Timestamp,
}

/// A failure in store for the next actions of a task.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: String,
    pub(crate) container: Option<String>,
    pub(crate) failure: Failure,
    pub(crate) times: u32,
}

/// The node in miniature.
pub(crate) struct World {
    pub(crate) object: Value,
    pub(crate) pod: Arc<Pod>,
    /// What the node has…
    pub(crate) capacity: Capacity,
    /// …and who else is there.
    neighbours: Vec<Pod>,
    granted: Allocation,
    pub(crate) observed: Observed,
    pub(crate) plan: Option<Plan>,
    pub(crate) now: Timestamp,
    pub(crate) runtime: Runtime,
    pub(crate) pending: BTreeMap<Task, Pending>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) journal: Vec<Entry>,
}

impl World {
    pub(crate) fn new(object: Value) -> Self {
        let now = Timestamp::from_second(EPOCH).unwrap();
        let granted = Allocation::of(&api_pod(&object));
        let pod = Arc::new(pod(&object));
        let observed = Observed::new(pod.api.status.clone().unwrap_or_default(), host_ips(), now);
        World {
            object,
            pod,
            capacity: Capacity { pods: 10, ..Capacity::default() },
            neighbours: Vec::new(),
            granted,
            observed,
            plan: None,
            now,
            runtime: Runtime::default(),
            pending: BTreeMap::new(),
            faults: Vec::new(),
            journal: Vec::new(),
        }
    }

    /// The worker learns of the pod, admission lets it in, and the runtime is listed for the first time.
    pub(crate) fn start(&mut self) {
        self.happen(Event::Desired(Arc::clone(&self.pod)));
        self.happen(Event::Admission(Ok(())));
        self.list();
    }

    /// One turn of the worker's loop.
    pub(crate) fn happen(&mut self, event: Event) {
        self.now = after(self.now, Duration::from_millis(1));
        let before = self.plan.take();
        let words = event_words(&event);
        let mut reports = self.observed.apply(&self.pod, event, self.now);
        let plan = plan::next(&self.pod, &self.observed, self.now);
        reports.extend(plan::announcements(before.as_ref(), &plan));
        reports.extend(plan.actions.iter().filter_map(|planned| planned.announce.clone()));
        self.observed.accept(&plan);
        for planned in &plan.actions {
            self.begin(planned.action.clone());
        }
        self.journal.extend(entry(self.now, words, before.as_ref(), &plan, &reports));
        self.plan = Some(plan);
    }

    fn begin(&mut self, action: Action) {
        let due = match &action {
            Action::StopContainer { id, grace, .. } => after(self.now, self.runtime.stop_time(id).min(*grace)),
            Action::RunPostStart { .. } | Action::RunPreStop { .. } => {
                after(self.now, Duration::from_secs(self.runtime.hook(&action).takes))
            }
            _ => self.now,
        };
        self.pending.retain(|_, pending| !action.displaces(&pending.action));
        self.pending.insert(action.task(), Pending { action, due });
    }

    /// Carries a begun action out, or lets it fail if a fault is in store, and hands the outcome to the worker.
    pub(crate) fn perform(&mut self, task: &Task) {
        let Some(Pending { action, .. }) = self.pending.remove(task) else {
            return;
        };
        let kind = format!("{:?}", task.kind);
        let container = task.container.as_ref().map(ContainerName::as_str);
        let fault = self.faults.iter_mut().find(|fault| {
            fault.times > 0
                && fault.kind == kind
                && fault.container.as_deref().is_none_or(|name| Some(name) == container)
        });
        match fault {
            Some(fault) => {
                fault.times -= 1;
                let outcome = fail(action, fault.failure.clone());
                self.happen(Event::Done(outcome));
                self.list();
            }
            None => {
                let outcome = self.runtime.perform(action, &self.pod, self.now);
                self.happen(Event::Done(outcome));
            }
        }
    }

    /// The kubelet lists what the runtime holds.
    pub(crate) fn list(&mut self) {
        let as_of = after(self.now, Duration::from_millis(1));
        self.runtime.advance(as_of);
        let view = self.runtime.view(as_of);
        self.happen(Event::Runtime(view));
    }

    /// Lets everything run its course until `end`: actions end, containers exit, back-offs run out.
    pub(crate) fn run_until(&mut self, end: Timestamp) {
        for _ in 0..100_000 {
            let due = self.pending.iter().min_by_key(|(_, pending)| pending.due);
            let due = due.map(|(task, pending)| (task.clone(), pending.due));
            if let Some((task, _)) = due.as_ref().filter(|(_, at)| *at <= self.now) {
                self.perform(&task.clone());
                continue;
            }
            let wake = self.plan.as_ref().and_then(|plan| plan.wake_at);
            let exit = self.runtime.next_exit();
            let next = [due.map(|(_, at)| at), wake, exit].into_iter().flatten().min();
            match next.filter(|at| *at <= end) {
                None => break,
                Some(at) => {
                    self.now = self.now.max(at);
                    if exit.is_some_and(|exit| exit <= self.now) {
                        self.list();
                    } else if wake.is_some_and(|wake| wake <= self.now) {
                        self.happen(Event::Tick);
                    }
                }
            }
        }
        self.now = self.now.max(end);
    }

    /// The source says something new about the pod: `change` is merged into the object.
    pub(crate) fn edit(&mut self, change: &Value) {
        merge(&mut self.object, change);
        self.tell();
    }

    /// The API server, having taken the last status, tells the worker of the object.
    pub(crate) fn tell(&mut self) {
        self.object["status"] = serde_json::to_value(&self.observed.status).unwrap();
        self.grant();
        self.happen(Event::Desired(Arc::clone(&self.pod)));
    }

    /// The same, and somebody else has written a condition.
    pub(crate) fn others_say(&mut self, condition: Value) {
        self.object["status"] = serde_json::to_value(&self.observed.status).unwrap();
        let conditions = self.object["status"]["conditions"].as_array_mut().unwrap();
        conditions.retain(|known| known["type"] != condition["type"]);
        conditions.push(condition);
        self.grant();
        self.happen(Event::Desired(Arc::clone(&self.pod)));
    }

    /// The node has other room than before.
    pub(crate) fn has(&mut self, capacity: Capacity) {
        self.capacity = capacity;
        self.tell();
    }

    /// The one other pod there is asks for so much CPU.
    pub(crate) fn has_neighbour(&mut self, cpu: &str) {
        let resources = serde_json::json!({ "requests": { "cpu": cpu } });
        let container = serde_json::json!({ "name": "c", "image": "i", "resources": resources });
        let metadata = serde_json::json!({ "name": "other", "namespace": "default", "uid": "other" });
        let object = serde_json::json!({ "metadata": metadata, "spec": { "containers": [container] } });
        self.neighbours = vec![pod(&object)];
        self.tell();
    }

    /// What the node's dispatcher does with a pod that a source has changed.
    fn grant(&mut self) {
        let wanted = pod(&self.object);
        let asked = Allocation::of(&wanted.api);
        let pending = match asked == self.granted {
            true => None,
            false => judge(&wanted, &self.neighbours.iter().collect::<Vec<_>>(), &self.capacity).err(),
        };
        if pending.is_none() {
            self.granted = asked;
        }
        let granted = parse(self.granted.applied_to(&wanted.api)).map_err(|refused| refused.rejection.message).unwrap();
        self.pod = Arc::new(Pod { pending_resize: pending, ..granted });
    }

    /// `kubectl delete --grace-period`.
    pub(crate) fn delete(&mut self, grace_seconds: i64) {
        let deadline = self.now.as_second().saturating_add(grace_seconds);
        let at = Timestamp::from_second(deadline).unwrap().to_string();
        self.edit(&serde_json::json!({
            "metadata": { "deletionTimestamp": at, "deletionGracePeriodSeconds": grace_seconds }
        }));
    }

    /// The kubelet's process dies with what it had begun, and comes back with nothing but the API's status.
    pub(crate) fn restart_kubelet(&mut self) {
        self.pending.clear();
        self.object["status"] = serde_json::to_value(&self.observed.status).unwrap();
        self.granted = Allocation::remembered(&api_pod(&self.object));
        self.grant();
        let status = self.pod.api.status.clone().unwrap_or_default();
        self.observed = Observed::new(status, host_ips(), self.now);
        self.plan = None;
    }

    pub(crate) fn status(&self) -> &api::PodStatus {
        &self.observed.status
    }
}

/// The outcome of `action` when it fails.
pub(crate) fn fail(action: Action, failure: Failure) -> Outcome {
    match Outcome::lost(action, "") {
        Outcome::VolumesPrepared(_) => Outcome::VolumesPrepared(Err(failure)),
        Outcome::VolumesReleased(_) => Outcome::VolumesReleased(Err(failure)),
        Outcome::SandboxRun(_) => Outcome::SandboxRun(Err(failure)),
        Outcome::SandboxStopped { id, .. } => Outcome::SandboxStopped { id, result: Err(failure) },
        Outcome::SandboxRemoved { id, .. } => Outcome::SandboxRemoved { id, result: Err(failure) },
        Outcome::ImagePulled { container, .. } => Outcome::ImagePulled { container, result: Err(failure) },
        Outcome::ContainerCreated { container, attempt, .. } => {
            Outcome::ContainerCreated { container, attempt, result: Err(failure) }
        }
        Outcome::ContainerStarted { container, id, .. } => {
            Outcome::ContainerStarted { container, id, result: Err(failure) }
        }
        Outcome::PostStartRun { container, id, .. } => Outcome::PostStartRun { container, id, result: Err(failure) },
        Outcome::PreStopRun { container, id, .. } => Outcome::PreStopRun { container, id, result: Err(failure) },
        Outcome::ResourcesUpdated { container, id, resources, .. } => {
            Outcome::ResourcesUpdated { container, id, resources, result: Err(failure) }
        }
        Outcome::ContainerStopped { container, id, .. } => {
            Outcome::ContainerStopped { container, id, result: Err(failure) }
        }
        Outcome::Probed { container, id, kind, .. } => {
            let result = ProbeResult::Errored { state: "unknown", message: failure.message };
            Outcome::Probed { container, id, kind, result }
        }
        Outcome::ContainerRemoved { container, id, .. } => {
            Outcome::ContainerRemoved { container, id, result: Err(failure) }
        }
    }
}

fn api_pod(object: &Value) -> api::Pod {
    serde_json::from_value(object.clone()).unwrap()
}

pub(crate) fn pod(object: &Value) -> Pod {
    parse(Arc::new(api_pod(object))).map_err(|refused| refused.rejection.message).unwrap()
}

pub(crate) fn host_ips() -> Vec<IpAddr> {
    vec![IpAddr::from([192, 0, 2, 1])]
}

fn merge(object: &mut Value, change: &Value) {
    match (object, change) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(fields.entry(name).or_insert(Value::Null), change);
            }
        }
        (Value::Array(elements), Value::Array(changes)) => {
            for (element, change) in elements.iter_mut().zip(changes) {
                merge(element, change);
            }
        }
        (object, change) => *object = change.clone(),
    }
}

/// Reports as one line each.
pub(crate) fn lines(reports: &[Report]) -> Vec<String> {
    let line = |report: &Report| {
        let place = report.container.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("{} {}{place}: {}", report.kind.as_str(), report.reason, report.message)
    };
    reports.iter().map(line).collect()
}

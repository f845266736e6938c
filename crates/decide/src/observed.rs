//! What is true of one pod on this node, as far as it is known.
//!
//! Comes in: events ([`Observed::apply`], in `fold.rs`) and the plans that were accepted ([`Observed::accept`]). Goes
//! out: what [`crate::plan::next`] reads. One writer: the pod's worker. Never here: a decision about what to do.

mod fold;
mod hook;
mod probe;
mod restart_all;
pub(crate) use fold::SHORTEST_GRACE;
pub use probe::{ProbeRecord, Tally, Verdict};
mod resize;
pub use resize::ResizeObserved;
mod seed;
pub(crate) use restart_all::{CONDITION as RESTARTING_ALL_CONDITION, REMOVED, RESTARTING_ALL};
pub(crate) use seed::SCHEME;

use crate::backoff::Streak;
use crate::event::{Eviction, Failure, Image};
use crate::names::{ContainerId, ContainerName, SandboxId};
use crate::plan::{Action, Plan, Stage, Task, TaskKind};
use crate::pod::{Enforced, Rejection};
use crate::report::Report;
use crate::time::{Timestamp, whole_seconds};
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The reason of an instance that could not be started.
const START_ERROR: &str = "StartError";

/// What is known of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// When this node first saw the pod (in this process).
    pub seen_at: Timestamp,
    /// Whether the runtime has been listed: before that nothing is planned.
    pub synced: bool,
    /// What the node's admission said.
    pub admission: Admission,
    /// Why and since when the pod is going, if it is.
    pub ending: Option<Ending>,
    /// Why the node ends it before its time, if it does.
    pub evicted: Option<Eviction>,
    /// The pod's volumes.
    pub volumes: VolumeState,
    /// The sandboxes the runtime holds, oldest first.
    pub sandboxes: Vec<Sandbox>,
    /// The containers that something is known about.
    pub containers: BTreeMap<ContainerName, ContainerObserved>,
    /// Actions that were begun and have not ended, one for each task.
    pub in_flight: BTreeMap<Task, Action>,
    /// Tasks whose last action failed.
    pub failures: BTreeMap<Task, Setback>,
    /// When an outcome was last applied; views not younger are dropped.
    pub settled_at: Option<Timestamp>,
    /// When the last view that was applied began.
    pub listed_at: Option<Timestamp>,
    /// The last status made here, or, right after a restart, the one the API server had.
    pub status: api::PodStatus,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<IpAddr>,
    /// Amounts that were granted or refused anew.
    pub resize: ResizeObserved,
    /// When the last container must be gone, once the pod winds down: one grace period for all of them.
    pub stop_by: Option<Timestamp>,
    /// Warnings of the pod's spec that were reported already.
    warned: Vec<Report>,
}

/// What the node's admission said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing yet: nothing is planned.
    Undecided,
    /// The pod may run.
    Admitted,
    /// The pod must not run, ever.
    Rejected(Rejection),
}

/// A pod's end, under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub cause: EndingCause,
    /// When this node learned of it.
    pub since: Timestamp,
    /// When the last container must be gone. Later deletions only bring it nearer.
    pub deadline: Timestamp,
}

/// Why a pod ends although its containers would go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndingCause {
    /// The API object is being deleted.
    Deleted,
    /// No source knows the pod any more.
    Removed,
}

/// The pod's volumes on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// An earlier process may have prepared them: prepare before use, release before the end.
    Unknown,
    /// There, with their content.
    Prepared,
    /// Gone.
    Released,
}

/// One sandbox in the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: SandboxId,
    /// Counts the sandboxes of the pod from 0.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub state: SandboxState,
    /// Its addresses, the primary one first; empty for the host's network.
    pub ips: Vec<IpAddr>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// State of a sandbox, in CRI's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// Containers can run in it.
    Ready,
    /// It was stopped, or died.
    NotReady,
}

/// What is known of one container of the pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerObserved {
    /// The image made sure of for the next instance; used up by its creation.
    pub image: Option<Image>,
    /// Its instances, oldest first. The last one is the container's present; the one before is its `lastState`.
    pub instances: Vec<Instance>,
    /// How often it was restarted in a row without a long run between.
    pub streak: Streak,
    /// It was stopped to be started again at once, whatever its policy says of that end.
    pub owes_restart: bool,
    /// What the probes of one of its instances have told; of the newest, or else it means nothing.
    pub probes: Option<ProbeRecord>,
}

impl ContainerObserved {
    /// The newest instance.
    #[must_use]
    pub fn newest(&self) -> Option<&Instance> {
        self.instances.last()
    }

    /// Instances that may be executing.
    pub fn alive(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.is_alive())
    }
}

/// One life of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The runtime's id.
    pub id: ContainerId,
    /// Counts the instances of the container from 0: the restart count once it is the newest.
    pub attempt: u32,
    /// Its sandbox; empty when only the status remembers the instance.
    pub sandbox: SandboxId,
    /// The image as the spec named it when the instance was made (CRI `user_specified_image`); empty if unknown.
    pub image: String,
    /// What the status calls `imageID`.
    pub image_reference: String,
    /// How far its `postStart` hook has come.
    pub post_start: PostStart,
    /// How far its `preStop` hook has come.
    pub pre_stop: PreStop,
    /// What the runtime holds it to, if it tells.
    pub enforced: Option<Enforced>,
    /// Whether the runtime still holds it; if not, only the status remembers it.
    pub held: bool,
    /// Its state.
    pub state: InstanceState,
}

impl Instance {
    /// Whether it may be executing.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.held && matches!(self.state, InstanceState::Running { .. } | InstanceState::Unknown)
    }

    /// Whether it was made in `sandbox`. What only a status remembers was, if it ended after that was made: a sandbox
    /// is made anew only once nothing runs in the former one. A status tells its time in whole seconds.
    #[must_use]
    pub fn is_of(&self, sandbox: &Sandbox) -> bool {
        match self.sandbox.as_str() {
            "" => self.exit().is_some_and(|exit| exit.finished_at >= whole_seconds(sandbox.created_at)),
            id => id == sandbox.id.as_str(),
        }
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            InstanceState::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}

/// How far the `postStart` hook of an instance has come, if its container has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostStart {
    /// It is to run once the instance does.
    Owed,
    /// It has run; or the instance was running before this process, and nobody knows.
    Done,
    /// It has failed: the instance must not go on.
    Failed {
        /// What went wrong.
        message: String,
        /// When that was known.
        at: Timestamp,
    },
}

/// How far the `preStop` hook of an instance has come, if its container has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreStop {
    /// It is to run before the instance is stopped.
    Owed,
    /// It was begun, and will not be again.
    Begun {
        /// When the instance must be gone.
        deadline: Timestamp,
    },
}

/// State of an instance.
#[derive(Clone, Debug, PartialEq)]
pub enum InstanceState {
    /// Made, not started.
    Created,
    /// Started.
    Running {
        /// When.
        started_at: Timestamp,
    },
    /// Over.
    Exited(Exit),
    /// The runtime cannot tell.
    Unknown,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// When it started, if it ever did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// 0 is success; 137 killed, 143 terminated, 128 never started.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `ContainerStatusUnknown`.
    pub reason: String,
    /// The termination message.
    pub message: String,
}

impl Exit {
    /// The end of an instance that ran and that the runtime no longer knows.
    #[must_use]
    pub fn lost(started_at: Option<Timestamp>, now: Timestamp) -> Self {
        Exit {
            started_at,
            finished_at: now,
            code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: "The container could not be located on the node. It used to be Running".into(),
        }
    }

    /// The end of an instance that could not be started.
    #[must_use]
    pub fn start_error(message: String, now: Timestamp) -> Self {
        Exit { started_at: None, finished_at: now, code: 128, reason: START_ERROR.into(), message }
    }

    /// Whether both tell of the same end, perhaps in other words. A status tells its time in whole seconds.
    #[must_use]
    pub fn is_of_same_end(&self, other: &Exit) -> bool {
        let ended = |exit: &Exit| whole_seconds(exit.finished_at);
        (self.code, &self.reason, ended(self)) == (other.code, &other.reason, ended(other))
    }

    /// Whether it stands for a start that failed.
    #[must_use]
    pub fn is_start_error(&self) -> bool {
        self.started_at.is_none() && self.reason == START_ERROR
    }
}

/// A task that has failed, once or several times in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Setback {
    /// How it failed the last time.
    pub failure: Failure,
    /// The image, if it was a pull: another image has nothing to do with this.
    pub image: Option<String>,
    /// How often in a row, at least 1.
    pub attempts: u32,
    /// When it last failed.
    pub at: Timestamp,
    /// When it may be tried again.
    pub retry_at: Timestamp,
}

impl Observed {
    /// Nothing known yet but the node's addresses and the status the API server has (restart counts, transition
    /// times, what ran before this process). `api::PodStatus::default()` for pods of files.
    #[must_use]
    pub fn new(status: api::PodStatus, host_ips: Vec<IpAddr>, now: Timestamp) -> Self {
        Observed {
            seen_at: now,
            synced: false,
            admission: Admission::Undecided,
            ending: None,
            evicted: Eviction::remembered(&status),
            volumes: VolumeState::Unknown,
            sandboxes: Vec::new(),
            containers: seed::containers(&status, now),
            in_flight: BTreeMap::new(),
            failures: BTreeMap::new(),
            settled_at: None,
            listed_at: None,
            resize: ResizeObserved::of(&status),
            status,
            host_ips,
            stop_by: None,
            warned: Vec::new(),
        }
    }

    /// The worker will carry `plan` out: its actions are in flight from now on, its status is the pod's last one.
    /// To be called for every plan, in order, before its actions begin.
    pub fn accept(&mut self, plan: &Plan) {
        for planned in &plan.actions {
            self.in_flight.retain(|_, under_way| !planned.action.displaces(under_way));
            if let Action::RunPreStop { container, id, deadline, .. } = &planned.action {
                self.containers.entry(container.clone()).or_default().pre_stop_begins(id, *deadline);
            }
            self.in_flight.insert(planned.action.task(), planned.action.clone());
        }
        self.status = plan.status.clone();
        self.stop_by = match plan.stage {
            Stage::Terminating { deadline } => Some(self.stop_by.map_or(deadline, |known| known.min(deadline))),
            Stage::Starting | Stage::Running | Stage::Ended(_) | Stage::Released => None,
        };
    }

    /// The newest sandbox.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.last()
    }

    /// Whether an action of that kind is in flight, for that container or for the pod.
    #[must_use]
    pub fn is_in_flight(&self, kind: TaskKind, container: Option<&ContainerName>) -> bool {
        self.in_flight.contains_key(&Task { container: container.cloned(), kind })
    }

    /// How a task failed last, if its last action failed.
    #[must_use]
    pub fn setback(&self, kind: TaskKind, container: Option<&ContainerName>) -> Option<&Setback> {
        self.failures.get(&Task { container: container.cloned(), kind })
    }

    /// Whether an action of that kind failed and the runtime was not listed since. It may have done what it was to do
    /// and only its answer was lost, so nothing must be built on its failure yet.
    #[must_use]
    pub fn is_in_doubt(&self, kind: TaskKind, container: Option<&ContainerName>) -> bool {
        self.setback(kind, container).is_some_and(|setback| self.listed_at.is_none_or(|at| at <= setback.at))
    }

    /// The same for any container and the pod.
    #[must_use]
    pub fn is_any_in_doubt(&self, kind: TaskKind) -> bool {
        let tasks = self.failures.keys().filter(|task| task.kind == kind);
        tasks.into_iter().any(|task| self.is_in_doubt(kind, task.container.as_ref()))
    }

    /// What is known of a container; nothing if it was never heard of.
    #[must_use]
    pub fn container(&self, name: &ContainerName) -> Option<&ContainerObserved> {
        self.containers.get(name)
    }

    /// Every instance of every container that may be executing.
    pub fn alive(&self) -> impl Iterator<Item = (&ContainerName, &Instance)> {
        self.containers.iter().flat_map(|(name, container)| container.alive().map(move |instance| (name, instance)))
    }

    /// Every instance that the runtime holds.
    pub fn held(&self) -> impl Iterator<Item = (&ContainerName, &Instance)> {
        self.containers.iter().flat_map(|(name, container)| {
            container.instances.iter().filter(|instance| instance.held).map(move |instance| (name, instance))
        })
    }
}

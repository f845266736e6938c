//! What to do about a pod now: `next(pod, observed, now) -> Plan`.
//!
//! Comes in: the pod as wanted, what is known of it, the time. Goes out: actions with their reasons, the status, the time
//! to ask again. Never here: an effect, a memory of earlier plans (what must be remembered stands in `Observed`).
//!
//! ```text
//!             Wait            nothing is known yet, or admission has not decided
//!              |
//!             Run  ----+      volumes -> sandbox -> each container in its turn: image -> create -> start; restarts by
//!              |       |      policy, of one or of all
//!              |       |
//!            WindDown <-+     deleted, removed, rejected, past its deadline, an init container failed for good, or
//!                             every main container is done: containers, sidecars last -> sandboxes -> volumes, and if nobody wants the pod any more, remove it all
//! ```

mod action;
mod course;
mod draft;
mod explain;
mod garbage;
mod hook;
mod probe;
mod resize;
mod restart_all;
mod run;
mod turn;
mod wind_down;

pub use action::{Action, Planned, Task, TaskKind};
pub(crate) use course::{Because, Course};
pub(crate) use explain::creating;
pub(crate) use hook::waits_for_post_start;
pub(crate) use probe::{has_started, is_ready};
pub(crate) use resize::{lacks, why_restart};
pub(crate) use turn::Turn;

use crate::names::ContainerName;
use crate::observed::Observed;
use crate::pod::Pod;
use crate::report::Report;
use crate::status;
use crate::time::Timestamp;
use draft::Draft;
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;

/// What to do about `pod` now, given what is known of it. Total: every input has a plan. Idempotent: once a plan was
/// accepted, asking again at the same time plans nothing more.
#[must_use]
pub fn next(pod: &Pod, observed: &Observed, now: Timestamp) -> Plan {
    let course = Course::of(pod, observed, now);
    let mut draft = Draft::new(pod, observed, now);
    match &course {
        Course::Wait => {}
        Course::Run => run::plan(&mut draft),
        Course::WindDown { deadline, remove, .. } => wind_down::plan(&mut draft, *deadline, *remove),
    }
    if course != Course::Wait {
        probe::plan(&mut draft, course != Course::Run);
    }
    if let Some(ends_at) = course::active_until(pod, observed) {
        draft.wake(ends_at);
    }
    let Draft { actions, waiting, wake_at, .. } = draft;
    let status = status::of(pod, observed, &course, &waiting, now);
    let stage = course.stage(pod, observed, &status, actions.is_empty());
    Plan { actions, status, wake_at, stage, waiting }
}

/// What to say because `next` follows `previous`: waits that were entered (`BackOff`, `Failed`). Actions announce
/// themselves (`Planned::announce`), outcomes are reported by `Observed::apply`.
#[must_use]
pub fn announcements(previous: Option<&Plan>, next: &Plan) -> Vec<Report> {
    let entered = next.waiting.iter().filter(|(name, waiting)| {
        let before = previous.and_then(|plan| plan.waiting.get(*name));
        before.is_none_or(|before| before.reason != waiting.reason || before.until < waiting.until)
    });
    entered.flat_map(|(_, waiting)| waiting.reports.iter().cloned()).collect()
}

/// What to do about a pod, and how the pod stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to begin now, in this order. None of it waits for another of it.
    pub actions: Vec<Planned>,
    /// The pod's status as of now.
    pub status: api::PodStatus,
    /// When to ask again even if nothing happens: a back-off or a deadline ends then.
    pub wake_at: Option<Timestamp>,
    /// Where the pod is in its life.
    pub stage: Stage,
    /// Containers that do not run and why.
    pub waiting: BTreeMap<ContainerName, Waiting>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not every main container has run yet.
    Starting,
    /// Every main container has run.
    Running,
    /// Its containers are being stopped.
    Terminating {
        /// When the last one is killed.
        deadline: Timestamp,
    },
    /// Its containers ended for good; their logs are still here.
    Ended(Phase),
    /// Nothing of it is left on this node: the API object may be deleted and the worker may end.
    Released,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Something is still to be started for the first time.
    Pending,
    /// Running, or about to be restarted.
    Running,
    /// Every container ended with 0, for good.
    Succeeded,
    /// Every container ended, for good, one at least not with 0; or the pod was rejected.
    Failed,
}

impl Phase {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    /// The phase a status names, if it is one from which there is no way back.
    #[must_use]
    pub fn terminal(status: &api::PodStatus) -> Option<Phase> {
        match status.phase.as_deref() {
            Some("Succeeded") => Some(Phase::Succeeded),
            Some("Failed") => Some(Phase::Failed),
            _ => None,
        }
    }
}

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `state.waiting.reason`.
    pub reason: &'static str,
    /// `state.waiting.message`.
    pub message: String,
    /// When the next try is due, if it waits for a time.
    pub until: Option<Timestamp>,
    /// What to say when the container begins to wait for this.
    pub reports: Vec<Report>,
}

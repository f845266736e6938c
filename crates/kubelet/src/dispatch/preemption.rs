//! Room for critical pods: the one pod that waits until others have ended for it, so that it can begin or have more, and
//! those that arrived after it.
//!
//! Comes in: who must end for whom ([`decide::admission`]), and how the pods stand. Goes out: evictions, and workers in the
//! order in which their pods arrived. Never here: the choice of who ends.
//!
//! As on a stock node nothing else is admitted meanwhile: the room that is made is nobody else's. Pods that are being
//! deleted or have ended need none, and do not wait.

use std::collections::VecDeque;
use std::time::Duration;

use decide::admission::Preemption;
use decide::allocation::Allocation;
use decide::event::Eviction;
use decide::names::PodUid;
use decide::plan::{Phase, Stage};
use decide::pod::Pod;
use decide::report::Report;
use tokio::time::Instant;

use super::Dispatcher;
use crate::events::about_pod;

/// A victim is waited for at least so long…
const SHORTEST_WAIT: Duration = Duration::from_secs(10);
/// …and so many times its grace, which leaves the runtime some time of its own…
const GRACES: f64 = 1.5;
/// …but a grace may be longer than any clock goes.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// What waits for room, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The pod that others end for, if there is one now.
    first: Option<Waiting>,
    /// Those behind it. What no source wants any more by its turn is passed over.
    behind: VecDeque<PodUid>,
}

/// A pod, and whom it waits for.
#[derive(Debug)]
struct Waiting {
    uid: PodUid,
    victims: Vec<Victim>,
}

#[derive(Debug)]
struct Victim {
    uid: PodUid,
    /// Nobody waits for it any longer than this.
    until: Instant,
}

impl Queue {
    /// Whether room is being made, and others must wait.
    pub(super) fn holds(&self) -> bool {
        self.first.is_some()
    }

    /// When somebody will have waited long enough.
    pub(super) fn wakes(&self) -> Option<Instant> {
        let victims = self.first.iter().flat_map(|waiting| &waiting.victims);
        victims.map(|victim| victim.until).min()
    }

    /// The pod waits behind those that are there.
    fn join(&mut self, uid: &PodUid) {
        let is_first = self.first.as_ref().is_some_and(|waiting| waiting.uid == *uid);
        if !is_first && !self.behind.contains(uid) {
            self.behind.push_back(uid.clone());
        }
    }
}

/// Whether a pod needs no room, as it is about to go or has gone.
pub(super) fn needs_no_room(pod: &Pod) -> bool {
    pod.deletion.is_some() || pod.api.status.as_ref().is_some_and(|status| Phase::terminal(status).is_some())
}

/// How long a victim with this grace is waited for.
fn wait_for(grace: Duration) -> Duration {
    grace.min(LONGEST_WAIT).mul_f64(GRACES).clamp(SHORTEST_WAIT, LONGEST_WAIT)
}

impl Dispatcher {
    /// Holds a pod that needs room back while room is made for another; says whether it does.
    pub(super) fn holds_back(&mut self, pod: &Pod) -> bool {
        let holds = self.queue.holds() && !needs_no_room(pod);
        if holds {
            self.queue.join(&pod.uid);
        }
        holds
    }

    /// Ends the victims; the pod is let in once they have ended, or have had their time.
    pub(super) fn preempt(&mut self, pod: &Pod, preemption: Preemption) {
        let Preemption { victims, signal } = preemption;
        tracing::info!(pod = %pod.name, uid = %pod.uid, ?victims, "a critical pod is short of {signal}: others end for it");
        let now = Instant::now();
        let each = victims.into_iter().filter_map(|uid| {
            let wanted = self.shared.tables.desired.get(&uid).is_some();
            let handle = self.workers.get_mut(&uid)?;
            // Who goes anyway is only waited for: its worker must not be told that it is wanted.
            if wanted {
                handle.evict(Eviction::PREEMPTED);
                self.shared.metrics.preempted(&signal);
            }
            Some(Victim { uid, until: now + wait_for(handle.pod.grace) })
        });
        self.queue.first = Some(Waiting { uid: pod.uid.clone(), victims: each.collect() });
    }

    /// Lets those in that need not wait any longer.
    pub(super) fn settle_preemption(&mut self) {
        while let Some(mut waiting) = self.queue.first.take() {
            waiting.victims.retain(|victim| !self.is_over(victim));
            if !waiting.victims.is_empty() && self.still_waits(&waiting.uid) {
                self.queue.first = Some(waiting);
                return;
            }
            if self.still_waits(&waiting.uid) {
                self.let_in(&waiting.uid);
            }
            while !self.queue.holds()
                && let Some(next) = self.queue.behind.pop_front()
            {
                if let Some(row) = self.shared.tables.desired.get(&next) {
                    self.take_up(row.origin, &next, &row.object);
                }
            }
        }
    }

    /// Whether the pod has a use for the room. It may have been deleted meanwhile, or be wanted no more, or ask for less.
    fn still_waits(&self, uid: &PodUid) -> bool {
        let begins = !self.workers.contains_key(uid) && self.shared.tables.desired.get(uid).is_some();
        begins || self.resizes.contains_key(uid) && self.goes_on(uid)
    }

    /// The room is there, and it is this pod's: nothing is asked again.
    fn let_in(&mut self, uid: &PodUid) {
        if self.workers.contains_key(uid) {
            return self.grant_resize(uid);
        }
        let Some(row) = self.shared.tables.desired.get(uid) else { return };
        if let Some(pod) = self.read(row.origin, uid, &row.object) {
            let granted = Allocation::remembered(&pod.api);
            self.start_worker(row.origin, pod, granted, Ok(()), Duration::ZERO);
        }
    }

    /// Whether the victim has ended, or took too long.
    fn is_over(&self, victim: &Victim) -> bool {
        let Some(handle) = self.workers.get(&victim.uid).filter(|_| !self.has_ended(&victim.uid)) else { return true };
        let too_long = victim.until <= Instant::now();
        if too_long {
            let message = "Container runtime did not kill the pod within specified grace period.";
            let report = Report::warning("ExceededGracePeriod", message);
            self.shared.recorder.record(about_pod(&handle.pod.api, report));
        }
        too_long
    }

    /// Whether nothing of the pod runs any more, for good.
    pub(super) fn has_ended(&self, uid: &PodUid) -> bool {
        let row = self.shared.tables.observed.get(uid);
        row.is_some_and(|row| matches!(row.stage, Stage::Ended(_) | Stage::Released))
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_WAIT, SHORTEST_WAIT, wait_for};
    use std::time::Duration;

    #[test]
    fn a_victim_has_half_as_long_again_as_its_grace() {
        assert_eq!(wait_for(Duration::ZERO), SHORTEST_WAIT);
        assert_eq!(wait_for(Duration::from_secs(30)), Duration::from_secs(45));
        assert_eq!(wait_for(Duration::MAX), LONGEST_WAIT);
    }
}

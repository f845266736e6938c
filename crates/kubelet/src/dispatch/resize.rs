//! Resizes: which of the amounts that pods ask for while they run the node grants, and in which order.
//!
//! Comes in: the pods as their sources want them, what was granted to each, what the node has. Goes out: workers' pods with
//! the amounts granted. Never here: the arithmetic ([`decide::allocation`]), or how amounts come into force.

use std::collections::BTreeMap;
use std::sync::Arc;

use decide::allocation::{self, Allocation, PendingResize};
use decide::names::PodUid;
use decide::parse;
use decide::plan::Phase;
use decide::pod::{Pod, Rejection};
use jiff::Timestamp;

use super::{Dispatcher, Handle};

/// Pods that ask for other amounts than were granted to them, and since when.
pub(super) type Resizes = BTreeMap<PodUid, Timestamp>;

/// The pod with the amounts that were granted to it in the place of those it asks for.
///
/// # Errors
/// It cannot run with those.
pub(super) fn as_granted(
    wanted: &Arc<Pod>,
    granted: &Allocation,
    pending: Option<PendingResize>,
) -> Result<Arc<Pod>, Rejection> {
    let object = granted.applied_to(&wanted.api);
    if Arc::ptr_eq(&object, &wanted.api) && pending == wanted.pending_resize {
        return Ok(Arc::clone(wanted));
    }
    let pod = parse::parse(object).map_err(|refused| refused.rejection)?;
    Ok(Arc::new(Pod { pending_resize: pending, is_static: wanted.is_static, ..pod }))
}

impl Dispatcher {
    /// Whether the pod asks for other amounts than it has; until that is judged it keeps those.
    pub(super) fn expect_resize(&mut self, uid: &PodUid, differs: bool, since: Timestamp) {
        match differs {
            true => drop(self.resizes.entry(uid.clone()).or_insert(since)),
            false => drop(self.resizes.remove(uid)),
        }
    }

    /// Judges every resize that waits, once it is known what else the node has to carry.
    pub(super) fn settle_resizes(&mut self) {
        if !self.unheard.is_empty() || self.resizes.is_empty() || self.queue.holds() {
            return;
        }
        let waiting = std::mem::take(&mut self.resizes);
        let (mut waiting, going): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .filter(|(uid, _)| self.workers.contains_key(uid))
            .partition(|(uid, _)| self.goes_on(uid));
        // What goes keeps what it has.
        self.resizes.extend(going);
        waiting.sort_by_cached_key(|(uid, since)| {
            self.workers.get(uid).map(|handle| allocation::precedence(&handle.wanted_pod, &handle.pod, *since))
        });
        for (uid, since) in waiting {
            self.resizes.insert(uid.clone(), since);
            if !self.queue.holds() {
                self.judge_resize(&uid);
            }
        }
    }

    /// Grants the resize, or has others end for it, or tells the pod's worker why it waits.
    fn judge_resize(&mut self, uid: &PodUid) {
        let Some(wanted) = self.workers.get(uid).map(|handle| Arc::clone(&handle.wanted_pod)) else { return };
        let verdict = allocation::judge(&wanted, &self.residents(), &self.node.capacity.borrow());
        match verdict {
            Ok(None) => self.grant_resize(uid),
            Ok(Some(preemption)) => self.preempt(&wanted, preemption),
            Err(pending) => self.give(uid, Some(pending)),
        }
    }

    /// The pod has what it asks for, and its worker knows.
    pub(super) fn grant_resize(&mut self, uid: &PodUid) {
        self.resizes.remove(uid);
        if let Some(handle) = self.workers.get_mut(uid) {
            handle.granted = Allocation::of(&handle.wanted_pod.api);
            self.give(uid, None);
        }
    }

    /// Gives the pod's worker what is granted, if that is news.
    fn give(&mut self, uid: &PodUid, pending: Option<PendingResize>) {
        let Some(handle) = self.workers.get_mut(uid) else { return };
        if pending.is_some() && handle.pod.pending_resize == pending {
            return;
        }
        match as_granted(&handle.wanted_pod, &handle.granted, pending) {
            Ok(pod) => handle.want(pod),
            Err(rejection) => tracing::error!(%uid, "a resize is not taken: {}", rejection.message),
        }
    }

    /// Whether the pod is wanted and neither ends nor has ended.
    pub(super) fn goes_on(&self, uid: &PodUid) -> bool {
        let ends = |handle: &Handle| {
            let status = handle.wanted_pod.api.status.as_ref();
            handle.wanted_pod.deletion.is_some() || status.is_some_and(|status| Phase::terminal(status).is_some())
        };
        self.shared.tables.desired.get(uid).is_some() && self.workers.get(uid).is_some_and(|handle| !ends(handle))
    }
}

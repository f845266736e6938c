//! Which pods end so that a critical one has room: those whose end hurts least.
//!
//! Comes in: the critical pod, the node's other pods, what is short. Goes out: the victims, or a rejection if even all
//! together would not do. Guaranteed pods are spared where burstable and best-effort ones suffice, burstable ones where
//! best-effort ones do; within a class as few end as the kubelet's greedy choice finds: each time the one whose requests
//! come nearest to what is still short, and of those the smaller.

use super::Shortage;
use crate::names::PodUid;
use crate::pod::{Pod, Rejection};
use crate::qos::{self, QosClass};
use std::borrow::Cow;

/// Room that is made for a critical pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// The pods that end, best-effort ones first.
    pub victims: Vec<PodUid>,
    /// The first resource that was short, as the kubelet's metric calls it.
    pub signal: Cow<'static, str>,
}

/// So much of a resource is still to be freed.
#[derive(Clone, Debug)]
struct Need {
    resource: Cow<'static, str>,
    amount: u64,
}

/// The pods that end for `pod`.
pub(super) fn choose(pod: &Pod, others: &[&Pod], short: &[Shortage]) -> Result<Preemption, Rejection> {
    let signal = short.first().map_or(Cow::from(""), |first| first.resource.clone());
    let needs: Vec<Need> =
        short.iter().map(|one| Need { resource: one.resource.clone(), amount: one.missing() }).collect();
    let mut may_end: Vec<&Pod> = others.iter().copied().filter(|other| yields(other, pod)).collect();
    // Of pods that are alike the youngest ends, in whatever order they come.
    may_end.sort_by_key(|other| (std::cmp::Reverse(other.created_at), &other.uid));
    let of = |class| may_end.iter().copied().filter(|other| qos::class(other) == class).collect::<Vec<&Pod>>();
    let (best_effort, burstable, guaranteed) =
        (of(QosClass::BestEffort), of(QosClass::Burstable), of(QosClass::Guaranteed));
    let left_by_all = left(&needs, &may_end);
    if !left_by_all.is_empty() {
        return Err(unexpected(&left_by_all));
    }
    let guaranteed = nearest(guaranteed, left(&left(&needs, &best_effort), &burstable));
    let burstable = nearest(burstable, left(&left(&needs, &best_effort), &guaranteed));
    let best_effort = nearest(best_effort, left(&left(&needs, &burstable), &guaranteed));
    let victims = best_effort.iter().chain(&burstable).chain(&guaranteed);
    Ok(Preemption { victims: victims.map(|victim| victim.uid.clone()).collect(), signal })
}

/// Whether `other` may end for the critical `pod`.
fn yields(other: &Pod, pod: &Pod) -> bool {
    let outranked = pod.priority().zip(other.priority()).is_some_and(|(ours, theirs)| ours > theirs);
    !other.is_critical() || outranked
}

/// What the end of `pods` leaves to be freed.
fn left(needs: &[Need], pods: &[&Pod]) -> Vec<Need> {
    let rest = needs.iter().map(|need| {
        let freed = pods.iter().map(|pod| pod.request(&need.resource)).fold(0, u64::saturating_add);
        Need { amount: need.amount.saturating_sub(freed), ..need.clone() }
    });
    rest.filter(|need| need.amount > 0).collect()
}

/// Pods of one class, one after another, until nothing is short or none is left.
fn nearest(mut pods: Vec<&Pod>, mut needs: Vec<Need>) -> Vec<&Pod> {
    let mut chosen = Vec::new();
    while !needs.is_empty() {
        let best = pods.iter().enumerate().min_by(|(_, one), (_, other)| {
            let by_distance = distance(&needs, one).total_cmp(&distance(&needs, other));
            by_distance.then_with(|| size(one).cmp(&size(other)))
        });
        let Some((index, _)) = best else { break };
        let pod = pods.remove(index);
        needs = left(&needs, &[pod]);
        chosen.push(pod);
    }
    chosen
}

/// How far the end of `pod` is from freeing all: each resource counts alike, by the part of it that stays short, squared.
fn distance(needs: &[Need], pod: &Pod) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a ratio of amounts; the last bits decide nothing")]
    let part = |need: &Need| need.amount.saturating_sub(pod.request(&need.resource)) as f64 / need.amount as f64;
    needs.iter().map(|need| part(need).powi(2)).sum()
}

/// What makes one of two equally near pods the smaller.
fn size(pod: &Pod) -> (u64, u64) {
    (pod.request("memory"), pod.request("cpu"))
}

fn unexpected(needs: &[Need]) -> Rejection {
    let needs: String = needs.iter().map(|need| format!("(res: {}, q: {}), ", need.resource, need.amount)).collect();
    Rejection {
        reason: "UnexpectedAdmissionError".into(),
        message: format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of \
             pods to preempt: no set of running pods found to reclaim resources: [{needs}]"
        ),
    }
}

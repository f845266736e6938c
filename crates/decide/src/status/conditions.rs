//! `status.conditions`: the kubelet's own, and those of others untouched beside them.

use super::resize;
use crate::observed::Observed;
use crate::plan::Phase;
use crate::pod::Pod;
use crate::time::{Timestamp, whole_seconds};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Types only the kubelet writes. `PodScheduled` is the scheduler's; the kubelet adds it to pods no scheduler saw.
const OWN: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

/// Truth with its reason and message.
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn bare(holds: bool) -> Self {
        Verdict { holds, reason: None, message: None }
    }

    fn because(holds: bool, reason: &'static str) -> Self {
        Verdict { holds, reason: Some(reason), message: None }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Verdict { holds: false, reason: Some(reason), message: Some(message) }
    }
}

/// Every condition of the pod.
pub(super) fn all(
    pod: &Pod,
    observed: &Observed,
    phase: Phase,
    containers: &[api::ContainerStatus],
    now: Timestamp,
) -> Vec<api::PodCondition> {
    let foreign = foreign_and_kept(pod, &observed.status);
    let containers_ready = containers_ready(phase, containers);
    let ready = ready(pod, &containers_ready, &foreign);
    // Nothing will start in what is left of it: said with its end, not once more when its sandbox goes.
    let is_over = matches!(phase, Phase::Succeeded | Phase::Failed);
    let initialized = match phase {
        Phase::Succeeded => Verdict::because(true, "PodCompleted"),
        Phase::Pending | Phase::Running | Phase::Failed => Verdict::bare(true),
    };
    let mut own = vec![
        ("PodReadyToStartContainers", Verdict::bare(!is_over && observed.ready_sandbox().is_some())),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ];
    if !foreign.iter().any(|condition| condition.type_ == "PodScheduled") {
        own.push(("PodScheduled", Verdict::bare(true)));
    }
    let before = observed.status.conditions.as_deref().unwrap_or_default();
    let own = own.into_iter().map(|(type_, verdict)| condition(type_, verdict, pod.generation, before, now));
    let resizes = if is_over { Vec::new() } else { resize::conditions(pod, observed) };
    let resizes = resizes.into_iter().map(|one| {
        let verdict = Verdict { holds: true, reason: one.reason, message: one.message };
        condition(one.type_, verdict, one.generation, before, now)
    });
    own.chain(resizes).chain(foreign).collect()
}

/// The conditions of others, by the API object, or by the last status if the object has none yet.
pub(super) fn foreign_and_kept(pod: &Pod, before: &api::PodStatus) -> Vec<api::PodCondition> {
    let theirs = pod.api.status.as_ref().and_then(|status| status.conditions.as_ref());
    let conditions = theirs.or(before.conditions.as_ref()).into_iter().flatten();
    conditions.filter(|condition| !OWN.contains(&condition.type_.as_str())).cloned().collect()
}

/// `ours` over `current`: see [`super::merge`].
pub(super) fn merge(current: &[api::PodCondition], ours: &[api::PodCondition]) -> Vec<api::PodCondition> {
    let own = ours.iter().filter(|condition| OWN.contains(&condition.type_.as_str()));
    let own = own.map(|condition| match find(current, &condition.type_) {
        Some(same) if same.status == condition.status => {
            let last_transition_time = same.last_transition_time.clone();
            api::PodCondition { last_transition_time, ..condition.clone() }
        }
        _ => condition.clone(),
    });
    let theirs = current.iter().filter(|condition| !OWN.contains(&condition.type_.as_str()));
    let scheduled = ours.iter().filter(|ours| ours.type_ == "PodScheduled" && find(current, &ours.type_).is_none());
    own.chain(scheduled.cloned()).chain(theirs.cloned()).collect()
}

fn find<'a>(conditions: &'a [api::PodCondition], type_: &str) -> Option<&'a api::PodCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn condition(
    type_: &str,
    verdict: Verdict,
    generation: Option<i64>,
    before: &[api::PodCondition],
    now: Timestamp,
) -> api::PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let unmoved = find(before, type_).filter(|condition| condition.status == status);
    let since = unmoved.and_then(|condition| condition.last_transition_time.clone());
    api::PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: since.or_else(|| Some(Time(whole_seconds(now)))),
        last_probe_time: None,
        observed_generation: generation,
    }
}

fn containers_ready(phase: Phase, containers: &[api::ContainerStatus]) -> Verdict {
    match phase {
        Phase::Succeeded => return Verdict::because(false, "PodCompleted"),
        Phase::Failed => return Verdict::because(false, "PodFailed"),
        Phase::Pending | Phase::Running => {}
    }
    let unready = containers.iter().filter(|container| !container.ready).map(|container| container.name.as_str());
    let unready: Vec<&str> = unready.collect();
    match unready.is_empty() {
        true => Verdict::bare(true),
        false => Verdict::no("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    }
}

/// Containers first, then the readiness gates, whose conditions others write.
fn ready(pod: &Pod, containers_ready: &Verdict, foreign: &[api::PodCondition]) -> Verdict {
    if !containers_ready.holds {
        let Verdict { reason, message, .. } = containers_ready;
        return Verdict { holds: false, reason: *reason, message: message.clone() };
    }
    let unmet = pod.readiness_gates.iter().filter_map(|gate| match find(foreign, gate) {
        None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
        Some(condition) if condition.status != "True" => {
            Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {}", condition.status))
        }
        Some(_) => None,
    });
    let unmet: Vec<String> = unmet.collect();
    match unmet.is_empty() {
        true => Verdict::bare(true),
        false => Verdict::no("ReadinessGatesNotReady", unmet.join(", ")),
    }
}

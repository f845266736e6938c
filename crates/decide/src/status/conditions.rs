//! `status.conditions`: the kubelet's own, and those of others untouched beside them.

use super::containers::Statuses;
use super::resize;
use crate::event::{DISRUPTION_TARGET, TERMINATION_BY_KUBELET, is_disruption};
use crate::observed::{Observed, RESTARTING_ALL_CONDITION};
use crate::plan::Phase;
use crate::pod::{Container, Pod, RestartAction, Role};
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
    statuses: &Statuses,
    now: Timestamp,
) -> Vec<api::PodCondition> {
    let mut foreign = foreign_and_kept(pod, &observed.status);
    let before = observed.status.conditions.as_deref().unwrap_or_default();
    let containers_ready = containers_ready(phase, pod, statuses);
    let ready = ready(pod, &containers_ready, &foreign);
    // Nothing will start in what is left of it: said with its end, not once more when its sandbox goes.
    let is_over = matches!(phase, Phase::Succeeded | Phase::Failed);
    let initialized = initialized(phase, pod, statuses, before);
    let mut own = vec![
        ("PodReadyToStartContainers", Verdict::bare(!is_over && observed.ready_sandbox().is_some())),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ];
    if !foreign.iter().any(|condition| condition.type_ == "PodScheduled") {
        own.push(("PodScheduled", Verdict::bare(true)));
    }
    let rules = || pod.init_containers.iter().chain(&pod.containers).flat_map(|container| &container.restart.rules);
    if rules().any(|rule| rule.action == RestartAction::RestartAllContainers) {
        own.push((RESTARTING_ALL_CONDITION, restarting_all(phase, pod, observed)));
    }
    if let Some(eviction) = &observed.evicted {
        // Others write this one, too; from here on it is the node's.
        foreign.retain(|condition| condition.type_ != DISRUPTION_TARGET);
        let message = Some(eviction.condition.to_owned());
        own.push((DISRUPTION_TARGET, Verdict { message, ..Verdict::because(true, TERMINATION_BY_KUBELET) }));
    }
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
    let is_ours = |condition: &&api::PodCondition| OWN.contains(&condition.type_.as_str()) || is_disruption(condition);
    let own = ours.iter().filter(is_ours);
    let own = own.map(|condition| match find(current, &condition.type_) {
        Some(same) if same.status == condition.status => {
            let last_transition_time = same.last_transition_time.clone();
            api::PodCondition { last_transition_time, ..condition.clone() }
        }
        _ => condition.clone(),
    });
    let evicts = ours.iter().any(is_disruption);
    let is_theirs = |type_: &str| !(OWN.contains(&type_) || evicts && type_ == DISRUPTION_TARGET);
    let theirs = current.iter().filter(|condition| is_theirs(&condition.type_));
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

/// Once a pod was initialized it stays so, whatever is run again.
fn initialized(phase: Phase, pod: &Pod, statuses: &Statuses, before: &[api::PodCondition]) -> Verdict {
    if phase == Phase::Succeeded {
        return Verdict::because(true, "PodCompleted");
    }
    let has_begun = |status: &api::ContainerStatus| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let was = find(before, "Initialized").is_some_and(|condition| condition.status == "True");
    if was || statuses.main.iter().any(has_begun) {
        return Verdict::bare(true);
    }
    let is_complete = |container: &Container, status: &api::ContainerStatus| match container.role {
        Role::Sidecar => status.started == Some(true),
        Role::Init | Role::Main | Role::Ephemeral => status.ready,
    };
    let init = pod.init_containers.iter().zip(&statuses.init);
    let incomplete = init.filter(|(container, status)| !is_complete(container, status));
    let incomplete: Vec<&str> = incomplete.map(|(container, _)| container.name.as_str()).collect();
    match incomplete.is_empty() {
        true => Verdict::bare(true),
        false => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Verdict::no("ContainersNotInitialized", message)
        }
    }
}

fn restarting_all(phase: Phase, pod: &Pod, observed: &Observed) -> Verdict {
    match phase {
        Phase::Succeeded => Verdict::because(false, "PodCompleted"),
        Phase::Failed => Verdict::because(false, "PodFailed"),
        Phase::Pending | Phase::Running if observed.is_restarting_all(pod) => Verdict {
            message: Some("container exited with restart policy rule".into()),
            ..Verdict::because(true, "RestartAllContainersStarted")
        },
        Phase::Pending | Phase::Running => Verdict::bare(false),
    }
}

/// Those that live as long as the pod: sidecars, then main containers.
fn containers_ready(phase: Phase, pod: &Pod, statuses: &Statuses) -> Verdict {
    match phase {
        Phase::Succeeded => return Verdict::because(false, "PodCompleted"),
        Phase::Failed => return Verdict::because(false, "PodFailed"),
        Phase::Pending | Phase::Running => {}
    }
    let init = pod.init_containers.iter().zip(&statuses.init);
    let sidecars = init.filter(|(container, _)| container.role == Role::Sidecar).map(|(_, status)| status);
    let lasting = sidecars.chain(&statuses.main);
    let unready = lasting.filter(|status| !status.ready).map(|status| status.name.as_str());
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

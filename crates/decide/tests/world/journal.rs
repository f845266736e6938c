//! What a case expects: one entry for each event that led to anything, in words.

use super::{EPOCH, lines};
use decide::event::{Event, Outcome, ProbeResult};
use decide::names::{ContainerId, ContainerName};
use decide::plan::{Action, Plan, Stage};
use decide::pod::Enforced;
use decide::report::Report;
use decide::time::{Timestamp, between};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// One event and what followed from it. What did not change is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Entry {
    at: String,
    event: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reports: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    actions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resize: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wake: Option<String>,
}

/// The entry of an event; none if nothing followed from it.
pub(super) fn entry(
    now: Timestamp,
    event: String,
    before: Option<&Plan>,
    plan: &Plan,
    reports: &[Report],
) -> Option<Entry> {
    fn changed<T: PartialEq>(before: Option<T>, now: T) -> Option<T> {
        Some(now).filter(|now| before.is_none_or(|before| before != *now))
    }
    let entry = Entry {
        at: clock(now),
        event,
        reports: lines(reports),
        actions: plan.actions.iter().map(|planned| format!("{}: {}", action(&planned.action), planned.why)).collect(),
        stage: changed(before.map(|plan| stage(plan.stage)), stage(plan.stage)),
        phase: changed(before.map(|plan| phase(&plan.status)), phase(&plan.status)),
        containers: changed(before.map(|plan| containers(&plan.status)), containers(&plan.status)).unwrap_or_default(),
        resize: changed(before.map(|plan| resize(&plan.status)), resize(&plan.status)).unwrap_or_default(),
        wake: changed(before.map(|plan| plan.wake_at), plan.wake_at).flatten().map(clock),
    };
    let silent = Entry { at: entry.at.clone(), event: entry.event.clone(), ..Entry::nothing() };
    (entry != silent).then_some(entry)
}

impl Entry {
    fn nothing() -> Self {
        Entry {
            at: String::new(),
            event: String::new(),
            reports: Vec::new(),
            actions: Vec::new(),
            stage: None,
            phase: None,
            containers: Vec::new(),
            resize: Vec::new(),
            wake: None,
        }
    }
}

/// Seconds since the world began. The milliseconds that each event takes are cut off.
fn clock(at: Timestamp) -> String {
    let since = between(Timestamp::from_second(EPOCH).unwrap(), at);
    format!("{}.{}s", since.as_secs(), since.subsec_millis() / 100)
}

fn stage(stage: Stage) -> String {
    match stage {
        Stage::Terminating { deadline } => format!("Terminating until {}", clock(deadline)),
        Stage::Ended(phase) => format!("Ended {}", phase.as_str()),
        Stage::Starting | Stage::Running | Stage::Released => format!("{stage:?}"),
    }
}

/// Phase, reason, message, and the conditions that hold.
fn phase(status: &api::PodStatus) -> String {
    let conditions = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    let conditions: Vec<_> = conditions.map(|condition| condition.type_.as_str()).collect();
    let because =
        status.reason.as_ref().map(|reason| format!(" {reason} ({})", status.message.as_deref().unwrap_or("")));
    let phase = status.phase.as_deref().unwrap_or("none");
    let not_initialized =
        status.conditions.iter().flatten().find(|one| one.type_ == "Initialized" && one.status != "True");
    let not_initialized = not_initialized.map(|one| format!(", {}", one.message.as_deref().unwrap_or("")));
    let (because, not_initialized) = (because.unwrap_or_default(), not_initialized.unwrap_or_default());
    format!("{phase}{because}, true: {}{not_initialized}", conditions.join(" "))
}

fn containers(status: &api::PodStatus) -> Vec<String> {
    let lists = [
        ("init ", &status.init_container_statuses),
        ("", &status.container_statuses),
        ("ephemeral ", &status.ephemeral_container_statuses),
    ];
    let statuses = lists.into_iter().flat_map(|(list, statuses)| statuses.iter().flatten().map(move |one| (list, one)));
    let one = |(list, status): (&str, &api::ContainerStatus)| {
        let last = status.last_state.as_ref().map(state).filter(|last| !last.is_empty());
        let last = last.map(|last| format!(", last {last}")).unwrap_or_default();
        let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
        let lacks = match (status.started, status.ready) {
            (Some(false), _) if runs => ", not started",
            (_, false) if runs => ", not ready",
            _ => "",
        };
        let state = status.state.as_ref().map(state).unwrap_or_default();
        format!("{list}{} #{} {state}{lacks}{last}", status.name, status.restart_count)
    };
    statuses.map(one).collect()
}

fn state(state: &api::ContainerState) -> String {
    let text = |text: &Option<String>| text.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
    match (&state.waiting, &state.running, &state.terminated) {
        (Some(waiting), ..) => format!("waiting {}{}", waiting.reason.as_deref().unwrap_or(""), text(&waiting.message)),
        (_, Some(running), _) => format!("running since {}", clock(running.started_at.as_ref().unwrap().0)),
        (.., Some(ended)) => {
            let reason = ended.reason.as_deref().unwrap_or("");
            format!("terminated {} {reason}{}", ended.exit_code, text(&ended.message))
        }
        (None, None, None) => String::new(),
    }
}

/// What a runtime holds a container to.
fn enforced(enforced: &Enforced) -> String {
    let some = |amount: Option<u64>| amount.map_or("none".to_owned(), |amount| amount.to_string());
    let Enforced { cpu_quota_micros, cpu_shares, memory_limit_bytes } = enforced;
    format!("quota {}, shares {cpu_shares}, memory {}", some(*cpu_quota_micros), some(*memory_limit_bytes))
}

/// The conditions of a resize, and the amounts that were granted and that are in force; nothing for a pod without any.
fn resize(status: &api::PodStatus) -> Vec<String> {
    let conditions = status.conditions.iter().flatten().filter(|condition| condition.type_.starts_with("PodResize"));
    let conditions = conditions.map(|condition| {
        let text = |text: &Option<String>| text.as_ref().map(|text| format!(" {text}")).unwrap_or_default();
        let generation = condition.observed_generation.unwrap_or(0);
        format!("{}{}{}, generation {generation}", condition.type_, text(&condition.reason), text(&condition.message))
    });
    let containers = status.container_statuses.iter().flatten().filter_map(|container| {
        let amounts = |amounts: Option<&BTreeMap<String, Quantity>>| {
            let amounts = amounts.into_iter().flatten().map(|(name, amount)| format!("{name} {}", amount.0));
            amounts.collect::<Vec<_>>().join(" ")
        };
        let granted = amounts(Some(container.allocated_resources.as_ref()?));
        let resources = container.resources.as_ref();
        let limits = amounts(resources.and_then(|resources| resources.limits.as_ref()));
        let requests = amounts(resources.and_then(|resources| resources.requests.as_ref()));
        Some(format!("{} granted {granted}, in force [{requests}] up to [{limits}]", container.name))
    });
    conditions.chain(containers).collect()
}

fn action(action: &Action) -> String {
    match action {
        Action::RunPostStart { id, .. } => format!("RunPostStart {id}"),
        Action::RunPreStop { id, grace, .. } => format!("RunPreStop {id} within {:.0}s", grace.as_secs_f64()),
        Action::UpdateResources { id, resources, .. } => format!("UpdateResources {id} to {}", enforced(resources)),
        Action::StopContainer { id, grace, .. } => format!("StopContainer {id} within {:.0}s", grace.as_secs_f64()),
        Action::CreateContainer { container, sandbox, attempt, .. } => {
            format!("CreateContainer {container} attempt {attempt} in {sandbox}")
        }
        Action::StartContainer { id, .. } => format!("StartContainer {id}"),
        Action::Probe { id, kind, early, .. } => {
            format!("Probe {id} {}{}", kind.as_str(), if *early { " early" } else { "" })
        }
        Action::RemoveContainer { id, keep_log: true, .. } => format!("RemoveContainer {id}, keeping its log"),
        Action::RemoveContainer { id, .. } => format!("RemoveContainer {id}"),
        Action::PullImage { container, image } => format!("PullImage {image} for {container}"),
        Action::RunSandbox { attempt } => format!("RunSandbox attempt {attempt}"),
        Action::StopSandbox { id } => format!("StopSandbox {id}"),
        Action::RemoveSandbox { id } => format!("RemoveSandbox {id}"),
        Action::PrepareVolumes | Action::ReleaseVolumes => format!("{action:?}"),
    }
}

pub(super) fn event_words(event: &Event) -> String {
    match event {
        Event::Desired(pod) if pod.deletion.is_some() => "Desired, being deleted".into(),
        Event::Desired(_) => "Desired".into(),
        Event::Admission(Ok(())) => "Admitted".into(),
        Event::Admission(Err(_)) => "Rejected".into(),
        Event::Runtime(view) => {
            format!("Runtime lists {} sandboxes, {} containers", view.sandboxes.len(), view.containers.len())
        }
        Event::Done(outcome) => outcome_words(outcome),
        Event::Evicted(eviction) => format!("Evicted, {}", eviction.reason),
        Event::Removed | Event::ReferencesChanged | Event::Tick => format!("{event:?}"),
    }
}

fn outcome_words(outcome: &Outcome) -> String {
    fn ended<T: Debug>(what: impl std::fmt::Display, result: &Result<T, decide::event::Failure>) -> String {
        match result {
            Ok(_) => format!("{what} done"),
            Err(failure) => format!("{what} failed: {} ({})", failure.reason, failure.message),
        }
    }
    let of = |what: &str, container: &ContainerName| format!("{what} {container}");
    let with = |what: &str, id: &ContainerId| format!("{what} {id}");
    match outcome {
        Outcome::VolumesPrepared(result) => ended("PrepareVolumes", result),
        Outcome::VolumesReleased(result) => ended("ReleaseVolumes", result),
        Outcome::SandboxRun(result) => ended("RunSandbox", result),
        Outcome::SandboxStopped { id, result } => ended(format!("StopSandbox {id}"), result),
        Outcome::SandboxRemoved { id, result } => ended(format!("RemoveSandbox {id}"), result),
        Outcome::ImagePulled { container, result } => ended(of("PullImage", container), result),
        Outcome::ContainerCreated { container, result, .. } => ended(of("CreateContainer", container), result),
        Outcome::ContainerStarted { id, result, .. } => ended(with("StartContainer", id), result),
        Outcome::PostStartRun { id, result, .. } => ended(with("RunPostStart", id), result),
        Outcome::PreStopRun { id, result, .. } => ended(with("RunPreStop", id), result),
        Outcome::ResourcesUpdated { id, result, .. } => ended(with("UpdateResources", id), result),
        Outcome::ContainerStopped { id, result, .. } => ended(with("StopContainer", id), result),
        Outcome::Probed { id, kind, result, .. } => {
            let told = match result {
                ProbeResult::Success => "success".to_owned(),
                other => format!("{other:?}"),
            };
            format!("Probe {id} {} told {told}", kind.as_str())
        }
        Outcome::ContainerRemoved { id, result, .. } => ended(with("RemoveContainer", id), result),
    }
}

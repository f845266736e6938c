//! Tests of `status`.

use super::{merge, refused};
use crate::event::{Event, Outcome, RuntimeView};
use crate::names::{ContainerId, ContainerName, SandboxId};
use crate::observed::{Exit, Instance, InstanceState, Observed, PostStart, PreStop, Sandbox, SandboxState};
use crate::parse::parse;
use crate::plan::{Plan, next};
use crate::pod::{Pod, Rejection};
use crate::time::{Timestamp, after};
use k8s_openapi::api::core::v1 as api;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

fn pod(status: &Value) -> Pod {
    let object = json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 3 },
        "spec": {
            "readinessGates": [{ "conditionType": "example.org/ready" }],
            "volumes": [{ "name": "v", "emptyDir": {} }],
            "containers": [{
                "name": "c", "image": "i:1",
                "resources": { "requests": { "cpu": "100m" }, "limits": { "memory": "64Mi" } },
                "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": true }],
            }],
        },
        "status": status,
    });
    parse(Arc::new(serde_json::from_value(object).unwrap())).map_err(|refused| refused.rejection).unwrap()
}

fn at(seconds: u64) -> Timestamp {
    // Half a second that no API object can carry.
    after("2026-01-01T00:00:00.5Z".parse().unwrap(), Duration::from_secs(seconds))
}

fn condition(type_: &str, status: &str) -> Value {
    json!({ "type": type_, "status": status, "lastTransitionTime": "2025-12-31T00:00:00Z" })
}

/// A worker that knows of a running container.
fn running(pod: &Pod) -> Observed {
    let host: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let mut observed = Observed::new(pod.api.status.clone().unwrap_or_default(), host, at(0));
    observed.apply(pod, Event::Admission(Ok(())), at(0));
    let sandbox = Sandbox {
        id: SandboxId::from("s"),
        attempt: 0,
        state: SandboxState::Ready,
        ips: vec!["10.0.0.9".parse().unwrap()],
        created_at: at(0),
    };
    let instance = Instance {
        id: ContainerId::from("c-0"),
        attempt: 0,
        sandbox: SandboxId::from("s"),
        image: "i:1".into(),
        post_start: PostStart::Done,
        pre_stop: PreStop::Owed,
        enforced: None,
        image_reference: "i@sha256:0123".into(),
        held: true,
        state: InstanceState::Running { started_at: at(1) },
    };
    let containers = vec![(ContainerName::from("c"), instance)];
    observed.apply(pod, Event::Runtime(RuntimeView { as_of: at(1), sandboxes: vec![sandbox], containers }), at(1));
    observed.apply(pod, Event::Done(Outcome::VolumesPrepared(Ok(()))), at(1));
    observed
}

fn written(plan: &Plan) -> Value {
    serde_json::to_value(&plan.status).unwrap()
}

#[test]
fn a_running_pod_is_described_in_full() {
    let gate = condition("example.org/ready", "False");
    let pod = pod(&json!({ "conditions": [condition("PodScheduled", "True"), gate] }));
    let status = written(&next(&pod, &running(&pod), at(2)));
    let own = |type_: &str, status: &str| json!({ "type": type_, "status": status, "lastTransitionTime": "2026-01-01T00:00:02Z", "observedGeneration": 3 });
    let mut ready = own("Ready", "False");
    ready["reason"] = "ReadinessGatesNotReady".into();
    ready["message"] = "the status of pod readiness gate \"example.org/ready\" is not \"True\", but False".into();
    let expected = json!({
        "phase": "Running",
        "observedGeneration": 3,
        "qosClass": "Burstable",
        "startTime": "2026-01-01T00:00:00Z",
        "hostIP": "192.0.2.1",
        "hostIPs": [{ "ip": "192.0.2.1" }, { "ip": "2001:db8::1" }],
        "podIP": "10.0.0.9",
        "podIPs": [{ "ip": "10.0.0.9" }],
        "conditions": [
            own("PodReadyToStartContainers", "True"),
            own("Initialized", "True"),
            ready,
            own("ContainersReady", "True"),
            condition("PodScheduled", "True"),
            condition("example.org/ready", "False"),
        ],
        "containerStatuses": [{
            "name": "c",
            "state": { "running": { "startedAt": "2026-01-01T00:00:01Z" } },
            "lastState": {},
            "ready": true,
            "started": true,
            "restartCount": 0,
            "image": "i:1",
            "imageID": "i@sha256:0123",
            "containerID": "wasklet://c-0",
            "allocatedResources": { "cpu": "100m" },
            "resources": { "requests": { "cpu": "100m" }, "limits": { "memory": "64Mi" } },
            "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": true }],
        }],
    });
    assert_eq!(status, expected);
}

fn ended(message: &str) -> Exit {
    Exit { started_at: Some(at(1)), finished_at: at(3), code: 1, reason: "Error".into(), message: message.into() }
}

#[test]
fn the_messages_of_a_pod_take_no_more_than_12_kib_together() {
    let mut object = serde_json::to_value(&*pod(&json!({})).api).unwrap();
    object["spec"]["containers"] = json!([{ "name": "c", "image": "i:1" }, { "name": "d", "image": "i:1" }]);
    let pod = parse(Arc::new(serde_json::from_value(object).unwrap())).map_err(|refused| refused.rejection).unwrap();
    let mut observed = running(&pod);
    // The middle of a character is at 6 KiB.
    let exit = ended(&format!("x{}", "é".repeat(6 * 1024)));
    let stopped = Outcome::ContainerStopped { container: "c".into(), id: ContainerId::from("c-0"), result: Ok(exit) };
    observed.apply(&pod, Event::Done(stopped), at(3));
    let shown = message(&next(&pod, &observed, at(3)));
    assert_eq!(shown.map(|message| message.len()), Some(6 * 1024 - 1));
}

/// The termination message of the first container, wherever it stands.
fn message(plan: &Plan) -> Option<String> {
    let first = plan.status.container_statuses.as_ref()?.first()?;
    let states = [first.state.clone(), first.last_state.clone()];
    states.into_iter().flatten().find_map(|state| state.terminated?.message)
}

#[test]
fn the_words_of_an_end_stay_when_what_they_were_read_from_is_gone() {
    let pod = pod(&json!({}));
    let mut observed = running(&pod);
    let told = |observed: &mut Observed, second, exit| {
        let mut containers =
            vec![(ContainerName::from("c"), observed.containers[&ContainerName::from("c")].instances[0].clone())];
        containers[0].1.state = InstanceState::Exited(exit);
        let view = RuntimeView { as_of: at(second), sandboxes: observed.sandboxes.clone(), containers };
        observed.apply(&pod, Event::Runtime(view), at(second));
        message(&next(&pod, observed, at(second)))
    };
    assert_eq!(told(&mut observed, 4, ended("")), None);
    assert_eq!(told(&mut observed, 5, ended("why")).as_deref(), Some("why"));
    assert_eq!(told(&mut observed, 6, ended("")).as_deref(), Some("why"));
    // The runtime knows better how it ended.
    let other = Exit { code: 2, ..ended("other") };
    assert_eq!(told(&mut observed, 7, other).as_deref(), Some("other"));

    // A worker that comes later has the words from the status, where times are whole seconds.
    let known = next(&pod, &observed, at(8)).status;
    let mut later = Observed::new(known, Vec::new(), at(9));
    later.sandboxes = observed.sandboxes.clone();
    later.apply(&pod, Event::Admission(Ok(())), at(9));
    assert_eq!(told(&mut later, 10, Exit { code: 2, ..ended("") }).as_deref(), Some("other"));
}

#[test]
fn times_of_conditions_move_only_with_them() {
    let pod = pod(&json!({}));
    let mut observed = running(&pod);
    let first = next(&pod, &observed, at(2));
    observed.accept(&first);
    let second = next(&pod, &observed, at(90));
    assert_eq!(first.status, second.status);

    observed.apply(&pod, Event::Runtime(RuntimeView { as_of: at(99), sandboxes: vec![], containers: vec![] }), at(100));
    let third = next(&pod, &observed, at(100));
    let time = |plan: &Plan, type_: &str| {
        let conditions = plan.status.conditions.as_ref().unwrap();
        let condition = conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        condition.last_transition_time.as_ref().unwrap().0.to_string()
    };
    assert_eq!(time(&third, "ContainersReady"), "2026-01-01T00:01:40Z");
    assert_eq!(time(&third, "Initialized"), "2026-01-01T00:00:02Z");
}

#[test]
fn a_refused_pod_is_failed_and_keeps_what_others_said() {
    let api = pod(&json!({ "conditions": [condition("PodScheduled", "True")] })).api;
    let rejection = Rejection { reason: "PodFeatureUnsupported".into(), message: "spec.x is not supported".into() };
    let status = refused(&api, &rejection, &[], at(0));
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.message.as_deref(), Some("Pod was rejected: spec.x is not supported"));
    assert_eq!(status.conditions.unwrap().len(), 1);
}

fn status(value: Value) -> api::PodStatus {
    serde_json::from_value(value).unwrap()
}

#[test]
fn merging_keeps_the_conditions_of_others_and_the_end() {
    let current = status(json!({
        "phase": "Failed", "reason": "Evicted", "startTime": "2025-12-31T00:00:00Z",
        "conditions": [condition("Ready", "True"), condition("DisruptionTarget", "True"), condition("PodScheduled", "True")],
    }));
    let mut scheduled = condition("PodScheduled", "True");
    scheduled["lastTransitionTime"] = "2026-06-01T00:00:00Z".into();
    let mut ready = condition("Ready", "True");
    ready["lastTransitionTime"] = "2026-06-01T00:00:00Z".into();
    let ours = status(json!({
        "phase": "Running", "startTime": "2026-06-01T00:00:00Z", "podIP": "10.0.0.1",
        "conditions": [ready, condition("Initialized", "True"), scheduled, condition("example.org/old", "True")],
    }));
    let merged = merge(&current, &ours);
    assert_eq!((merged.phase.as_deref(), merged.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(merged.start_time, current.start_time);
    assert_eq!(merged.pod_ip.as_deref(), Some("10.0.0.1"));
    let types = |status: &api::PodStatus| -> Vec<(String, String)> {
        let conditions = status.conditions.iter().flatten();
        let time = |condition: &api::PodCondition| condition.last_transition_time.as_ref().unwrap().0.to_string();
        conditions.map(|condition| (condition.type_.clone(), time(condition))).collect()
    };
    let expected = ["Ready", "Initialized", "DisruptionTarget", "PodScheduled"];
    assert_eq!(types(&merged), expected.map(|type_| (type_.to_owned(), "2025-12-31T00:00:00Z".to_owned())));
}

//! Tests of `allocation`.

use super::{Allocation, PendingReason, judge, precedence};
use crate::admission::Capacity;
use crate::parse::parse;
use crate::pod::{Pod, Resources};
use crate::time::{Timestamp, after};
use k8s_openapi::api::core::v1 as api;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn object(name: &str, cpu: &str, memory: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "n", "uid": name, "generation": 2 },
        "spec": { "containers": [{
            "name": "c", "image": "i", "resources": { "requests": { "cpu": cpu, "memory": memory } },
        }] },
    })
}

fn api(object: Value) -> Arc<api::Pod> {
    Arc::new(serde_json::from_value(object).unwrap())
}

fn pod(name: &str, cpu: &str, memory: &str) -> Pod {
    parse(api(object(name, cpu, memory))).unwrap()
}

fn node() -> Capacity {
    let allocatable =
        Resources { cpu_millis: Some(2000), memory_bytes: Some(1 << 30), ephemeral_storage_bytes: Some(1 << 30) };
    Capacity { pods: 3, allocatable, ..Capacity::default() }
}

fn check(cpu: &str, memory: &str, wanted: Option<(PendingReason, &str)>) {
    let other = pod("other", "500m", "512Mi");
    let verdict = judge(&pod("p", cpu, memory), &[&other], &node());
    let verdict = verdict.err().map(|pending| (pending.reason, pending.message));
    assert_eq!(verdict, wanted.map(|(reason, message)| (reason, message.to_owned())), "{cpu} {memory}");
}

#[test]
fn what_fits_is_granted_what_others_have_is_deferred_what_nobody_has_is_infeasible() {
    check("1500m", "512Mi", None);
    let deferred = "Node didn't have enough resource: cpu, requested: 1600, used: 500, capacity: 2000";
    check("1600m", "512Mi", Some((PendingReason::Deferred, deferred)));
    let deferred =
        "Node didn't have enough resource: memory, requested: 536870913, used: 536870912, capacity: 1073741824";
    check("1", "536870913", Some((PendingReason::Deferred, deferred)));
    let infeasible = "Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000";
    check("2001m", "1Mi", Some((PendingReason::Infeasible, infeasible)));
    let infeasible = "Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824";
    check("3", "2Gi", Some((PendingReason::Infeasible, infeasible)));
}

#[test]
fn a_critical_pod_gets_what_others_have() {
    let mut wants = object("p", "1600m", "512Mi");
    wants["spec"]["priority"] = 2_000_000_000.into();
    let other = pod("other", "500m", "512Mi");
    let preemption = judge(&parse(api(wants)).unwrap(), &[&other], &node()).unwrap().unwrap();
    assert_eq!((preemption.victims, &*preemption.signal), (vec![other.uid], "cpu"));
}

#[test]
fn static_pods_stay_as_they_are() {
    let pod = Pod { is_static: true, ..pod("p", "1m", "1") };
    let pending = judge(&pod, &[], &node()).unwrap_err();
    assert_eq!(pending.message, "In-place resize of static-pods is not supported");
    assert_eq!((pending.reason, pending.generation), (PendingReason::Infeasible, Some(2)));
}

#[test]
fn what_was_granted_is_read_from_the_status() {
    let mut wants = object("p", "2", "64Mi");
    wants["spec"]["containers"][0]["resources"]["limits"] = json!({ "cpu": "2" });
    assert_eq!(Allocation::remembered(&api(wants.clone())), Allocation::of(&api(wants.clone())));

    // Granted and perhaps not yet in force: the spec's.
    let status = |requests: Value, limits: Value| {
        json!({ "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": requests, "resources": { "requests": requests, "limits": limits },
        }] })
    };
    let mut granted = wants.clone();
    granted["status"] = status(json!({ "cpu": "2", "memory": "64Mi" }), json!({ "cpu": "1" }));
    assert_eq!(Allocation::remembered(&api(granted)), Allocation::of(&api(wants.clone())));

    // Not granted: the requests that were, and the limits in force.
    let mut waits = wants.clone();
    waits["status"] = status(json!({ "cpu": "1", "memory": "64Mi" }), json!({ "cpu": "1" }));
    let waits = api(waits);
    let effective = Allocation::remembered(&waits).applied_to(&waits);
    let container = &parse(effective).unwrap().containers.iter().next().unwrap().clone();
    assert_eq!((container.requests.cpu_millis, container.limits.cpu_millis), (Some(1000), Some(1000)));
    assert_eq!(container.requests.memory_bytes, Some(64 << 20));
}

#[test]
fn who_gives_back_goes_first_then_who_matters_then_who_waits() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let granted = pod("p", "1", "64Mi");
    let with_priority = |cpu: &str, priority: i32| {
        let mut wants = object("p", cpu, "64Mi");
        wants["spec"]["priority"] = priority.into();
        parse(api(wants)).unwrap()
    };
    let later = after(now, Duration::from_secs(1));
    let of = |wanted: &Pod, since| precedence(wanted, &granted, since);
    let order = [
        of(&with_priority("500m", -1), later),
        of(&with_priority("2", 10), later),
        of(&with_priority("2", 1), now),
        of(&with_priority("2", 1), later),
    ];
    assert!(order.is_sorted());
    assert!(of(&with_priority("500m", -1), later) < of(&with_priority("2", 10), now));
}

//! Tests of `admission`.

use super::{Capacity, admit};
use crate::parse::parse;
use crate::pod::{Pod, Resources};
use k8s_openapi::api::core::v1 as api;
use std::sync::Arc;

fn pod(uid: &str, spec: &str) -> Pod {
    let mut api: api::Pod =
        serde_saphyr::from_str(&format!("metadata: {{name: {uid}, namespace: n, uid: {uid}}}")).unwrap();
    let mut whole: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
    let containers = &mut whole["containers"];
    if containers.is_null() {
        *containers = serde_json::json!([{}]);
    }
    containers[0]["name"] = "c".into();
    containers[0]["image"] = "i".into();
    api.spec = Some(serde_json::from_value(whole).unwrap());
    parse(Arc::new(api)).unwrap()
}

fn node() -> Capacity {
    Capacity {
        pods: 3,
        allocatable: Resources {
            cpu_millis: Some(2000),
            memory_bytes: Some(1 << 30),
            ephemeral_storage_bytes: Some(1 << 30),
        },
        node_name: "node-1".into(),
        extended: [("example.com/dongle".to_owned(), 4)].into(),
        taints: Vec::new(),
        labels: [("kubernetes.io/os", "wasi"), ("zone", "a"), ("size", "7")].map(|(k, v)| (k.into(), v.into())).into(),
    }
}

/// The reason `spec` is rejected for on a node that has `others`; empty if it is admitted.
fn verdict(spec: &str, others: &[&str]) -> (String, String) {
    let others: Vec<Pod> =
        others.iter().enumerate().map(|(index, spec)| pod(&format!("other-{index}"), spec)).collect();
    let others: Vec<&Pod> = others.iter().collect();
    match admit(&pod("new", spec), &others, &node()) {
        Ok(preemption) => {
            assert_eq!(preemption, None, "nobody ends for an ordinary pod");
            (String::new(), String::new())
        }
        Err(rejection) => (rejection.reason.into_owned(), rejection.message),
    }
}

fn check(spec: &str, others: &[&str], reason: &str) {
    assert_eq!(verdict(spec, others).0, reason, "{spec} beside {others:?}");
}

#[test]
fn what_a_node_has_is_shared_out_once() {
    let cpu = |amount: &str| format!("containers: [{{resources: {{requests: {{cpu: {amount}}}}}}}]");
    let memory = |amount: &str| format!("containers: [{{resources: {{limits: {{memory: {amount}}}}}}}]");
    check(&cpu("2"), &[], "");
    check(&cpu("1500m"), &[&cpu("500m")], "");
    check(&cpu("1501m"), &[&cpu("500m")], "OutOfcpu");
    check(&memory("512Mi"), &[&memory("513Mi")], "OutOfmemory");
    check("{}", &[&cpu("2"), &memory("1Gi")], "");
    check("containers: [{resources: {requests: {ephemeral-storage: 2Gi}}}]", &[], "OutOfephemeral-storage");
    check("overhead: {cpu: '3'}", &[], "OutOfcpu");
    let dongles = |count: u64| format!("containers: [{{resources: {{limits: {{example.com/dongle: {count}}}}}}}]");
    check(&dongles(3), &[&dongles(1)], "");
    check(&dongles(4), &[&dongles(1)], "OutOfexample.com/dongle");
    check("containers: [{resources: {limits: {example.com/ring: 9}}}]", &[], "");
    check("{}", &["{}", "{}", "{}"], "OutOfpods");
    let (_, message) = verdict(&cpu("2"), &[&cpu("500m")]);
    assert_eq!(message, "Node didn't have enough resource: cpu, requested: 2000, used: 500, capacity: 2000");
}

#[test]
fn pods_that_ended_and_the_pod_itself_do_not_count() {
    let greedy = "containers: [{resources: {requests: {cpu: 2}}}]";
    let mut ended = pod("ended", greedy);
    ended.api = Arc::new(api::Pod {
        status: Some(api::PodStatus { phase: Some("Failed".into()), ..api::PodStatus::default() }),
        ..(*ended.api).clone()
    });
    let new = pod("new", greedy);
    assert_eq!(admit(&new, &[&ended, &new], &node()), Ok(None));
}

#[test]
fn host_ports_are_taken_by_address_and_protocol() {
    let port = |port: &str| format!("containers: [{{ports: [{{containerPort: 80, {port}}}]}}]");
    let taken = port("hostPort: 8080");
    check(&port("hostPort: 8080"), &[&taken], "NodePorts");
    check(&port("hostPort: 8080, hostIP: 192.0.2.1"), &[&taken], "NodePorts");
    check(&port("hostPort: 8081"), &[&taken], "");
    check(&port("hostPort: 8080, protocol: UDP"), &[&taken], "");
    check(&port("name: http"), &[&taken], "");
    let local = port("hostPort: 8080, hostIP: 127.0.0.1");
    check(&port("hostPort: 8080, hostIP: 192.0.2.1"), &[&local], "");
    check("{hostNetwork: true, containers: [{ports: [{containerPort: 8080}]}]}", &[&taken], "NodePorts");
}

#[test]
fn a_pod_must_select_the_node_it_is_bound_to() {
    check("nodeSelector: {zone: a}", &[], "");
    check("nodeSelector: {zone: b}", &[], "NodeAffinity");
    check("nodeSelector: {kubernetes.io/os: wasi}", &[], "");
    check("nodeSelector: {kubernetes.io/os: linux}", &[], "NodeAffinity");
}

#[test]
fn every_operator_of_node_affinity() {
    let term = |term: &str| {
        let required = format!("requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{term}]}}");
        format!("affinity: {{nodeAffinity: {{{required}}}}}")
    };
    let cases = [
        ("{key: zone, operator: In, values: [a, b]}", true),
        ("{key: zone, operator: In, values: [b]}", false),
        ("{key: zone, operator: NotIn, values: [b]}", true),
        ("{key: none, operator: NotIn, values: [b]}", true),
        ("{key: zone, operator: NotIn, values: [a]}", false),
        ("{key: zone, operator: Exists}", true),
        ("{key: none, operator: Exists}", false),
        ("{key: none, operator: DoesNotExist}", true),
        ("{key: zone, operator: DoesNotExist}", false),
        ("{key: size, operator: Gt, values: ['6']}", true),
        ("{key: size, operator: Gt, values: ['7']}", false),
        ("{key: size, operator: Lt, values: ['8']}", true),
        ("{key: zone, operator: Lt, values: ['8']}", false),
        ("{key: zone, operator: Roughly, values: [a]}", false),
    ];
    for (requirement, holds) in cases {
        check(&term(&format!("{{matchExpressions: [{requirement}]}}")), &[], if holds { "" } else { "NodeAffinity" });
    }
    check(&term("{matchFields: [{key: metadata.name, operator: In, values: [node-1]}]}"), &[], "");
    check(&term("{matchFields: [{key: metadata.name, operator: In, values: [node-2]}]}"), &[], "NodeAffinity");
    check(&term("{}"), &[], "NodeAffinity");
    check(&term("{}, {matchExpressions: [{key: zone, operator: Exists}]}"), &[], "");
}

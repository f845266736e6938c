//! The node against the machine, the runtime, and what others say of it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use serde_json::json;

use super::*;

const MINUTES: i64 = 60;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn input() -> Input {
    let condition = |kind: &str| RuntimeCondition {
        kind: kind.to_owned(),
        holds: true,
        reason: String::new(),
        message: String::new(),
    };
    Input {
        name: "wasm-1".to_owned(),
        hostname: "host-1".to_owned(),
        labels: BTreeMap::from([("pool".to_owned(), "wasm".to_owned())]),
        taints: None,
        provider_id: None,
        addresses: vec!["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
        kubelet_port: Some(10250),
        kubelet_version: "v1.37.2+wasklet.0.1.0".to_owned(),
        machine: Machine {
            cpu_cores: 4,
            memory_bytes: 8 << 30,
            ephemeral_storage_bytes: 100 << 30,
            ..Machine::default()
        },
        runtime: Runtime::Answered(RuntimeAnswer {
            name: "wasklet".to_owned(),
            version: "0.1.0".to_owned(),
            conditions: vec![condition("RuntimeReady"), condition("NetworkReady")],
            ..RuntimeAnswer::default()
        }),
        max_pods: 110,
        max_images: Some(2),
        reserved: Reserved { cpu: Amount::thousandths(500), ..Reserved::default() },
        hard_eviction: HardEviction {
            memory_available: Threshold::parse("100Mi").unwrap(),
            nodefs_available: Threshold::parse("10%").unwrap(),
        },
    }
}

fn condition<'a>(status: &'a NodeStatus, kind: &str) -> &'a NodeCondition {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind).unwrap()
}

fn answer(input: &mut Input) -> &mut RuntimeAnswer {
    match &mut input.runtime {
        Runtime::Answered(answer) => answer,
        Runtime::Unreachable { .. } => panic!("the runtime of these tests answers"),
    }
}

#[test]
fn there_are_no_more_pods_than_the_runtime_has_room_for() {
    let pods = |input: &Input, previous: Option<&NodeStatus>| {
        let status = status(input, previous, at(0));
        assert_eq!(status.capacity.as_ref().unwrap()["pods"], status.allocatable.as_ref().unwrap()["pods"]);
        (status.capacity.clone().unwrap()["pods"].0.clone(), status)
    };
    let mut input = input();
    answer(&mut input).pods_at_most = Some(5_000);
    assert_eq!(pods(&input, None).0, "110");
    answer(&mut input).pods_at_most = Some(64);
    let (said, before) = pods(&input, None);
    assert_eq!(said, "64");
    input.runtime = Runtime::Unreachable { message: "gone".to_owned() };
    assert_eq!(pods(&input, Some(&before)).0, "64", "its process is as it was, or will be");
    assert_eq!(pods(&input, None).0, "110");
}

#[test]
fn a_new_node_says_what_it_is() {
    let node = serde_json::to_value(desired_node(&input(), at(0))).unwrap();
    assert_eq!(
        node["metadata"]["labels"],
        json!({
            "beta.kubernetes.io/arch": "wasm32-wasi", "beta.kubernetes.io/os": "wasi", "kubernetes.io/arch": "wasm32-wasi",
            "kubernetes.io/hostname": "host-1", "kubernetes.io/os": "wasi", "pool": "wasm",
        })
    );
    assert_eq!(
        node["spec"]["taints"],
        json!([{ "key": "kubernetes.io/arch", "value": "wasm32-wasi", "effect": "NoSchedule" }])
    );
    let status = &node["status"];
    assert_eq!(status["capacity"], json!({ "cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi", "pods": "110" }));
    assert_eq!(
        status["allocatable"],
        json!({ "cpu": "3500m", "memory": "8092Mi", "ephemeral-storage": "90Gi", "pods": "110" })
    );
    assert_eq!(
        status["addresses"],
        json!([
            { "type": "InternalIP", "address": "10.1.2.3" },
            { "type": "InternalIP", "address": "fd00::3" },
            { "type": "Hostname", "address": "host-1" },
        ])
    );
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
    assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "wasklet://0.1.0");
}

#[test]
fn labels_and_taints_can_be_replaced() {
    let mut input = input();
    input.labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    input.taints = Some(Vec::new());
    let node = desired_node(&input, at(0));
    assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/os"], "linux");
    assert_eq!(node.spec.unwrap().taints, None);
}

#[test]
fn an_existing_node_gets_its_own_labels_back_and_keeps_the_rest() {
    let mut node = desired_node(&input(), at(0));
    assert_eq!(metadata_patch(&input(), &node), None);
    let labels = node.metadata.labels.as_mut().unwrap();
    labels.insert("theirs".to_owned(), "stays".to_owned());
    labels.insert("kubernetes.io/hostname".to_owned(), "old".to_owned());
    let patch = metadata_patch(&input(), &node).unwrap();
    assert_eq!(patch, json!({ "metadata": { "labels": { "kubernetes.io/hostname": "host-1" } } }));
    let bare = metadata_patch(&input(), &Node::default()).unwrap();
    assert_eq!(bare["metadata"]["labels"].as_object().unwrap().len(), 6);
    assert_eq!(bare["metadata"]["annotations"].as_object().unwrap().len(), 1);
}

#[test]
fn ready_follows_the_runtime_and_its_time_moves_only_with_it() {
    let first = status(&input(), None, at(0));
    assert_eq!(condition(&first, "Ready").reason.as_deref(), Some("KubeletReady"));

    let second = status(&input(), Some(&first), at(10));
    assert_eq!(condition(&second, "Ready").last_transition_time, condition(&first, "Ready").last_transition_time);
    assert_ne!(condition(&second, "Ready").last_heartbeat_time, condition(&first, "Ready").last_heartbeat_time);

    let mut input = input();
    let network = answer(&mut input).conditions.last_mut().unwrap();
    (network.holds, network.reason, network.message) = (false, "NoPodCIDR".to_owned(), "not assigned yet".to_owned());
    let third = status(&input, Some(&second), at(20));
    let ready = condition(&third, "Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("KubeletNotReady")));
    assert_eq!(
        ready.message.as_deref(),
        Some("container runtime network not ready: NetworkReady=false reason:NoPodCIDR message:not assigned yet")
    );
    assert_eq!(ready.last_transition_time.as_ref().unwrap().0, at(20));

    input.runtime = Runtime::Unreachable { message: "no socket".to_owned() };
    let fourth = status(&input, Some(&third), at(30));
    assert_eq!(condition(&fourth, "Ready").message.as_deref(), Some("container runtime is down: no socket"));
    assert_eq!(condition(&fourth, "Ready").last_transition_time.as_ref().unwrap().0, at(20));
    assert_eq!(fourth.node_info, third.node_info, "a runtime that is away is still the one it was");
}

#[test]
fn what_others_say_of_the_node_stays() {
    let mut known = status(&input(), None, at(0));
    let foreign = NodeCondition {
        type_: "NetworkUnavailable".to_owned(),
        status: "False".to_owned(),
        ..NodeCondition::default()
    };
    known.conditions.as_mut().unwrap().push(foreign.clone());
    known.capacity.as_mut().unwrap().insert("example.com/gpu".to_owned(), Amount::units(2).decimal());
    let next = status(&input(), Some(&known), at(10));
    assert_eq!(condition(&next, "NetworkUnavailable"), &foreign);
    assert_eq!(next.capacity.as_ref().unwrap()["example.com/gpu"].0, "2");
    let patch = status_patch(&known, &next);
    let sent: Vec<_> = patch["status"]["conditions"].as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
    assert_eq!(sent, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
    // What others say the machine has is pods' to take, too.
    let wanted = json!({ "example.com/gpu": "2" });
    assert_eq!((&patch["status"]["allocatable"], patch["status"].as_object().unwrap().len()), (&wanted, 2), "{patch}");
}

#[test]
fn the_largest_images_are_named() {
    let mut input = input();
    let image = |name: &str, size_bytes| Image { names: vec![name.to_owned(); 7], size_bytes };
    answer(&mut input).images = vec![image("small", 1), image("large", 3), image("middle", 2)];
    answer(&mut input).images.push(Image { names: Vec::new(), size_bytes: 9 });
    let images = status(&input, None, at(0)).images.unwrap();
    let names: Vec<_> = images.iter().map(|image| image.names.clone().unwrap()).collect();
    assert_eq!(names, [vec!["large".to_owned(); 5], vec!["middle".to_owned(); 5]]);
}

#[test]
fn a_status_is_sent_when_it_changed_or_is_old() {
    let every = SignedDuration::from_mins(5);
    let first = status(&input(), None, at(0));
    let same = status(&input(), Some(&first), at(10));
    assert!(needs_report(&first, &same, None, at(10), every), "never sent");
    assert!(!needs_report(&first, &same, Some(at(0)), at(10), every));
    assert!(needs_report(&first, &same, Some(at(0)), at(5 * MINUTES), every));
    let mut input = input();
    input.addresses.pop();
    let moved = status(&input, Some(&first), at(10));
    assert!(needs_report(&first, &moved, Some(at(0)), at(10), every));
    let patch = status_patch(&same, &moved);
    assert_eq!(patch["status"]["addresses"][0], json!({ "$patch": "replace" }));
    assert_eq!(patch["status"]["addresses"].as_array().unwrap().len(), 3);
}

#[test]
fn events_tell_what_changed() {
    let reasons = |previous: Option<&NodeStatus>, next: &NodeStatus| -> Vec<_> {
        changes("wasm-1", previous, next).into_iter().map(|change| change.reason).collect()
    };
    let first = status(&input(), None, at(0));
    assert_eq!(
        reasons(None, &first),
        ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"]
    );
    assert_eq!(reasons(Some(&first), &first), [""; 0]);
    let mut broken = input();
    broken.runtime = Runtime::Unreachable { message: String::new() };
    assert_eq!(reasons(Some(&first), &status(&broken, Some(&first), at(1))), ["NodeNotReady"]);
}

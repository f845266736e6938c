//! Whether a node takes a pod, and who ends for it: case folders `admissions/<name>/{node.yaml, expect.yaml}`, and
//! properties of the choice of who ends.
//!
//! `node.yaml` says what a node has, which pods are there and which one arrives; `expect.yaml` says what its admission
//! tells. `UPDATE_CASES=1` writes `expect.yaml` anew: read the difference before committing it.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads files, and fails by stopping")]

use decide::admission::{Capacity, Preemption, admit};
use decide::parse::parse;
use decide::pod::{Pod, Rejection, Resources};
use decide::qos::{QosClass, class};
use decide::quantity::{millis, whole};
use k8s_openapi::api::core::v1 as api;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A pod in one line: its name, and what decides whether it ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    name: String,
    priority: Option<i32>,
    #[serde(default)]
    is_static: bool,
    /// Whether its status says that it has ended.
    #[serde(default)]
    ended: bool,
    #[serde(default)]
    requests: BTreeMap<String, String>,
    #[serde(default)]
    limits: BTreeMap<String, String>,
    /// More of its spec.
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// `node.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scene {
    has: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    taints: Vec<api::Taint>,
    pods: Vec<Line>,
    arrives: Line,
}

/// `expect.yaml`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Told {
    Admitted,
    Preempts { victims: Vec<String>, signal: String },
    Rejected { reason: String, message: String },
}

impl From<Result<Option<Preemption>, Rejection>> for Told {
    fn from(verdict: Result<Option<Preemption>, Rejection>) -> Self {
        match verdict {
            Ok(None) => Told::Admitted,
            Ok(Some(Preemption { victims, signal })) => {
                let victims = victims.iter().map(|uid| uid.as_str().to_owned()).collect();
                Told::Preempts { victims, signal: signal.into_owned() }
            }
            Err(Rejection { reason, message }) => Told::Rejected { reason: reason.into_owned(), message },
        }
    }
}

fn pod(line: &Line, number: usize) -> Pod {
    let mut spec = json!({ "containers": [{
        "name": "c", "image": "i", "resources": { "requests": line.requests, "limits": line.limits },
    }] });
    let more = line.spec.as_object().cloned().unwrap_or_default();
    spec.as_object_mut().unwrap().extend(more);
    let metadata = json!({
        "name": line.name, "namespace": "n", "uid": line.name, "labels": line.labels,
        "creationTimestamp": format!("2026-01-01T00:00:{number:02}Z"),
    });
    let status = json!({ "phase": if line.ended { "Failed" } else { "Running" } });
    let mut object: api::Pod =
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap();
    object.spec.as_mut().unwrap().priority = line.priority;
    let pod = parse(Arc::new(object)).map_err(|refused| refused.rejection.message).unwrap();
    Pod { is_static: line.is_static, ..pod }
}

fn capacity(scene: &Scene) -> Capacity {
    let amount = |name: &str| scene.has.get(name).map(|text| whole(text).unwrap());
    let extended = scene.has.keys().filter(|name| name.contains('/'));
    Capacity {
        pods: amount("pods").unwrap_or(100),
        allocatable: Resources {
            cpu_millis: scene.has.get("cpu").map(|text| millis(text).unwrap()),
            memory_bytes: amount("memory"),
            ephemeral_storage_bytes: amount("ephemeral-storage"),
        },
        extended: extended.map(|name| (name.clone(), amount(name).unwrap())).collect(),
        labels: scene.labels.clone(),
        taints: scene.taints.clone(),
        ..Capacity::default()
    }
}

fn play(case: &Path) -> String {
    let text = std::fs::read_to_string(case.join("node.yaml")).unwrap();
    let scene: Scene = serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", case.display())).unwrap();
    let pods: Vec<Pod> = scene.pods.iter().enumerate().map(|(number, line)| pod(line, number)).collect();
    let others: Vec<&Pod> = pods.iter().collect();
    let told = Told::from(admit(&pod(&scene.arrives, pods.len()), &others, &capacity(&scene)));
    serde_saphyr::to_string(&told).unwrap()
}

#[test]
fn every_case_is_judged_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("admissions");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 10, "the cases are gone");
    let mut wrong = Vec::new();
    for case in cases {
        let (played, file) = (play(&case), case.join("expect.yaml"));
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(&file, &played).unwrap();
        } else if std::fs::read_to_string(&file).unwrap_or_default() != played {
            wrong.push(format!("{}\n{played}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "UPDATE_CASES=1 writes what was played\n\n{}", wrong.join("\n"));
}

const CRITICAL: i32 = 2_000_000_000;
const CPU: u64 = 1000;
const MEMORY: u64 = 1000;

fn line() -> impl Strategy<Value = Line> {
    let amounts = |most: u64| prop_oneof![Just(None), (1..most).prop_map(Some)];
    let priority = prop_oneof![Just(None), Just(Some(0)), Just(Some(CRITICAL)), Just(Some(CRITICAL + 1000))];
    (priority, prop::bool::weighted(0.1), amounts(400), amounts(400), any::<bool>()).prop_map(
        |(priority, is_static, cpu, memory, limited)| {
            let cpu = cpu.map(|cpu| ("cpu".to_owned(), format!("{cpu}m")));
            let amounts: BTreeMap<String, String> =
                cpu.into_iter().chain(memory.map(|memory| ("memory".to_owned(), memory.to_string()))).collect();
            let limits = if limited { amounts.clone() } else { BTreeMap::new() };
            let (name, spec, labels) = (String::new(), Value::Null, BTreeMap::new());
            Line { name, priority, is_static, ended: false, requests: amounts, limits, spec, labels }
        },
    )
}

/// Pods as they come to a node that takes them: the critical one that asks for room, those that are there, the node.
fn scene() -> impl Strategy<Value = (Pod, Vec<Pod>, Capacity)> {
    (line(), prop::collection::vec(line(), 0..12), 1..12_u64).prop_map(|(arrives, lines, pods)| {
        let named = |(number, one): (usize, Line)| pod(&Line { name: format!("p{number}"), ..one }, number);
        let there = lines.into_iter().enumerate().map(named).collect();
        let arrives = Line { name: "new".into(), priority: Some(CRITICAL), ..arrives };
        let allocatable =
            Resources { cpu_millis: Some(CPU), memory_bytes: Some(MEMORY), ephemeral_storage_bytes: None };
        (pod(&arrives, 59), there, Capacity { pods, allocatable, ..Capacity::default() })
    })
}

fn references(pods: &[Pod]) -> Vec<&Pod> {
    pods.iter().collect()
}

/// Whether the node has room for `pod` beside those of `others` that do not end.
fn fits(pod: &Pod, others: &[&Pod], capacity: &Capacity, ends: impl Fn(&Pod) -> bool) -> bool {
    let stay: Vec<&Pod> = others.iter().copied().filter(|other| !ends(other)).collect();
    decide::admission::room(pod, &stay, capacity) == Ok(None)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn victims_make_room_and_none_ends_for_nothing((new, there, capacity) in scene()) {
        let others = references(&there);
        let may_end = |other: &Pod| !other.is_critical() || new.priority() > other.priority() && other.priority().is_some();
        match admit(&new, &others, &capacity) {
            Ok(None) => prop_assert!(fits(&new, &others, &capacity, |_| false)),
            Err(rejection) => {
                prop_assert_eq!(&*rejection.reason, "UnexpectedAdmissionError");
                prop_assert!(!fits(&new, &others, &capacity, may_end), "everybody's end would do");
            }
            Ok(Some(Preemption { victims, .. })) => {
                let ends = |other: &Pod| victims.contains(&other.uid);
                prop_assert!(!fits(&new, &others, &capacity, |_| false), "there was room");
                prop_assert!(fits(&new, &others, &capacity, ends), "there is no room yet");
                let ending: Vec<&&Pod> = others.iter().filter(|other| ends(other)).collect();
                prop_assert_eq!(ending.len(), victims.len());
                prop_assert!(ending.iter().all(|victim| may_end(victim)), "a pod ends that may not");
                let spares = |of: QosClass| {
                    let ends = |other: &Pod| may_end(other) && class(other) < of;
                    fits(&new, &others, &capacity, ends) && ending.iter().any(|victim| class(victim) >= of)
                };
                prop_assert!(!spares(QosClass::Guaranteed), "a guaranteed pod ends where others would do");
                prop_assert!(!spares(QosClass::Burstable), "a burstable pod ends where best-effort ones would do");
            }
        }
    }

    #[test]
    fn the_choice_does_not_depend_on_the_order_of_the_pods((new, there, capacity) in scene(), turn in 0..12_usize) {
        let others = references(&there);
        let mut turned = others.clone();
        turned.rotate_left(turn.checked_rem(others.len()).unwrap_or(0));
        turned.reverse();
        prop_assert_eq!(admit(&new, &others, &capacity), admit(&new, &turned, &capacity));
    }

    #[test]
    fn a_pod_that_is_not_critical_ends_nobody((new, there, capacity) in scene()) {
        let mut object = (*new.api).clone();
        object.spec.as_mut().unwrap().priority = Some(CRITICAL - 1);
        let new = Pod { is_static: false, api: Arc::new(object), ..new };
        prop_assert!(!matches!(admit(&new, &references(&there), &capacity), Ok(Some(_))));
    }
}

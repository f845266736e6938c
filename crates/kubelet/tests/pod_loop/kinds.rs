//! Containers of every kind: init containers, sidecars, ephemeral ones, and those with rules of their own.

use std::time::Duration;

use cri::Status;
use cri::fake::Outcome;
use k8s_openapi::api::core::v1::ContainerStatus;
use kubelet::tables::ObservedPod;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::bed::{Bed, deleted, pod, restarts, waits_for, with};

/// A pod with these init containers, each of the image of its name.
fn with_init(name: &str, init: &[(&str, bool)]) -> Value {
    let containers: Vec<Value> = init
        .iter()
        .map(|(name, sidecar)| {
            let mut one = json!({ "name": name, "image": format!("{name}:v1"), "imagePullPolicy": "IfNotPresent" });
            if *sidecar {
                one["restartPolicy"] = "Always".into();
            }
            one
        })
        .collect();
    with(pod(name, "web:v1"), "/spec/initContainers", containers)
}

fn init<'a>(row: &'a ObservedPod, name: &str) -> &'a ContainerStatus {
    row.status.init_container_statuses.iter().flatten().find(|status| status.name == name).unwrap()
}

/// What was started and stopped, in order.
fn course(bed: &Bed) -> Vec<String> {
    let changes = bed.fake.changes().into_iter();
    changes.filter(|change| change.starts_with("StartContainer") || change.starts_with("StopContainer")).collect()
}

fn id(bed: &Bed, pod: &Value, name: &str) -> String {
    let row = bed.row(pod).unwrap();
    row.containers.iter().rfind(|one| one.name.as_str() == name).unwrap().id.as_str().to_owned()
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_and_are_retried_with_a_pause() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").on_start("one:v1", Outcome::exit(0));
    bed.fake.script().on_next_start("two:v1", Outcome::exit(1)).on_next_start("two:v1", Outcome::exit(3));
    bed.fake.script().on_start("two:v1", Outcome::exit(0)).fail_next("CreateContainer", Status::internal("no disk"));
    let web = with_init("web", &[("one", false), ("two", false)]);
    bed.want(std::slice::from_ref(&web)).await;
    let waits = |row: &ObservedPod| {
        let waiting = init(row, "two").state.as_ref().and_then(|state| state.waiting.clone());
        waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
    };
    let row = bed.until(&web, "an init container in back-off", waits).await;
    assert_eq!((row.status.phase.as_deref(), waits_for(&row).as_deref()), (Some("Pending"), Some("PodInitializing")));
    let last = init(&row, "two").last_state.as_ref().and_then(|state| state.terminated.clone()).unwrap();
    assert_eq!((last.exit_code, init(&row, "two").restart_count), (3, 1));
    let row = bed.until_running(&web).await;
    assert_eq!((init(&row, "one").restart_count, init(&row, "two").restart_count), (0, 2));
    let (one, two) = ("StartContainer one".to_owned(), "StartContainer two".to_owned());
    assert_eq!(course(&bed), [one, two.clone(), two.clone(), two, "StartContainer main".to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn an_init_container_that_fails_for_good_fails_the_pod() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").image("s:v1").on_start("one:v1", Outcome::exit(7));
    let web = with(with_init("web", &[("s", true), ("one", false)]), "/spec/restartPolicy", "Never");
    bed.want(std::slice::from_ref(&web)).await;
    let row = bed.until_phase(&web, "Failed").await;
    assert_eq!(init(&row, "one").state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 7);
    assert!(bed.alive().await.is_empty(), "the sidecar runs on");
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(course(&bed), ["StartContainer s", "StartContainer one", "StopContainer s"]);
}

#[tokio::test(start_paused = true)]
async fn sidecars_begin_in_their_place_are_restarted_and_stop_last_in_reverse() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").image("s:v1").image("t:v1").on_start("one:v1", Outcome::exit(0));
    let web = with_init("web", &[("s", true), ("one", false), ("t", true)]);
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    assert_eq!(course(&bed), ["StartContainer s", "StartContainer one", "StartContainer t", "StartContainer main"]);
    // It goes, and comes back, though a first try fails; nothing else is touched.
    bed.fake.script().fail_next("StartContainer", Status::unavailable("busy"));
    bed.fake.exit(&id(&bed, &web, "s"), 0);
    let row = bed.until(&web, "another sidecar", |row| init(row, "s").restart_count > 0 && init(row, "s").ready).await;
    assert_eq!((restarts(&row), init(&row, "t").restart_count), (0, 0));
    let before = course(&bed).len();
    bed.change(&deleted(&web, bed.now(), 30)).await;
    bed.until_call("RemovePodSandbox", 1).await;
    assert_eq!(course(&bed)[before..], ["StopContainer main", "StopContainer t", "StopContainer s"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_with_a_sidecar_ends_with_its_main_container() {
    let bed = Bed::new();
    let ends = Outcome::ExitAfter { code: 0, delay: Duration::from_secs(5) };
    bed.fake.script().image("s:v1").on_start("web:v1", ends);
    let job = with(with_init("job", &[("s", true)]), "/spec/restartPolicy", "Never");
    bed.want(std::slice::from_ref(&job)).await;
    bed.until_phase(&job, "Succeeded").await;
    assert_eq!(course(&bed), ["StartContainer s", "StartContainer main", "StopContainer s"]);
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_joins_a_pod_that_runs_and_is_never_restarted() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1");
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    let debugger = json!([{ "name": "debugger", "image": "debug:v1", "targetContainerName": "main" }]);
    let debugged = with(with(web, "/spec/ephemeralContainers", debugger), "/metadata/generation", 2);
    // Its image comes late.
    bed.change(&debugged).await;
    bed.until_call("PullImage", 3).await;
    bed.fake.script().on_start("debug:v1", Outcome::exit(2));
    let ended = |row: &ObservedPod| {
        let status = row.status.ephemeral_container_statuses.iter().flatten().next();
        let state = status.and_then(|status| status.state.as_ref()?.terminated.as_ref());
        state.is_some_and(|terminated| terminated.exit_code == 2)
    };
    bed.until(&debugged, "an ended ephemeral container", ended).await;
    sleep(Duration::from_secs(3600)).await;
    let row = bed.row(&debugged).unwrap();
    assert_eq!((row.status.phase.as_deref(), restarts(&row)), (Some("Running"), 0));
    assert_eq!(course(&bed), ["StartContainer main", "StartContainer debugger"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_is_restarted_by_its_own_policy_and_rules() {
    let bed = Bed::new();
    // 42 is worth another try, 1 is not.
    bed.fake.script().image("web:v1").on_next_start("web:v1", Outcome::exit(42)).on_start("web:v1", Outcome::exit(1));
    let rules = json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]);
    let job = with(pod("job", "web:v1"), "/spec/restartPolicy", "OnFailure");
    let job = with(job, "/spec/containers/0/restartPolicy", "Never");
    let job = with(job, "/spec/containers/0/restartPolicyRules", rules);
    bed.want(std::slice::from_ref(&job)).await;
    let row = bed.until_phase(&job, "Failed").await;
    assert_eq!((restarts(&row), bed.count("StartContainer")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_rule_has_all_containers_begin_anew_though_calls_fail_meanwhile() {
    let bed = Bed::new();
    bed.fake.script().image("s:v1").on_start("one:v1", Outcome::exit(0));
    let asks = Outcome::ExitAfter { code: 42, delay: Duration::from_secs(60) };
    bed.fake.script().image("web:v1").on_next_start("web:v1", asks);
    let rules = json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }]);
    let web = with_init("web", &[("s", true), ("one", false)]);
    let web = with(web, "/spec/restartPolicy", "Never");
    let web = with(web, "/spec/containers/0/restartPolicy", "Never");
    let web = with(web, "/spec/containers/0/restartPolicyRules", rules);
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    bed.fake.script().fail_next("StopContainer", Status::unavailable("busy"));
    bed.fake.script().fail_next("RemoveContainer", Status::unavailable("busy"));
    bed.until_call("StartContainer", 6).await;
    let again = |row: &ObservedPod| restarts(row) == 1 && crate::bed::is_ready(row);
    let row = bed.until(&web, "all of it again", again).await;
    assert_eq!((init(&row, "s").restart_count, init(&row, "one").restart_count), (1, 1));
    let starts: Vec<String> = course(&bed).into_iter().filter(|one| one.starts_with("Start")).collect();
    let once = ["StartContainer s", "StartContainer one", "StartContainer main"];
    assert_eq!(starts, [once, once].concat());
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((bed.alive().await.len(), bed.count("RunPodSandbox")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_kubelet_leaves_every_kind_as_it_was() {
    let mut bed = Bed::new();
    bed.fake.script().image("web:v1").image("s:v1").image("debug:v1").on_start("one:v1", Outcome::exit(0));
    let debugger = json!([{ "name": "debugger", "image": "debug:v1" }]);
    let web = with(with_init("web", &[("s", true), ("one", false)]), "/spec/ephemeralContainers", debugger);
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    bed.until_call("StartContainer", 4).await;
    let before = bed.alive().await;
    bed.kill();
    bed.start();
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!((bed.alive().await, bed.count("StartContainer")), (before, 4));
}

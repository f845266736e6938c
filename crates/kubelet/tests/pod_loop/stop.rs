//! The end of a pod: by deletion, by its source, by nobody having wanted it.

use std::time::Duration;

use cri::Status;
use cri::fake::Outcome;
use cri::names::PodIdentity;
use cri::v1;
use decide::plan::Stage;
use kubelet::sources::Change;
use kubelet::tables::Origin;
use serde_json::json;
use tokio::time::sleep;

use crate::bed::{Bed, deleted, main_container, pod, uid, with};

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_listen_is_ended_when_its_grace_is_over() {
    let bed = Bed::new();
    bed.fake.script().on_start("deaf:v1", Outcome::IgnoreStop);
    let deaf = pod("deaf", "deaf:v1");
    bed.want(std::slice::from_ref(&deaf)).await;
    bed.until_running(&deaf).await;
    let before = bed.seconds();
    bed.change(&deleted(&deaf, bed.now(), 30)).await;
    let row = bed.until(&deaf, "released", |row| row.stage == Stage::Released).await;
    let took = bed.seconds() - before;
    assert!((30..=31).contains(&took), "{took}");
    let terminated = main_container(&row).state.unwrap().terminated.unwrap();
    assert_eq!((row.status.phase.as_deref(), terminated.exit_code), (Some("Failed"), 137));
    assert!(bed.runtime_is_empty().await);
    // The object is still there: only its source says that the pod is no more.
    bed.want(&[]).await;
    bed.until_gone(&deaf).await;
}

#[tokio::test(start_paused = true)]
async fn a_later_deletion_can_only_shorten_the_grace() {
    let bed = Bed::new();
    bed.fake.script().on_start("deaf:v1", Outcome::IgnoreStop);
    let deaf = pod("deaf", "deaf:v1");
    bed.want(std::slice::from_ref(&deaf)).await;
    bed.until_running(&deaf).await;
    let before = bed.seconds();
    bed.change(&deleted(&deaf, bed.now(), 300)).await;
    bed.until_call("StopContainer", 1).await;
    sleep(Duration::from_secs(5)).await;
    bed.change(&deleted(&deaf, bed.now(), 7)).await;
    bed.until_call("StopContainer", 2).await;
    bed.change(&deleted(&deaf, bed.now(), 600)).await;
    bed.until(&deaf, "released", |row| row.stage == Stage::Released).await;
    let took = bed.seconds() - before;
    assert!((12..=13).contains(&took), "{took}");
    assert_eq!(bed.count("StopContainer"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_fails_is_made_again() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").fail_next("StopContainer", Status::internal("stuck"));
    bed.fake.script().fail_next("StopPodSandbox", Status::internal("stuck"));
    bed.fake.script().fail_next("RemoveContainer", Status::internal("stuck"));
    bed.fake.script().fail_next("RemovePodSandbox", Status::internal("stuck"));
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    bed.want(&[]).await;
    bed.until_gone(&web).await;
    assert!(bed.runtime_is_empty().await);
    assert!(!bed.folder.path().join("pods/uid-web").exists());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_its_source_goes_and_may_come_again() {
    let bed = Bed::new();
    bed.fake.script().on_start("deaf:v1", Outcome::IgnoreStop).image("web:v1");
    let (deaf, web) = (pod("deaf", "deaf:v1"), pod("web", "web:v1"));
    bed.want(&[deaf.clone(), web.clone()]).await;
    bed.until_running(&deaf).await;
    bed.until_running(&web).await;
    bed.want(std::slice::from_ref(&web)).await;
    bed.until(&deaf, "terminating", |row| matches!(row.stage, Stage::Terminating { .. })).await;
    // Wanted again while it still ends: it ends, and is begun anew.
    bed.want(&[deaf.clone(), web.clone()]).await;
    bed.until_call("StartContainer", 3).await;
    bed.until_running(&deaf).await;
    assert_eq!((bed.count("RunPodSandbox"), bed.alive().await.len()), (3, 2));
    bed.want(&[]).await;
    bed.until_gone(&deaf).await;
    bed.until_gone(&web).await;
    assert!(bed.runtime_is_empty().await);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_before_it_began_leaves_nothing() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").delay("PullImage", Duration::from_secs(3600));
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_call("PullImage", 1).await;
    bed.want(&[]).await;
    bed.until_gone(&web).await;
    assert!(bed.runtime_is_empty().await);
    assert!(bed.seconds() < 60, "{}", bed.seconds());
    // In one breath: neither the source nor the worker had seen it run.
    bed.send(Change::One(Origin::File, uid(&web), std::sync::Arc::new(serde_json::from_value(web.clone()).unwrap())))
        .await;
    bed.send(Change::Gone(Origin::File, uid(&web))).await;
    bed.want(&[]).await;
    bed.until_gone(&web).await;
    assert!(bed.kubelet().tables().desired.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_ended_once_all_sources_have_spoken() {
    let bed = Bed::new();
    let sandbox = |name: &str, labels: std::collections::BTreeMap<String, String>| v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        labels: labels.into_iter().collect(),
        ..v1::PodSandboxConfig::default()
    };
    let old = PodIdentity { name: "old".into(), namespace: "default".into(), uid: "uid-old".into() };
    let labels = old.sandbox_labels(&std::collections::BTreeMap::new());
    bed.runtime.run_pod_sandbox(sandbox("old", labels), "").await.unwrap();
    bed.runtime.run_pod_sandbox(sandbox("another-program's", std::collections::BTreeMap::new()), "").await.unwrap();
    let left_over = bed.folder.path().join("pods/uid-old/volumes/kubernetes.io~empty-dir/scratch");
    std::fs::create_dir_all(&left_over).unwrap();
    sleep(Duration::from_secs(300)).await;
    assert_eq!(bed.ready_sandboxes().await.len(), 2, "no source has said anything yet");

    bed.fake.script().fail_next("StopPodSandbox", Status::internal("stuck"));
    bed.want(&[]).await;
    bed.until_call("StopPodSandbox", 1).await;
    sleep(Duration::from_secs(1)).await;
    assert!(left_over.exists(), "its sandbox could not be stopped and may still use it");
    bed.until_call("RemovePodSandbox", 1).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bed.ready_sandboxes().await, ["another-program's"]);
    assert!(!bed.folder.path().join("pods/uid-old").exists());
}

#[tokio::test(start_paused = true)]
async fn a_running_pod_changed_into_what_is_not_supported_runs_on_and_can_be_deleted() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1");
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    let debugged = with(
        web,
        "/spec/ephemeralContainers",
        json!([{ "name": "debugger", "image": "busybox", "targetContainerName": "main" }]),
    );
    bed.change(&with(debugged.clone(), "/metadata/labels", json!({ "seen": "yes" }))).await;
    let labelled = |labels: &std::collections::BTreeMap<String, String>| labels.contains_key("seen");
    let row = bed.until(&debugged, "relabelled", |row| row.object.metadata.labels.as_ref().is_some_and(labelled)).await;
    assert_eq!((row.status.phase.as_deref(), bed.alive().await.len()), (Some("Running"), 1));
    bed.change(&deleted(&debugged, bed.now(), 30)).await;
    bed.until(&debugged, "released", |row| row.stage == Stage::Released).await;
    assert!(bed.runtime_is_empty().await);
}

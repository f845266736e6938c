//! Resizes in place: what is granted comes into force without a restart, what is not waits its turn.

use std::time::Duration;

use cri::Status;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, is_ready, pod, restarts, with};

const GIBIBYTE: u64 = 1 << 30;

/// A pod of one container with this much CPU, requested and at the most.
fn sized(name: &str, cpu: &str) -> Value {
    with(pod(name, "web:v1"), "/spec/containers/0/resources", amounts(cpu))
}

fn amounts(cpu: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": "64Mi" }, "limits": { "cpu": cpu, "memory": "64Mi" } })
}

/// As `kubectl patch --subresource resize`.
fn resize(api: &ApiServer, name: &str, amounts: &Value) {
    api.edit(name, |pod| {
        pod["spec"]["containers"][0]["resources"] = amounts.clone();
        pod["metadata"]["generation"] = (pod["metadata"]["generation"].as_i64().unwrap() + 1).into();
    });
}

fn condition(api: &ApiServer, name: &str, type_: &str) -> Option<Value> {
    let pod = api.pod(name)?;
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_).cloned()
}

async fn until_in_force(api: &ApiServer, name: &str, cpu: &str) {
    api.until_status(name, "/containerStatuses/0/resources/limits/cpu", cpu).await;
}

async fn until_pending(api: &ApiServer, name: &str, reason: &str) -> Value {
    let pending = |api: &ApiServer| condition(api, name, "PodResizePending").filter(|found| found["reason"] == reason);
    api.until(&format!("the resize of {name} to be {reason}"), |api| pending(api).is_some()).await;
    pending(api).unwrap()
}

fn events(api: &ApiServer, reason: &str) -> Vec<String> {
    let events = api.events().into_iter().filter(|event| event["reason"] == reason);
    events.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

/// Pods `names`, each of this much CPU, running.
async fn running(api: &ApiServer, bed: &Bed, names: &[&str], cpu: &str) {
    bed.fake.script().image("web:v1");
    for name in names {
        api.apply(&sized(name, cpu));
        until_in_force(api, name, cpu).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_resize_reaches_the_runtime_and_restarts_nothing() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    running(&api, &bed, &["web"], "100m").await;
    let before = bed.alive().await;
    let writes = api.log().len();
    resize(&api, "web", &amounts("250m"));
    until_in_force(&api, "web", "250m").await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!((bed.alive().await, restarts(&bed.row(&sized("web", "")).unwrap())), (before, 0));
    assert_eq!(bed.count("UpdateContainerResources"), 1);
    let granted = api.pod("web").unwrap()["status"]["containerStatuses"][0]["allocatedResources"]["cpu"].clone();
    assert_eq!(granted, "250m");
    assert_eq!(condition(&api, "web", "PodResizeInProgress"), None);
    let summary = r#"{"containers":[{"name":"main","resources":{"limits":{"cpu":"250m","memory":"64Mi"},"requests":{"cpu":"250m","memory":"64Mi"}}}],"generation":2}"#;
    assert_eq!(events(&api, "ResizeStarted"), [format!("Pod resize started: {summary}")]);
    assert_eq!(events(&api, "ResizeCompleted"), [format!("Pod resize completed: {summary}")]);
    // One write says that it is under way, one that it is done.
    assert!(api.log().len() - writes <= 2, "{:#?}", api.log());
}

#[tokio::test(start_paused = true)]
async fn what_the_runtime_refuses_stays_in_progress_and_is_tried_again() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    running(&api, &bed, &["web"], "100m").await;
    for _ in 0..3 {
        bed.fake.script().fail_next("UpdateContainerResources", Status::failed_precondition("below current usage"));
    }
    resize(&api, "web", &amounts("50m"));
    let failed = |api: &ApiServer| condition(api, "web", "PodResizeInProgress").filter(|one| one["reason"] == "Error");
    api.until("the error", |api| failed(api).is_some()).await;
    assert_eq!(failed(&api).unwrap()["message"], "below current usage");
    assert_eq!(failed(&api).unwrap()["observedGeneration"], 2);
    until_in_force(&api, "web", "50m").await;
    api.until("the end", |api| condition(api, "web", "PodResizeInProgress").is_none()).await;
    assert_eq!((events(&api, "ResizeError").len(), bed.count("UpdateContainerResources")), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn what_others_have_is_waited_for_and_given_to_who_matters_most() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.has(1000, GIBIBYTE);
    running(&api, &bed, &["big", "small"], "300m").await;
    let important = with(sized("important", "100m"), "/spec/priority", 1000);
    api.apply(&important);
    until_in_force(&api, "important", "100m").await;

    resize(&api, "small", &amounts("700m"));
    let pending = until_pending(&api, "small", "Deferred").await;
    let wanted = "Node didn't have enough resource: cpu, requested: 700, used: 400, capacity: 1000";
    // 300 of its own do not count against it.
    assert_eq!(pending["message"], wanted);
    assert_eq!(pending["observedGeneration"], 2);
    resize(&api, "important", &amounts("500m"));
    until_pending(&api, "important", "Deferred").await;
    assert_eq!(events(&api, "ResizeDeferred").len(), 2);

    // 300 go; both wait for them, and only one can have them.
    let now = bed.now();
    api.edit("big", |pod| *pod = crate::bed::deleted(pod, now, 1));
    until_in_force(&api, "important", "500m").await;
    sleep(Duration::from_secs(600)).await;
    let pending = until_pending(&api, "small", "Deferred").await;
    assert_eq!(pending["message"], "Node didn't have enough resource: cpu, requested: 700, used: 500, capacity: 1000");
    assert_eq!(condition(&api, "important", "PodResizePending"), None);

    // Whoever asks for less gives at once, and makes room.
    resize(&api, "important", &amounts("200m"));
    until_in_force(&api, "important", "200m").await;
    until_in_force(&api, "small", "700m").await;
    assert_eq!(bed.count("StartContainer"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_grew_grants_what_waited() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.has(1000, GIBIBYTE);
    running(&api, &bed, &["web"], "300m").await;
    resize(&api, "web", &amounts("2"));
    let pending = until_pending(&api, "web", "Infeasible").await;
    assert_eq!(pending["message"], "Node didn't have enough capacity: cpu, requested: 2000, capacity: 1000");
    bed.has(4000, GIBIBYTE);
    until_in_force(&api, "web", "2").await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_begins_again_keeps_what_was_granted_and_what_was_not() {
    let api = ApiServer::new();
    let mut bed = Bed::of(&api);
    bed.has(1000, GIBIBYTE);
    running(&api, &bed, &["web", "other"], "400m").await;
    resize(&api, "other", &amounts("500m"));
    until_in_force(&api, "other", "500m").await;
    resize(&api, "web", &amounts("800m"));
    until_pending(&api, "web", "Deferred").await;
    sleep(Duration::from_secs(60)).await;
    bed.kill();
    let (log, changes, told) = (api.log(), bed.fake.changes(), api.events().len());
    bed.join(&api);
    bed.until(&sized("web", ""), "adopted", is_ready).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((api.log(), bed.fake.changes(), api.events().len()), (log, changes, told), "nothing was news");
    // Admission goes on counting what was granted.
    api.apply(&sized("late", "200m"));
    api.until_status("late", "/reason", "OutOfcpu").await;
    resize(&api, "web", &amounts("450m"));
    until_in_force(&api, "web", "450m").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_must_be_restarted_for_it_is() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
    let web = with(sized("web", "100m"), "/spec/containers/0/resizePolicy", policy);
    api.apply(&web);
    until_in_force(&api, "web", "100m").await;
    resize(&api, "web", &amounts("200m"));
    until_in_force(&api, "web", "200m").await;
    bed.until(&web, "restarted", |row| is_ready(row) && restarts(row) == 1).await;
    assert_eq!((bed.count("UpdateContainerResources"), bed.count("StartContainer")), (0, 2));
    assert_eq!(events(&api, "Killing"), ["Container main resize requires restart"]);
    api.until("completed", |api| !events(api, "ResizeCompleted").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_file_keeps_its_amounts() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1");
    bed.want(&[sized("web", "100m")]).await;
    bed.until_running(&sized("web", "100m")).await;
    bed.change(&sized("web", "200m")).await;
    let pending = |row: &kubelet::tables::ObservedPod| {
        let mut conditions = row.status.conditions.iter().flatten();
        conditions.any(|one| one.type_ == "PodResizePending" && one.reason.as_deref() == Some("Infeasible"))
    };
    bed.until(&sized("web", "200m"), "refused", pending).await;
    assert_eq!(bed.count("UpdateContainerResources"), 0);
}

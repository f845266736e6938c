//! Pods of an API server: their statuses come there, their deletion is finished there, and it may be away.

use std::time::Duration;

use cri::fake::Outcome;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, deleted, is_ready, pod, restarts, with};

/// The pod with the condition that the scheduler wrote.
fn scheduled(pod: Value) -> Value {
    let condition = json!({ "type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    with(pod, "/status", json!({ "phase": "Pending", "conditions": [condition], "qosClass": "BestEffort" }))
}

fn condition(api: &ApiServer, name: &str, type_: &str) -> Option<Value> {
    let pod = api.pod(name)?;
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_).cloned()
}

async fn until_ready(api: &ApiServer, name: &str) {
    api.until("Ready", |api| condition(api, name, "Ready").is_some_and(|ready| ready["status"] == "True")).await;
}

fn deletes(api: &ApiServer) -> usize {
    api.log().iter().filter(|line| line.starts_with("delete")).count()
}

#[tokio::test(start_paused = true)]
async fn a_pod_becomes_ready_and_its_deletion_is_finished_once() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    let web = scheduled(pod("web", "web:v1"));
    api.apply(&web);
    until_ready(&api, "web").await;
    let status = api.pod("web").unwrap()["status"].clone();
    assert_eq!((&status["phase"], &status["podIP"]), (&json!("Running"), &json!("10.88.0.1")));
    assert_eq!(status["conditions"].as_array().unwrap().len(), 5, "{status:#}");

    // What is true is written once, and then no more.
    sleep(Duration::from_secs(60)).await;
    let log = api.log();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(api.log(), log);

    let logs = bed.folder.path().join("logs/default_web_uid-web");
    assert!(logs.join("main/0.log").exists());
    let now = bed.now();
    api.edit("web", |pod| *pod = deleted(pod, now, 30));
    api.until("deleted", |api| api.pod("web").is_none()).await;
    bed.until_gone(&web).await;
    sleep(Duration::from_secs(3600)).await;
    let log = api.log();
    let last: Vec<&str> = log.iter().rev().take(2).map(String::as_str).collect();
    assert_eq!(last, ["delete web", "status web Failed"], "its last status comes first: {log:#?}");
    assert_eq!(deletes(&api), 1, "{log:#?}");
    assert!(bed.runtime_is_empty().await);
    assert!(!logs.exists(), "its logs go with it");
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_pod_costs_as_few_calls_as_it_has_things_to_say() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    // Every step takes its time, so that nothing is told together that need not be.
    let steps = ["RunPodSandbox", "PullImage", "CreateContainer", "StartContainer", "StopContainer", "StopPodSandbox"];
    for call in steps.into_iter().chain(["RemoveContainer", "RemovePodSandbox"]) {
        bed.fake.script().delay(call, Duration::from_secs(3));
    }
    api.apply(&scheduled(pod("web", "web:v1")));
    until_ready(&api, "web").await;
    sleep(Duration::from_secs(3600)).await;
    let now = bed.now();
    api.edit("web", |pod| *pod = deleted(pod, now, 30));
    api.until("deleted", |api| api.pod("web").is_none()).await;
    sleep(Duration::from_secs(3600)).await;
    // This node has it; it has an address; it is ready; it has ended (its object may not go before that is known).
    let wanted = ["status web Pending", "status web Pending", "status web Running", "status web Failed", "delete web"];
    assert_eq!(api.log(), wanted);
    // Each write begins with a look at what others wrote; the deletion looks for itself whether there is something left
    // to write.
    assert_eq!(api.reads(), 5);
    let told: Vec<Value> = api.events().into_iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(told, ["Pulling", "Pulled", "Created", "Started", "Killing"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_deleted_by_force_is_ended_all_the_same() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    let web = scheduled(pod("web", "web:v1"));
    api.apply(&web);
    until_ready(&api, "web").await;
    api.force_delete("web");
    // The next of the name comes at once, as StatefulSets do it.
    let next = with(scheduled(pod("web", "web:v1")), "/metadata/uid", "uid-next");
    api.apply(&next);
    until_ready(&api, "web").await;
    bed.until_gone(&web).await;
    bed.until_running(&next).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!((bed.alive().await.len(), deletes(&api)), (1, 0));
    assert_eq!(api.pod("web").unwrap()["metadata"]["uid"], "uid-next");
}

#[tokio::test(start_paused = true)]
async fn pods_run_on_while_the_api_server_is_away() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    let web = scheduled(pod("web", "web:v1"));
    api.apply(&web);
    until_ready(&api, "web").await;
    sleep(Duration::from_secs(60)).await;
    let changes = bed.fake.changes();
    api.away(true);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(bed.fake.changes(), changes);

    let row = bed.row(&web).unwrap();
    bed.fake.exit(row.containers[0].id.as_str(), 1);
    bed.until(&web, "restarted", |row| is_ready(row) && restarts(row) == 1).await;
    sleep(Duration::from_secs(3600)).await;
    let refused = api.log().iter().filter(|line| line.contains("/pods/web")).count();
    assert!((100..1000).contains(&refused), "{refused} tries in an hour");
    api.away(false);
    let before = bed.seconds();
    api.until_status("web", "/containerStatuses/0/restartCount", 1).await;
    assert!(bed.seconds() - before <= 15, "{}", bed.seconds() - before);
    assert_eq!(deletes(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_while_the_api_server_is_away_is_found_when_it_is_back() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    let web = scheduled(pod("web", "web:v1"));
    api.apply(&web);
    api.apply(&scheduled(pod("stays", "web:v1")));
    until_ready(&api, "web").await;
    api.away(true);
    sleep(Duration::from_secs(60)).await;
    api.force_delete("web");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.alive().await.len(), 2);
    api.away(false);
    bed.until_gone(&web).await;
    assert_eq!(bed.ready_sandboxes().await, ["stays"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_status_is_refused_holds_up_no_other() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    api.refuse_status_of(Some("stubborn"));
    let stubborn = scheduled(pod("stubborn", "web:v1"));
    api.apply(&stubborn);
    bed.until_running(&stubborn).await;
    sleep(Duration::from_secs(120)).await;
    let before = bed.seconds();
    for number in 0..100 {
        api.apply(&scheduled(pod(&format!("web-{number}"), "web:v1")));
    }
    for number in 0..100 {
        until_ready(&api, &format!("web-{number}")).await;
    }
    assert!(bed.seconds() - before <= 5, "{}", bed.seconds() - before);
    assert_eq!(api.pod("stubborn").unwrap()["status"]["phase"], "Pending");
    // Its deletion waits for its last status.
    let now = bed.now();
    api.edit("stubborn", |pod| *pod = deleted(pod, now, 0));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(deletes(&api), 0);
    api.refuse_status_of(None);
    api.until("deleted", |api| api.pod("stubborn").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_write_into_a_status_stays_and_what_is_ours_comes_back() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    let web =
        with(scheduled(pod("web", "web:v1")), "/spec/readinessGates", json!([{ "conditionType": "example/gate" }]));
    api.apply(&web);
    api.until("the gate is missed", |api| {
        condition(api, "web", "Ready").is_some_and(|ready| ready["reason"] == "ReadinessGatesNotReady")
    })
    .await;
    let gate = |status: &str| json!({ "type": "example/gate", "status": status });
    let set = |api: &ApiServer, wanted: Value| {
        api.edit("web", |pod| {
            let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
            conditions.retain(|condition| condition["type"] != wanted["type"]);
            conditions.push(wanted);
        });
    };
    set(&api, gate("True"));
    until_ready(&api, "web").await;

    // The node controller takes a node for dead and says so in its pods.
    set(&api, json!({ "type": "Ready", "status": "False", "reason": "NodeNotReady" }));
    until_ready(&api, "web").await;
    assert_eq!(condition(&api, "web", "Ready").unwrap().get("reason"), None);
    assert_eq!(condition(&api, "web", "example/gate"), Some(gate("True")));

    // Written before we could hear of it: ours must not bring back what we saw last of theirs.
    api.watches_late(true);
    set(&api, gate("False"));
    bed.fake.exit(bed.row(&web).unwrap().containers[0].id.as_str(), 1);
    bed.until(&web, "restarted", |row| restarts(row) == 1).await;
    api.until_status("web", "/containerStatuses/0/restartCount", 1).await;
    assert_eq!(condition(&api, "web", "example/gate"), Some(gate("False")));
    api.watches_late(false);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(condition(&api, "web", "example/gate"), Some(gate("False")));
    assert_eq!(condition(&api, "web", "Ready").unwrap()["reason"], "ReadinessGatesNotReady");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_run_here_fails_aloud_and_can_be_deleted() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    let wrong = with(
        scheduled(pod("wrong", "web:v1")),
        "/spec/volumes",
        json!([{ "name": "disk", "persistentVolumeClaim": { "claimName": "disk" } }]),
    );
    api.apply(&wrong);
    api.until_status("wrong", "/phase", "Failed").await;
    sleep(Duration::from_secs(600)).await;
    let reason = api.pod("wrong").unwrap()["status"]["reason"].clone();
    let told: Vec<Value> = api.events().into_iter().filter(|event| event["reason"] == reason).collect();
    assert_eq!((told.len(), &told[0]["count"]), (1, &json!(1)), "{told:#?}");
    assert_eq!(condition(&api, "wrong", "PodScheduled").unwrap()["status"], "True");
    let now = bed.now();
    api.edit("wrong", |pod| *pod = deleted(pod, now, 30));
    api.until("deleted", |api| api.pod("wrong").is_none()).await;
    bed.until_gone(&wrong).await;
    assert_eq!((deletes(&api), bed.count("RunPodSandbox")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_begins_again_knows_what_its_pods_have_been_through() {
    let api = ApiServer::new();
    let mut bed = Bed::of(&api);
    bed.fake.script().on_start("job:v1", Outcome::exit(0)).image("web:v1").on_next_start("web:v1", Outcome::exit(1));
    let (web, job) = (pod("web", "web:v1"), with(pod("job", "job:v1"), "/spec/restartPolicy", "Never"));
    api.apply(&scheduled(web.clone()));
    api.apply(&scheduled(job));
    api.until_status("web", "/containerStatuses/0/restartCount", 1).await;
    api.until_status("job", "/phase", "Succeeded").await;
    sleep(Duration::from_secs(60)).await;
    bed.kill();
    let (log, changes) = (api.log(), bed.fake.changes());
    bed.join(&api);
    bed.until(&web, "adopted", |row| is_ready(row) && restarts(row) == 1).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(api.log(), log, "nothing new was to be said");
    assert_eq!(bed.fake.changes(), changes);
}

#[tokio::test(start_paused = true)]
async fn mirrors_of_static_pods_are_no_pods_to_run() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    let mirror =
        with(pod("mirror", "web:v1"), "/metadata/annotations", json!({ "kubernetes.io/config.mirror": "hash" }));
    api.apply(&mirror);
    api.apply(&scheduled(pod("web", "web:v1")));
    until_ready(&api, "web").await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(bed.count("RunPodSandbox"), 1);
    assert!(bed.row(&mirror).is_none());
}

//! Critical pods on a full node: others end for them, in order, and nobody else gets the room.

use std::time::Duration;

use cri::fake::Outcome;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, deleted, is_ready, main_container, pod, with};

const GIBIBYTE: u64 = 1 << 30;
const CRITICAL: i32 = 2_000_000_000;

fn sized(name: &str, image: &str, cpu: &str, age: u32) -> Value {
    let pod = with(pod(name, image), "/spec/containers/0/resources", json!({ "requests": { "cpu": cpu } }));
    with(pod, "/metadata/creationTimestamp", format!("2026-01-01T00:00:{age:02}Z"))
}

fn critical(name: &str, cpu: &str, age: u32) -> Value {
    with(sized(name, "web:v1", cpu, age), "/spec/priority", CRITICAL)
}

fn events(api: &ApiServer, reason: &str) -> Vec<(String, String)> {
    let events = api.events().into_iter().filter(|event| event["reason"] == reason);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events.map(|event| (text(&event["involvedObject"]["name"]), text(&event["message"]))).collect()
}

async fn until_status(api: &ApiServer, name: &str, field: &str, value: &str) {
    api.until_status(name, field, value).await;
}

/// A node with one core, and a pod that has it and takes `stops_in` seconds to stop.
async fn full(api: &ApiServer, image: Outcome) -> Bed {
    let bed = Bed::of(api);
    bed.has(1000, GIBIBYTE);
    bed.fake.script().image("web:v1").on_start("victim:v1", image);
    api.apply(&sized("victim", "victim:v1", "1", 0));
    bed.until_running(&pod("victim", "")).await;
    bed
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_gets_the_room_of_another() {
    let api = ApiServer::new();
    let bed = full(&api, Outcome::RunForever).await;
    api.apply(&critical("critical", "500m", 1));
    bed.until_running(&pod("critical", "")).await;

    until_status(&api, "victim", "/phase", "Failed").await;
    let status = &api.pod("victim").unwrap()["status"];
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("Preempting"), &json!("Preempted in order to admit critical pod"))
    );
    let conditions = status["conditions"].as_array().unwrap();
    let disruption = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&disruption["status"], &disruption["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    let told = ("victim".to_owned(), "Preempted in order to admit critical pod".to_owned());
    assert_eq!(events(&api, "Preempting"), [told]);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!((bed.alive().await.len(), bed.count("StartContainer")), (1, 2), "what was ended stays so");
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_victim_and_those_behind_it_wait_with_it() {
    let api = ApiServer::new();
    let bed = full(&api, Outcome::IgnoreStop).await;
    let before = bed.seconds();
    api.apply(&critical("critical", "500m", 1));
    // It came later, and would fit where the victim was: the room is not made for it.
    api.apply(&sized("later", "web:v1", "600m", 2));
    until_disrupted(&api, "victim").await;
    assert_eq!(api.pod("victim").unwrap()["status"]["phase"], "Running", "it still runs");
    assert!(bed.row(&pod("critical", "")).is_none() && bed.row(&pod("later", "")).is_none());
    // Whoever is being deleted needs no room.
    let now = bed.now();
    api.apply(&deleted(&sized("going", "web:v1", "100m", 3), now, 30));
    api.until("the deleted one to be gone", |api| api.pod("going").is_none()).await;
    assert!(bed.row(&pod("critical", "")).is_none());

    bed.until_running(&pod("critical", "")).await;
    let waited = bed.seconds() - before;
    assert!((30..40).contains(&waited), "the victim has 30 s of grace: {waited}");
    until_status(&api, "later", "/reason", "OutOfcpu").await;
}

async fn until_disrupted(api: &ApiServer, name: &str) {
    let disrupted = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "DisruptionTarget")
    };
    api.until("the condition", |api| api.pod(name).is_some_and(|pod| disrupted(&pod))).await;
}

#[tokio::test(start_paused = true)]
async fn a_victim_that_does_not_end_is_not_waited_for_for_ever() {
    let api = ApiServer::new();
    let bed = full(&api, Outcome::RunForever).await;
    bed.fake.script().delay("StopContainer", Duration::from_secs(100));
    let before = bed.seconds();
    api.apply(&critical("critical", "500m", 1));
    bed.until_running(&pod("critical", "")).await;
    let waited = bed.seconds() - before;
    assert!((45..60).contains(&waited), "half as long again as its grace: {waited}");
    let told =
        ("victim".to_owned(), "Container runtime did not kill the pod within specified grace period.".to_owned());
    api.until("the word", |api| !events(api, "ExceededGracePeriod").is_empty()).await;
    assert_eq!(events(&api, "ExceededGracePeriod"), [told]);
    until_status(&api, "victim", "/reason", "Preempting").await;
}

#[tokio::test(start_paused = true)]
async fn nobody_ends_for_a_pod_that_cannot_have_enough_or_is_wanted_no_more() {
    let api = ApiServer::new();
    let bed = full(&api, Outcome::IgnoreStop).await;
    api.apply(&critical("greedy", "2", 1));
    until_status(&api, "greedy", "/reason", "UnexpectedAdmissionError").await;
    assert!(events(&api, "Preempting").is_empty());
    assert!(is_ready(&bed.row(&pod("victim", "")).unwrap()));
    // A pod that was rejected takes up no room: this one is judged by what runs.
    let plain = sized("plain", "web:v1", "1", 2);
    api.apply(&plain);
    until_status(&api, "plain", "/reason", "OutOfcpu").await;

    api.apply(&critical("critical", "500m", 3));
    until_disrupted(&api, "victim").await;
    api.force_delete("critical");
    // The room is free for the next once nobody waits for it any more, though the victim must end all the same.
    api.apply(&critical("next", "100m", 4));
    bed.until_running(&pod("next", "")).await;
    assert!(bed.row(&pod("critical", "")).is_none());
    until_status(&api, "victim", "/reason", "Preempting").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_anyway_is_waited_for_and_goes() {
    let api = ApiServer::new();
    let bed = full(&api, Outcome::IgnoreStop).await;
    let victim = sized("victim", "victim:v1", "1", 0);
    api.force_delete("victim");
    api.apply(&critical("critical", "500m", 1));
    bed.until_running(&pod("critical", "")).await;
    bed.until_gone(&victim).await;
    assert!((30..40).contains(&bed.seconds()), "{}", bed.seconds());
    assert!(events(&api, "Preempting").is_empty(), "nobody ended it");
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_is_critical_and_no_annotation_makes_one() {
    let api = ApiServer::new();
    let bed = Bed::of_manifests(&api);
    bed.takes(1);
    bed.fake.script().image("web:v1");
    let plain = sized("plain", "web:v1", "1", 0);
    api.apply(&plain);
    bed.until_running(&plain).await;
    let annotations = json!({ "kubernetes.io/config.source": "file" });
    api.apply(&with(sized("forger", "web:v1", "1", 1), "/metadata/annotations", annotations));
    until_status(&api, "forger", "/reason", "OutOfpods").await;
    assert!(is_ready(&bed.row(&plain).unwrap()));

    std::fs::create_dir_all(bed.manifest("")).unwrap();
    let manifest = with(pod("own", "web:v1"), "/metadata", json!({ "name": "own" }));
    std::fs::write(bed.manifest("own.yaml"), manifest.to_string()).unwrap();
    until_status(&api, "plain", "/reason", "Preempting").await;
    api.until("the mirror", |api| api.pod("own-node").is_some_and(|pod| pod["status"]["phase"] == "Running")).await;
    assert!(main_container(&bed.row(&plain).unwrap()).state.unwrap().terminated.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_that_has_ended_takes_up_no_room() {
    let api = ApiServer::new();
    let bed = Bed::of_manifests(&api);
    bed.takes(1);
    bed.fake.script().image("web:v1").on_start("job:v1", Outcome::exit(0));
    std::fs::create_dir_all(bed.manifest("")).unwrap();
    let job = with(with(pod("job", "job:v1"), "/metadata", json!({ "name": "job" })), "/spec/restartPolicy", "Never");
    std::fs::write(bed.manifest("job.yaml"), job.to_string()).unwrap();
    api.until("the job's end", |api| api.pod("job-node").is_some_and(|pod| pod["status"]["phase"] == "Succeeded"))
        .await;
    api.apply(&pod("web", "web:v1"));
    bed.until_running(&pod("web", "web:v1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_that_asks_for_more_gets_it_from_others() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.has(1000, GIBIBYTE);
    bed.fake.script().image("web:v1").on_start("victim:v1", Outcome::IgnoreStop);
    api.apply(&sized("victim", "victim:v1", "500m", 0));
    api.apply(&critical("critical", "500m", 1));
    bed.until_running(&pod("critical", "")).await;
    bed.until_running(&pod("victim", "")).await;
    api.edit("critical", |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "900m" } });
        pod["metadata"]["generation"] = 2.into();
    });
    until_disrupted(&api, "victim").await;
    // What comes later waits for what it leaves.
    api.apply(&sized("late", "web:v1", "200m", 2));
    until_status(&api, "critical", "/containerStatuses/0/allocatedResources/cpu", "900m").await;
    until_status(&api, "victim", "/reason", "Preempting").await;
    until_status(&api, "late", "/reason", "OutOfcpu").await;
    assert_eq!((bed.alive().await.len(), bed.count("StartContainer")), (1, 2), "it was not restarted for it");
}

#[tokio::test(start_paused = true)]
async fn an_eviction_that_was_begun_is_finished_after_a_restart() {
    let api = ApiServer::new();
    let mut bed = full(&api, Outcome::IgnoreStop).await;
    api.apply(&critical("critical", "500m", 1));
    until_disrupted(&api, "victim").await;
    bed.kill();
    bed.join(&api);
    until_status(&api, "victim", "/reason", "Preempting").await;
    bed.until_running(&pod("critical", "")).await;
    assert_eq!(bed.count("StartContainer"), 2, "nothing was run twice");
}

//! Events about pods, as the API server gets them.

use std::time::Duration;

use cri::fake::Outcome;
use decide::report::Report;
use kubelet::clock::Clock;
use kubelet::config::EventRate;
use kubelet::events::{Recorder, about_pod, write_events};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, pod, with};

fn told(api: &ApiServer) -> Vec<(String, String, u64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = api.events();
    events
        .iter()
        .map(|event| (text(&event["reason"]), text(&event["message"]), event["count"].as_u64().unwrap()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_told_of_in_the_kubelets_words() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image_on_node("web:v1");
    let web = pod("web", "web:v1");
    api.apply(&web);
    bed.until_running(&web).await;
    api.until("told", |api| told(api).iter().any(|(reason, ..)| reason == "Started")).await;
    let words: Vec<(String, String)> = told(&api).into_iter().map(|(reason, message, _)| (reason, message)).collect();
    let wanted = [
        ("Pulled", "Container image \"web:v1\" already present on machine and can be accessed by the pod"),
        ("Created", "Container created"),
        ("Started", "Container started"),
    ];
    assert_eq!(words, wanted.map(|(reason, message)| (reason.to_owned(), message.to_owned())));
    let event = &api.events()[2];
    let about = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": "default", "uid": "uid-web",
        "fieldPath": "spec.containers{main}" });
    for (field, value) in about.as_object().unwrap() {
        assert_eq!(&event["involvedObject"][field], value);
    }
    assert_eq!((&event["source"]["component"], &event["type"]), (&json!("kubelet"), &json!("Normal")));
}

#[tokio::test(start_paused = true)]
async fn the_same_again_is_counted() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().on_start("crash:v1", Outcome::exit(1));
    let crash = pod("crash", "crash:v1");
    api.apply(&crash);
    bed.until_call("StartContainer", 6).await;
    sleep(Duration::from_secs(1)).await;
    let all = told(&api);
    let started: Vec<u64> = all.iter().filter(|(reason, ..)| reason == "Started").map(|(_, _, count)| *count).collect();
    assert_eq!(started, [6], "{all:#?}");
    let back_off = all.iter().find(|(reason, ..)| reason == "BackOff").unwrap();
    assert!(back_off.1.starts_with("Back-off restarting failed container main in pod crash_default("), "{back_off:?}");
}

/// Says all of it, and waits until it is written.
async fn write(api: &ApiServer, told: impl IntoIterator<Item = (Value, Report)>) {
    let (recorder, records) = Recorder::new();
    for (pod, report) in told {
        recorder.record(about_pod(&serde_json::from_value(pod).unwrap(), report));
    }
    drop(recorder);
    write_events(api.client(), "node".into(), EventRate::UNLIMITED, Clock::tokio(), records).await;
}

#[tokio::test(start_paused = true)]
async fn many_of_a_kind_are_combined_and_too_many_are_not_told() {
    let api = ApiServer::new();
    let unhealthy = |number| (pod("web", "web:v1"), Report::warning("Unhealthy", format!("try {number}")));
    write(&api, (1..=40).map(unhealthy)).await;
    let all = told(&api);
    assert_eq!(all.len(), 10, "{all:#?}");
    assert_eq!(all[8], ("Unhealthy".into(), "try 9".into(), 1));
    assert_eq!(all[9], ("Unhealthy".into(), "(combined from similar events): try 25".into(), 16));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_api_server_forgot_is_told_again_with_its_count() {
    let api = ApiServer::new();
    let (recorder, records) = Recorder::new();
    let writer = tokio::spawn(write_events(api.client(), "node".into(), EventRate::UNLIMITED, Clock::tokio(), records));
    let web = serde_json::from_value(pod("web", "web:v1")).unwrap();
    let say = || recorder.record(about_pod(&web, Report::warning("BackOff", "again")));
    say();
    api.until("told", |api| told(api).len() == 1).await;
    api.forget_events();
    say();
    api.until("told anew", |api| told(api).len() == 1).await;
    assert_eq!(told(&api)[0].2, 2);
    drop(recorder);
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_wait_a_while_for_the_api_server_and_never_hold_anybody_up() {
    let api = ApiServer::new();
    let (recorder, records) = Recorder::new();
    let rate = EventRate { per_second: 50, burst: 100 };
    let writer = tokio::spawn(write_events(api.client(), "node".into(), rate, Clock::tokio(), records));
    // Of one pod alone not so much would be told.
    let about = |name: String| {
        let named = with(pod(&name, "web:v1"), "/metadata/uid", name.clone());
        serde_json::from_value(named).unwrap()
    };
    api.away(true);
    recorder.record(about_pod(&about("first".into()), Report::normal("First", "it was away")));
    sleep(Duration::from_secs(3)).await;
    for number in 0..5000 {
        recorder.record(about_pod(&about(format!("pod-{number}")), Report::normal("Many", "of them")));
    }
    api.away(false);
    drop(recorder);
    writer.await.unwrap();
    let all = told(&api);
    assert_eq!(all[0], ("First".into(), "it was away".into(), 1));
    assert_eq!(all.len(), 1001, "what did not fit into the queue is dropped");
}

#[tokio::test(start_paused = true)]
async fn an_event_about_the_longest_name_has_a_name_of_its_own() {
    let api = ApiServer::new();
    write(&api, [(with(pod("web", "web:v1"), "/metadata/name", "p".repeat(253)), Report::normal("Long", "name"))])
        .await;
    let name = api.events()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.len() <= 253, "{} characters", name.len());
}

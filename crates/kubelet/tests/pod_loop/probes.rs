//! Probes in the pod loop: what commands in containers tell, and what follows.

use std::time::Duration;

use cri::fake::Exec;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, condition, is_ready, main_container, pod, restarts, with};

/// A pod whose container is asked by the command `kind`, every ten seconds.
fn probed(name: &str, kinds: &[&str]) -> Value {
    kinds.iter().fold(pod(name, "web:v1"), |pod, kind| {
        let probe = json!({ "exec": { "command": [kind] }, "periodSeconds": 10, "failureThreshold": 3 });
        with(pod, &format!("/spec/containers/0/{kind}Probe"), probe)
    })
}

fn asked(bed: &Bed, kind: &str) -> usize {
    bed.fake.calls().iter().filter(|made| made.call == "ExecSync" && made.object == format!("main {kind}")).count()
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_ready_while_it_says_so() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").on_exec("web:v1", &["readiness"], Exec::exit(1));
    let web = probed("web", &["readiness"]);
    bed.want(std::slice::from_ref(&web)).await;
    bed.until(&web, "running", |row| main_container(row).state.is_some_and(|state| state.running.is_some())).await;
    sleep(Duration::from_secs(60)).await;
    let row = bed.row(&web).unwrap();
    assert!(!is_ready(&row) && main_container(&row).started == Some(true), "{:?}", row.status);
    bed.fake.script().on_exec("web:v1", &["readiness"], Exec::exit(0));
    bed.until_running(&web).await;
    bed.fake.script().on_exec("web:v1", &["readiness"], Exec::Hang);
    bed.until(&web, "not ready", |row| !condition(row, "Ready")).await;
    bed.fake.script().on_exec("web:v1", &["readiness"], Exec::exit(0));
    let row = bed.until_running(&web).await;
    assert_eq!((restarts(&row), bed.count("StopContainer")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_live_is_restarted_with_a_back_off() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").on_exec("web:v1", &["liveness"], Exec::exit(1));
    let web = probed("web", &["liveness"]);
    bed.want(std::slice::from_ref(&web)).await;
    let mut starts = Vec::new();
    for count in 1..=4 {
        starts.push(bed.until_call("StartContainer", count).await);
    }
    let pauses: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Three failures take from 25 to 30 s; then nothing, 10 s and 20 s of back-off.
    for (pause, back_off) in pauses.iter().zip([0, 10, 20]) {
        assert!((25..=31).contains(&(pause - back_off)), "{pauses:?}");
    }
    bed.fake.script().on_exec("web:v1", &["liveness"], Exec::exit(0));
    bed.until_running(&web).await;
    let before = (bed.count("StartContainer"), asked(&bed, "liveness"));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bed.count("StartContainer"), before.0);
    assert!((59..=61).contains(&(asked(&bed, "liveness") - before.1)), "{}", asked(&bed, "liveness") - before.1);
}

#[tokio::test(start_paused = true)]
async fn nothing_else_is_asked_before_a_container_has_started() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").on_exec("web:v1", &["startup"], Exec::exit(1));
    for kind in ["liveness", "readiness"] {
        bed.fake.script().on_exec("web:v1", &[kind], Exec::exit(0));
    }
    let web = probed("web", &["startup", "liveness", "readiness"]);
    bed.want(std::slice::from_ref(&web)).await;
    sleep(Duration::from_secs(20)).await;
    assert!(asked(&bed, "startup") > 1, "{}", asked(&bed, "startup"));
    assert_eq!((asked(&bed, "liveness"), asked(&bed, "readiness")), (0, 0));
    bed.fake.script().on_exec("web:v1", &["startup"], Exec::exit(0));
    bed.until_running(&web).await;
    let before = asked(&bed, "startup");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(asked(&bed, "startup"), before, "what has started is not asked whether it has");
    assert!(asked(&bed, "liveness") >= 5 && asked(&bed, "readiness") >= 5);
}

#[tokio::test(start_paused = true)]
async fn what_was_ready_is_so_after_a_restart_of_the_kubelet_and_no_call_is_made_for_it() {
    let api = ApiServer::new();
    let mut bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    for kind in ["startup", "readiness"] {
        bed.fake.script().on_exec("web:v1", &[kind], Exec::exit(0));
    }
    let web = probed("web", &["startup", "readiness"]);
    api.apply(&web);
    api.until_status("web", "/containerStatuses/0/ready", true).await;
    let patches = |api: &ApiServer| api.log().iter().filter(|line| line.starts_with("status web")).count();
    sleep(Duration::from_secs(120)).await;
    let before = patches(&api);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(patches(&api), before, "probes that tell nothing new are no reason to write a status");
    bed.kill();
    let asked_before = asked(&bed, "startup");
    bed.join(&api);
    bed.until_running(&web).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!((patches(&api), asked(&bed, "startup")), (before, asked_before));
}

#[tokio::test(start_paused = true)]
async fn while_it_ends_a_container_is_asked_whether_it_can_serve_and_nothing_else() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").on_start("web:v1", cri::fake::Outcome::IgnoreStop);
    for kind in ["liveness", "readiness"] {
        bed.fake.script().on_exec("web:v1", &[kind], Exec::exit(0));
    }
    let web = probed("web", &["liveness", "readiness"]);
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    for kind in ["liveness", "readiness"] {
        bed.fake.script().on_exec("web:v1", &[kind], Exec::exit(1));
    }
    bed.change(&crate::bed::deleted(&web, bed.now(), 60)).await;
    bed.until_call("StopContainer", 1).await;
    let before = asked(&bed, "liveness");
    bed.until(&web, "not ready", |row| !condition(row, "Ready")).await;
    assert!(!bed.alive().await.is_empty(), "it was not ready before it ended");
    bed.want(&[]).await;
    bed.until_gone(&web).await;
    assert_eq!(asked(&bed, "liveness"), before);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_for_an_hour_is_told_of_and_does_not_flood_the_api_server() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1");
    let no = Exec::Exit { code: 1, stdout: "no\n".into(), stderr: String::new() };
    bed.fake.script().on_exec("web:v1", &["readiness"], no);
    let web = with(probed("web", &["readiness"]), "/spec/containers/0/readinessProbe/periodSeconds", 1);
    api.apply(&web);
    sleep(Duration::from_secs(3600)).await;
    let unhealthy: Vec<Value> = api.events().into_iter().filter(|event| event["reason"] == "Unhealthy").collect();
    assert_eq!(unhealthy.len(), 1, "{unhealthy:#?}");
    assert_eq!(unhealthy[0]["message"], "Readiness probe failed: no\n");
    assert_eq!(
        (&unhealthy[0]["type"], &unhealthy[0]["involvedObject"]["fieldPath"]),
        (&json!("Warning"), &json!("spec.containers{main}"))
    );
    // 25 events of one pod at once, and one more each five minutes; what is held back counts in the next.
    let (count, writes) = (unhealthy[0]["count"].as_u64().unwrap(), api.event_writes());
    assert!((30..=37).contains(&writes), "written {writes} times");
    assert!(count > 3000, "told {count} times");
}

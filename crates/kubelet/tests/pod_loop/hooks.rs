//! Hooks: what `postStart` holds up, and what `preStop` takes of the grace.

use std::time::Duration;

use cri::fake::{Exec, Outcome};
use decide::plan::Stage;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, deleted, is_ready, main_container, pod, restarts, waits_for, with};

/// The command that hooks run.
const COMMAND: [&str; 1] = ["hook"];

fn hooked(name: &str, image: &str, hook: &str, handler: &Value) -> Value {
    let lifecycle = json!({ hook: handler });
    with(pod(name, image), "/spec/containers/0/lifecycle", lifecycle)
}

fn exec() -> Value {
    json!({ "exec": { "command": COMMAND } })
}

fn nap(seconds: u64) -> Value {
    json!({ "sleep": { "seconds": seconds } })
}

/// How long a running pod takes to go once it is deleted.
async fn end_of(bed: &Bed, pod: &Value, grace: u32) -> u64 {
    let before = bed.seconds();
    bed.change(&deleted(pod, bed.now(), grace)).await;
    bed.until(pod, "released", |row| row.stage == Stage::Released).await;
    bed.seconds() - before
}

#[tokio::test(start_paused = true)]
async fn a_container_is_not_said_to_run_before_its_post_start_is_done() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").on_exec("web:v1", &COMMAND, Exec::exit(0));
    bed.fake.script().delay("ExecSync", Duration::from_secs(40));
    let web = hooked("web", "web:v1", "postStart", &exec());
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_call("ExecSync", 1).await;
    sleep(Duration::from_secs(20)).await;
    let row = bed.row(&web).unwrap();
    assert_eq!((row.status.phase.as_deref(), waits_for(&row).as_deref()), (Some("Pending"), Some("ContainerCreating")));
    let row = bed.until_running(&web).await;
    assert!((40..=41).contains(&bed.seconds()), "{}", bed.seconds());
    assert_eq!((restarts(&row), bed.count("ExecSync")), (0, 1));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bed.count("ExecSync"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_post_start_that_fails_ends_the_container_and_its_policy_decides() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1").on_exec("web:v1", &COMMAND, Exec::exit(0));
    bed.fake.script().on_next_exec("web:v1", &COMMAND, Exec::says(3, "no"));
    let web = hooked("web", "web:v1", "postStart", &exec());
    api.apply(&web);
    let failed = |row: &_| waits_for(row).as_deref() == Some("PostStartHookError");
    let row = bed.until(&web, "the hook's error", failed).await;
    let message = main_container(&row).state.unwrap().waiting.unwrap().message.unwrap();
    let wanted = "Exec lifecycle hook ([hook]) for Container \"main\" in Pod \"web_default(uid-web)\" failed - error: \
        command 'hook' exited with 3: no, message: \"no\"";
    assert_eq!(message, wanted);
    let row = bed.until(&web, "restarted", |row| is_ready(row) && restarts(row) == 1).await;
    assert_eq!(main_container(&row).last_state.unwrap().terminated.unwrap().exit_code, 143);
    let told = |reason: &str| {
        let events = api.events().into_iter().filter(|event| event["reason"] == reason);
        events.map(|event| event["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    api.until("the events", |_| !told("Killing").is_empty()).await;
    assert_eq!(told("FailedPostStartHook"), ["PostStartHook failed"]);
    assert_eq!(told("Killing"), ["FailedPostStartHook"]);

    let job = with(hooked("job", "job:v1", "postStart", &exec()), "/spec/restartPolicy", "Never");
    bed.fake.script().image("job:v1").on_exec("job:v1", &COMMAND, Exec::exit(1));
    api.apply(&job);
    bed.until_phase(&job, "Failed").await;
}

#[tokio::test(start_paused = true)]
async fn pre_stop_takes_its_time_from_the_grace() {
    let bed = Bed::new();
    bed.fake.script().on_start("deaf:v1", Outcome::IgnoreStop).on_exec("deaf:v1", &COMMAND, Exec::exit(0));
    bed.fake.script().delay("ExecSync", Duration::from_secs(12));
    let deaf = hooked("deaf", "deaf:v1", "preStop", &exec());
    bed.want(std::slice::from_ref(&deaf)).await;
    bed.until_running(&deaf).await;
    let took = end_of(&bed, &deaf, 30).await;
    assert!((30..=31).contains(&took), "{took}");
    let changes = bed.fake.changes();
    let at = |call: &str| changes.iter().position(|made| made.starts_with(call)).unwrap();
    assert!(at("ExecSync main hook") < at("StopContainer main"), "{changes:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_that_never_ends_leaves_two_seconds_for_the_stop() {
    let bed = Bed::new();
    bed.fake.script().on_start("deaf:v1", Outcome::IgnoreStop).on_exec("deaf:v1", &COMMAND, Exec::Hang);
    let deaf = hooked("deaf", "deaf:v1", "preStop", &exec());
    bed.want(std::slice::from_ref(&deaf)).await;
    bed.until_running(&deaf).await;
    let took = end_of(&bed, &deaf, 30).await;
    assert!((32..=33).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_deletion_shortens_the_hook_too() {
    let bed = Bed::new();
    bed.fake.script().on_start("deaf:v1", Outcome::IgnoreStop);
    let deaf = hooked("deaf", "deaf:v1", "preStop", &nap(300));
    bed.want(std::slice::from_ref(&deaf)).await;
    bed.until_running(&deaf).await;
    let before = bed.seconds();
    bed.change(&deleted(&deaf, bed.now(), 600)).await;
    sleep(Duration::from_secs(5)).await;
    bed.change(&deleted(&deaf, bed.now(), 10)).await;
    bed.until(&deaf, "released", |row| row.stage == Stage::Released).await;
    let took = bed.seconds() - before;
    assert!((17..=18).contains(&took), "{took}");
    assert_eq!(bed.count("StopContainer"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_that_fails_is_told_and_the_stop_follows() {
    let api = ApiServer::new();
    let bed = Bed::of(&api);
    bed.fake.script().image("web:v1").on_exec("web:v1", &COMMAND, Exec::exit(1));
    let web = hooked("web", "web:v1", "preStop", &exec());
    api.apply(&web);
    bed.until_running(&web).await;
    let before = bed.seconds();
    let now = bed.now();
    api.edit("web", |pod| *pod = deleted(pod, now, 30));
    api.until("deleted", |api| api.pod("web").is_none()).await;
    assert!(bed.seconds() - before <= 1, "{}", bed.seconds() - before);
    let told = |api: &ApiServer| api.events().iter().any(|event| event["reason"] == "FailedPreStopHook");
    api.until("the event", told).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ended_by_itself_has_no_use_for_its_pre_stop() {
    let bed = Bed::new();
    let life = Outcome::ExitAfter { code: 0, delay: Duration::from_secs(20) };
    bed.fake.script().on_start("job:v1", life.clone()).on_exec("job:v1", &COMMAND, Exec::exit(0));
    let job = with(hooked("job", "job:v1", "preStop", &exec()), "/spec/restartPolicy", "Never");
    bed.want(std::slice::from_ref(&job)).await;
    bed.until_phase(&job, "Succeeded").await;
    end_of(&bed, &job, 30).await;
    assert_eq!(bed.count("ExecSync"), 0);

    // Nor does it hold up the end when the container ends while it runs.
    bed.fake.script().on_start("short:v1", life);
    let short = with(hooked("short", "short:v1", "preStop", &nap(300)), "/spec/restartPolicy", "Never");
    bed.want(std::slice::from_ref(&short)).await;
    bed.until_running(&short).await;
    let took = end_of(&bed, &short, 600).await;
    assert!(took <= 21, "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_place_runs_it_too_and_a_kubelet_that_begins_again_runs_no_post_start_twice() {
    let mut bed = Bed::new();
    for image in ["web:v1", "web:v2"] {
        bed.fake.script().image(image).on_exec(image, &COMMAND, Exec::exit(0));
    }
    let web = hooked("web", "web:v1", "preStop", &exec());
    let web = with(web, "/spec/containers/0/lifecycle/postStart", exec());
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    bed.kill();
    bed.start();
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.count("ExecSync"), 1);
    let next = with(web, "/spec/containers/0/image", "web:v2");
    bed.change(&next).await;
    bed.until(&next, "restarted", |row| is_ready(row) && restarts(row) == 1).await;
    assert_eq!(bed.count("ExecSync"), 3, "{:#?}", bed.fake.changes());
}

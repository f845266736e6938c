//! The life of a pod: it starts, ends, is restarted, heals.

use std::time::Duration;

use cri::Status;
use cri::fake::Outcome;
use decide::plan::Stage;
use kubelet::effects::messages::{identity_of, log_file};
use serde_json::json;
use tokio::time::sleep;

use crate::bed::{Bed, condition, is_ready, main_container, pod, restarts, waits_for, with};

#[tokio::test(start_paused = true)]
async fn a_pod_comes_to_run_with_a_true_status() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1").prints("web:v1", "hello");
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    let row = bed.until_running(&web).await;

    assert_eq!(
        bed.fake.changes(),
        ["RunPodSandbox web", "PullImage web:v1", "CreateContainer main", "StartContainer main"]
    );
    assert_eq!(row.stage, Stage::Running);
    for type_ in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"] {
        assert!(condition(&row, type_), "{type_}");
    }
    assert_eq!(row.status.pod_ip.as_deref(), Some("10.88.0.1"));
    assert_eq!(row.status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(row.status.observed_generation, Some(1));
    let status = main_container(&row);
    assert_eq!((status.ready, status.restart_count, status.image.as_str()), (true, 0, "web:v1"));
    // Where the table says that the log is, it is.
    let container = &row.containers[0];
    assert_eq!(status.container_id, Some(format!("wasklet://{}", container.id)));
    let logs = bed.folder.path().join("logs");
    let log = log_file(&logs, &identity_of(&row.object.metadata), container.name.as_str(), container.attempt);
    assert!(std::fs::read_to_string(log).unwrap().ends_with("stdout F hello\n"));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ends_well_has_succeeded_and_stays_so() {
    let bed = Bed::new();
    bed.fake.script().on_start("job:v1", Outcome::ExitAfter { code: 0, delay: Duration::from_secs(90) });
    let job = with(pod("job", "job:v1"), "/spec/restartPolicy", "Never");
    bed.want(std::slice::from_ref(&job)).await;
    bed.until_running(&job).await;
    let row = bed.until_phase(&job, "Succeeded").await;
    let terminated = main_container(&row).state.unwrap().terminated.unwrap();
    assert_eq!((terminated.exit_code, terminated.reason.as_deref()), (0, Some("Completed")));
    assert!((90..=91).contains(&bed.seconds()), "{}", bed.seconds());
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(bed.row(&job).unwrap().status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(bed.count("StartContainer"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_for_hours() {
    let bed = Bed::new();
    bed.fake.script().on_start("crash:v1", Outcome::exit(1));
    let crash = pod("crash", "crash:v1");
    bed.want(std::slice::from_ref(&crash)).await;
    let mut starts = Vec::new();
    for count in 1..=10 {
        starts.push(bed.until_call("StartContainer", count).await);
    }
    let pauses: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    // One ended instance is kept for its log, and no more.
    let wanted = "waiting in back-off with one ended instance";
    let waits = |row: &_| waits_for(row).as_deref() == Some("CrashLoopBackOff");
    let row = bed.until(&crash, wanted, |row| waits(row) && row.containers.len() == 1).await;
    assert_eq!((restarts(&row), row.status.phase.as_deref()), (9, Some("Running")));
    assert!(!condition(&row, "Ready"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_pulled_is_said_and_heals() {
    let bed = Bed::new();
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    let row = bed.until(&web, "ErrImagePull", |row| waits_for(row).as_deref() == Some("ErrImagePull")).await;
    assert_eq!(row.status.phase.as_deref(), Some("Pending"));
    let waiting = main_container(&row).state.unwrap().waiting.unwrap();
    assert_eq!(waiting.message.as_deref(), Some("pulling image \"web:v1\": not found"));
    bed.until(&web, "ImagePullBackOff", |row| waits_for(row).as_deref() == Some("ImagePullBackOff")).await;
    bed.until_call("PullImage", 4).await;
    bed.fake.script().image("web:v1");
    let row = bed.until_running(&web).await;
    assert_eq!(restarts(&row), 0);
}

#[tokio::test(start_paused = true)]
async fn an_image_volume_is_pulled_before_its_container_is_made() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1");
    let image = json!([{ "name": "data", "image": { "reference": "data:v1", "pullPolicy": "IfNotPresent" } }]);
    let web = with(pod("web", "web:v1"), "/spec/volumes", image);
    let web = with(web, "/spec/containers/0/volumeMounts", json!([{ "name": "data", "mountPath": "/data" }]));
    bed.want(std::slice::from_ref(&web)).await;
    bed.until(&web, "ErrImagePull", |row| waits_for(row).as_deref() == Some("ErrImagePull")).await;
    bed.fake.script().image("data:v1");
    bed.until_running(&web).await;
    let changes = bed.fake.changes();
    let since = changes.iter().rposition(|change| change == "PullImage data:v1").unwrap();
    assert_eq!(changes[since + 1..], ["PullImage web:v1", "CreateContainer main", "StartContainer main"]);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_fails_is_tried_again() {
    let bed = Bed::new();
    let down = || Status::internal("no network");
    bed.fake.script().image("web:v1").fail_next("RunPodSandbox", down()).fail_next("RunPodSandbox", down());
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    let row = bed.until_running(&web).await;
    assert_eq!((bed.count("RunPodSandbox"), restarts(&row)), (3, 0));
    assert!((30..=34).contains(&bed.seconds()), "{}", bed.seconds());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_got_lost_starts_nothing_twice() {
    let bed = Bed::new();
    let lost = || Status::unavailable("the connection broke");
    for call in ["PodSandboxStatus", "ContainerStatus"] {
        bed.fake.script().image("web:v1").fail_next(call, lost()).fail_next(call, lost()).fail_next(call, lost());
    }
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bed.alive().await.len(), 1);
    assert_eq!(bed.ready_sandboxes().await, ["web"]);
    assert_eq!(restarts(&bed.row(&web).unwrap()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_died_gets_its_pods_back() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1");
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    bed.fake.crash();
    let row = bed.until(&web, "restarted", |row| is_ready(row) && restarts(row) == 1).await;
    let last = main_container(&row).last_state.unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 255);
    assert_eq!(bed.count("RunPodSandbox"), 2);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bed.ready_sandboxes().await, ["web"]);
    assert_eq!((bed.alive().await.len(), restarts(&bed.row(&web).unwrap())), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_the_runtime_says_while_its_events_are_away_is_seen_within_seconds() {
    let bed = Bed::without_kubelet();
    for _ in 0..1000 {
        bed.fake.script().fail_next("GetContainerEvents", Status::unavailable("not now"));
    }
    let mut bed = bed;
    bed.start();
    bed.fake.script().image("web:v1");
    let web = pod("web", "web:v1");
    bed.want(std::slice::from_ref(&web)).await;
    let row = bed.until_running(&web).await;
    let before = bed.seconds();
    bed.fake.exit(row.containers[0].id.as_str(), 1);
    bed.until(&web, "restarted", |row| is_ready(row) && restarts(row) == 1).await;
    assert!(bed.seconds() - before <= 2, "{}", bed.seconds() - before);
}

#[tokio::test(start_paused = true)]
async fn an_exit_is_seen_although_a_pull_of_the_same_pod_ends_just_then() {
    let bed = Bed::new();
    bed.fake.script().image("slow:v1").image("web:v1").delay("PullImage", Duration::from_secs(5));
    // Listing takes as long as the exit is before the end of the pull, so that the pull ends while the runtime is listed.
    let two = with(
        pod("two", "web:v1"),
        "/spec/containers",
        serde_json::json!([
            { "name": "main", "image": "web:v1", "imagePullPolicy": "IfNotPresent" },
            { "name": "slow", "image": "slow:v1", "imagePullPolicy": "IfNotPresent" },
        ]),
    );
    bed.fake.script().image_on_node("web:v1");
    bed.want(std::slice::from_ref(&two)).await;
    let row = bed.until(&two, "main runs", |row| main_container(row).ready).await;
    bed.fake.script().delay("ListContainers", Duration::from_secs(8));
    bed.fake.exit(row.containers[0].id.as_str(), 1);
    let before = bed.seconds();
    bed.until(&two, "main restarted", |row| main_container(row).restart_count == 1).await;
    assert!(bed.seconds() - before <= 30, "{}", bed.seconds() - before);
}

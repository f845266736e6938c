//! A kubelet that begins again finds its pods as they are.

use std::time::Duration;

use cri::fake::Outcome;
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, is_ready, pod, restarts, with};

#[tokio::test(start_paused = true)]
async fn running_pods_are_taken_over_untouched() {
    let mut bed = Bed::new();
    bed.fake.script().image("web:v1").on_next_start("again:v1", Outcome::exit(1));
    let pods = [pod("web", "web:v1"), pod("again", "again:v1")];
    bed.want(&pods).await;
    bed.until_running(&pods[0]).await;
    bed.until(&pods[1], "restarted once", |row| is_ready(row) && restarts(row) == 1).await;
    sleep(Duration::from_secs(60)).await;
    let (changes, alive) = (bed.fake.changes(), bed.alive().await);

    bed.kill();
    sleep(Duration::from_secs(60)).await;
    bed.start();
    bed.want(&pods).await;
    bed.until_running(&pods[0]).await;
    let row = bed.until_running(&pods[1]).await;
    assert_eq!(restarts(&row), 1);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(bed.fake.changes(), changes);
    assert_eq!(bed.alive().await, alive);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ended_meanwhile_is_not_run_again() {
    let mut bed = Bed::new();
    bed.fake.script().on_start("job:v1", Outcome::ExitAfter { code: 0, delay: Duration::from_secs(90) });
    let job = with(pod("job", "job:v1"), "/spec/restartPolicy", "Never");
    bed.want(std::slice::from_ref(&job)).await;
    bed.until_running(&job).await;
    bed.kill();
    sleep(Duration::from_secs(600)).await;
    bed.start();
    bed.want(std::slice::from_ref(&job)).await;
    bed.until_phase(&job, "Succeeded").await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bed.count("StartContainer"), 1);
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_it_starts_nothing_twice() {
    for moment in 0..40 {
        let mut bed = Bed::new();
        bed.fake.script().image("web:v1");
        for call in ["RunPodSandbox", "PullImage", "CreateContainer", "StartContainer", "ContainerStatus"] {
            bed.fake.script().delay(call, Duration::from_millis(50));
        }
        let web = pod("web", "web:v1");
        bed.want(std::slice::from_ref(&web)).await;
        sleep(Duration::from_millis(moment * 11)).await;
        bed.kill();
        sleep(Duration::from_secs(5)).await;
        bed.start();
        bed.want(std::slice::from_ref(&web)).await;
        bed.until_running(&web).await;
        sleep(Duration::from_secs(120)).await;
        assert_eq!(bed.alive().await.len(), 1, "killed after {} ms", moment * 11);
        assert_eq!(bed.ready_sandboxes().await, ["web"], "killed after {} ms", moment * 11);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_replaced_meanwhile_is_ended_and_the_new_one_runs() {
    let api = ApiServer::new();
    let mut bed = Bed::of(&api);
    bed.fake.script().image("web:v1").image("web:v2");
    let old = pod("web", "web:v1");
    api.apply(&old);
    bed.until_running(&old).await;
    bed.kill();
    api.force_delete("web");
    let new = with(pod("web", "web:v2"), "/metadata/uid", "uid-another");
    api.apply(&new);
    bed.join(&api);
    bed.until_running(&new).await;
    bed.until_call("RemovePodSandbox", 1).await;
    sleep(Duration::from_secs(120)).await;
    assert!(bed.row(&old).is_none() && is_ready(&bed.row(&new).unwrap()));
    assert_eq!((bed.alive().await.len(), bed.count("StartContainer")), (1, 2));
    assert_eq!(api.pod("web").unwrap()["status"]["containerStatuses"][0]["restartCount"], 0, "it is another pod");
}

//! Pods of manifests on a node of a cluster: their mirrors come and go with them, and never the other way round.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, pod, with};

/// A manifest as people write it: what the API server would add is not there.
fn write(bed: &Bed, image: &str) {
    let manifest = with(pod("web", image), "/metadata", json!({ "name": "web" }));
    std::fs::create_dir_all(bed.manifest("")).unwrap();
    std::fs::write(bed.manifest("web.yaml"), manifest.to_string()).unwrap();
}

async fn until_ready(api: &ApiServer) -> Value {
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    api.until("a ready mirror", |api| api.pod("web-node").is_some_and(|pod| ready(&pod))).await;
    api.pod("web-node").unwrap()
}

fn count(api: &ApiServer, line: &str) -> usize {
    api.log().iter().filter(|said| *said == line).count()
}

fn hash(mirror: &Value) -> &Value {
    &mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"]
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_is_seen_in_its_mirror() {
    let api = ApiServer::new();
    let bed = Bed::of_manifests(&api);
    bed.fake.script().image("web:v1");
    write(&bed, "web:v1");
    let mirror = until_ready(&api).await;
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(annotations["kubernetes.io/config.hash"], *hash(&mirror));
    assert!(annotations["kubernetes.io/config.seen"].is_string(), "{annotations}");
    assert_eq!(mirror["status"]["podIP"], "10.88.0.1");

    // The mirror is no pod: one runs, and what is true is written once.
    sleep(Duration::from_secs(60)).await;
    let log = api.log();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(api.log(), log);
    assert_eq!((bed.alive().await.len(), bed.kubelet().tables().desired.len()), (1, 1));

    std::fs::remove_file(bed.manifest("web.yaml")).unwrap();
    api.until("no mirror", |api| api.pod("web-node").is_none()).await;
    assert!(bed.alive().await.is_empty(), "the mirror went before its pod");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_deleted_comes_back_and_its_pod_runs_on() {
    let api = ApiServer::new();
    let bed = Bed::of_manifests(&api);
    bed.fake.script().image("web:v1");
    write(&bed, "web:v1");
    let first = until_ready(&api).await;
    let running = bed.alive().await;

    api.force_delete("web-node");
    let second = until_ready(&api).await;
    api.edit("web-node", |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    api.until("a third", |api| count(api, "create web-node") == 3).await;
    let third = until_ready(&api).await;
    let uids = [&first, &second, &third].map(|mirror| mirror["metadata"]["uid"].clone());
    assert!(uids[0] != uids[1] && uids[1] != uids[2], "{uids:?}");
    assert!(third["metadata"]["deletionTimestamp"].is_null());
    assert_eq!((bed.alive().await, bed.count("StopContainer")), (running, 0));
}

#[tokio::test(start_paused = true)]
async fn a_changed_manifest_is_a_new_pod_once_the_old_one_is_gone() {
    changes(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_changed_while_no_kubelet_was_there_is_a_new_pod_once_the_old_one_is_gone() {
    changes(true).await;
}

async fn changes(restarted: bool) {
    let api = ApiServer::new();
    let mut bed = Bed::of_manifests(&api);
    bed.fake.script().image("web:v1").image("web:v2");
    bed.fake.script().delay("StopPodSandbox", Duration::from_secs(7));
    write(&bed, "web:v1");
    let first = until_ready(&api).await;
    if restarted {
        bed.kill();
    }
    write(&bed, "web:v2");
    if restarted {
        bed.join(&api);
    }
    let is_next = |api: &ApiServer| api.pod("web-node").is_some_and(|pod| hash(&pod) != hash(&first));
    api.until("another mirror", is_next).await;
    let second = until_ready(&api).await;
    assert_eq!(second["spec"]["containers"][0]["image"], "web:v2");
    assert_eq!(bed.alive().await.len(), 1);
    let calls: Vec<_> = bed.fake.calls().into_iter().map(|made| made.call).collect();
    let stopped = calls.iter().position(|call| *call == "StopPodSandbox").unwrap();
    let next_ran = calls.iter().rposition(|call| *call == "RunPodSandbox").unwrap();
    assert!(stopped < next_ran, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_of_no_pod_goes_and_one_of_a_pod_stays_over_a_restart() {
    let api = ApiServer::new();
    let mut bed = Bed::of_manifests(&api);
    bed.fake.script().image("web:v1");
    write(&bed, "web:v1");
    let before = until_ready(&api).await;
    bed.kill();
    let annotations = json!({ "kubernetes.io/config.mirror": "nothing" });
    api.apply(&with(pod("orphan", "web:v1"), "/metadata/annotations", annotations));
    bed.join(&api);
    api.until("no orphan", |api| api.pod("orphan").is_none()).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(until_ready(&api).await["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(bed.count("StartContainer"), 1);
}

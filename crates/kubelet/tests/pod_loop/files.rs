//! The files that the kubelet adds to each container: its hosts file, and the place of its termination message.

use std::path::PathBuf;
use std::time::Duration;

use cri::fake::Outcome;
use kubelet::tables::ObservedPod;
use serde_json::json;
use tokio::time::sleep;

use crate::bed::{Bed, main_container, pod, with};

/// Where on the node the only container's file at this path is.
async fn on_node(bed: &Bed, guest: &str) -> Option<PathBuf> {
    let id = bed.alive().await.pop().unwrap();
    let mounts = bed.runtime.container_status(&id).await.unwrap().mounts;
    let mut found = mounts.into_iter().filter(|mount| mount.container_path == guest);
    let host = found.next().map(|mount| PathBuf::from(mount.host_path));
    assert_eq!(found.next(), None, "two mounts at {guest}");
    host
}

/// The termination message that the status shows.
fn message(row: &ObservedPod) -> Option<String> {
    main_container(row).state?.terminated?.message
}

#[tokio::test(start_paused = true)]
async fn what_a_container_left_as_its_last_word_is_in_the_status() {
    leaves_its_last_word(false).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_word_is_found_by_a_kubelet_that_was_not_there() {
    leaves_its_last_word(true).await;
}

async fn leaves_its_last_word(restarted: bool) {
    let mut bed = Bed::new();
    bed.fake.script().on_start("job:v1", Outcome::ExitAfter { code: 3, delay: Duration::from_secs(60) });
    let job = with(pod("job", "job:v1"), "/spec/restartPolicy", "Never");
    bed.want(std::slice::from_ref(&job)).await;
    bed.until_running(&job).await;
    let file = on_node(&bed, "/dev/termination-log").await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"");
    std::fs::write(&file, "no more paper").unwrap();
    if restarted {
        bed.kill();
        sleep(Duration::from_secs(120)).await;
        bed.start();
        bed.want(std::slice::from_ref(&job)).await;
    }
    let row = bed.until_phase(&job, "Failed").await;
    assert_eq!(message(&row).as_deref(), Some("no more paper"));

    // The file goes with the pod's volumes, its words stay.
    let pod_directory = file.ancestors().nth(3).unwrap();
    assert!(pod_directory.parent().unwrap().ends_with("pods"), "{}", file.display());
    sleep(Duration::from_secs(300)).await;
    assert!(!pod_directory.exists());
    assert_eq!(message(&bed.row(&job).unwrap()), message(&row));

    bed.want(&[]).await;
    bed.until_gone(&job).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_a_last_word_shows_the_log_where_the_pod_wants_that() {
    let bed = Bed::new();
    bed.fake.script().on_start("job:v1", Outcome::exit(1)).prints("job:v1", "out of paper");
    let job = with(pod("job", "job:v1"), "/spec/restartPolicy", "Never");
    let job = with(job, "/spec/containers/0/terminationMessagePolicy", "FallbackToLogsOnError");
    bed.want(std::slice::from_ref(&job)).await;
    let row = bed.until_phase(&job, "Failed").await;
    assert_eq!(message(&row).as_deref(), Some("out of paper\n"));
}

#[tokio::test(start_paused = true)]
async fn a_container_finds_its_pod_in_its_hosts_file() {
    let bed = Bed::new();
    let aliased = with(pod("web", "web:v1"), "/spec/hostAliases", json!([{ "ip": "192.0.2.7", "hostnames": ["db"] }]));
    bed.want(std::slice::from_ref(&aliased)).await;
    bed.fake.script().image("web:v1");
    bed.until_running(&aliased).await;
    let file = on_node(&bed, "/etc/hosts").await.unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
    assert!(text.ends_with("\n10.88.0.1\tweb\n\n# Entries added by HostAliases.\n192.0.2.7\tdb\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_mounts_its_own_hosts_file_keeps_it() {
    let bed = Bed::new();
    bed.fake.script().image("web:v1");
    let own = with(pod("web", "web:v1"), "/spec/volumes", json!([{ "name": "v", "emptyDir": {} }]));
    let mounts = json!([{ "name": "v", "mountPath": "/etc/hosts" }]);
    let own = with(own, "/spec/containers/0/volumeMounts", mounts);
    bed.want(std::slice::from_ref(&own)).await;
    bed.until_running(&own).await;
    let host = on_node(&bed, "/etc/hosts").await.unwrap();
    assert!(host.ends_with("volumes/kubernetes.io~empty-dir/v"), "{}", host.display());
}

//! What a runtime finds that follows one which was killed.

use std::time::Duration;

use cri::v1::{self, ContainerState, PodSandboxState};

use crate::bed::{Node, exit_of};

#[tokio::test]
async fn after_a_kill_nothing_runs_and_what_had_ended_is_known() {
    let mut node = Node::new().await;
    let pod = node.pod("before").await;
    let running = pod.start("running", "spins", |_| {}).await;
    let created = pod.create("created", "parked", |_| {}).await;
    let ended = pod.start("ended", "exits-seven", |_| {}).await;
    let known = pod.exit_of(&ended).await;
    let before = node.client().container_status(&running).await.unwrap();
    let sandbox = pod.id.clone();

    node.kill_and_reopen().await;
    let status = node.client().pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!(status.status.unwrap().state(), PodSandboxState::SandboxNotready);
    assert_eq!(node.client().container_status(&ended).await.unwrap(), known);
    let interrupted = node.client().container_status(&running).await.unwrap();
    assert_eq!((interrupted.exit_code, interrupted.reason.as_str()), (255, "Unknown"), "{interrupted:?}");
    assert_eq!(interrupted.state(), ContainerState::ContainerExited);
    assert_eq!(interrupted.started_at, before.started_at);
    assert_eq!((&interrupted.metadata, &interrupted.labels), (&before.metadata, &before.labels));
    let never = node.client().container_status(&created).await.unwrap();
    assert_eq!((never.exit_code, never.started_at), (255, 0), "{never:?}");
    assert!(node.client().start_container(&created).await.is_err());

    // Another restart changes nothing of that.
    node.kill_and_reopen().await;
    assert_eq!(node.client().container_status(&running).await.unwrap(), interrupted);

    // The kubelet makes the pod's next sandbox while the old one is still there.
    let mut config = node.sandbox_config("before", |_| {});
    config.metadata.as_mut().unwrap().attempt = 1;
    let next = node.client().run_pod_sandbox(config, "").await.unwrap();
    node.client().stop_pod_sandbox(&sandbox).await.unwrap();
    node.client().remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(node.client().container_status(&running).await.unwrap_err().is_not_found());
    node.client().remove_pod_sandbox(&next).await.unwrap();
    for kind in ["sandboxes", "containers"] {
        assert_eq!(std::fs::read_dir(node.state_dir().join(kind)).unwrap().count(), 0, "{kind} are left");
    }
}

#[tokio::test]
async fn after_a_clean_shutdown_it_is_known_how_guests_ended() {
    let mut node = Node::new().await;
    let pod = node.pod("clean").await;
    let id = pod.start("main", "parked", |_| {}).await;
    node.runtime.as_ref().unwrap().shutdown(Duration::from_secs(5)).await;
    node.kill_and_reopen().await;
    let status = exit_of(&node, &id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (143, "Error"), "{status:?}");
}

#[tokio::test]
async fn a_broken_record_costs_its_object_only() {
    let mut node = Node::new().await;
    let kept = node.pod("kept").await.id.clone();
    let broken = node.pod("broken").await;
    let container = broken.create("main", "parked", |_| {}).await;
    let broken = broken.id.clone();
    let record = node.state_dir().join("sandboxes").join(&broken).join("record.json");
    std::fs::write(record, "{").unwrap();
    node.kill_and_reopen().await;
    let listed = node.client().list_pod_sandboxes(None).await.unwrap();
    assert_eq!(listed.iter().map(|sandbox| sandbox.id.as_str()).collect::<Vec<_>>(), [kept]);
    let filter = v1::ContainerFilter { id: container, ..Default::default() };
    assert!(node.client().list_containers(Some(filter)).await.unwrap().is_empty());
}

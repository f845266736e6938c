//! What guests do that are asked to end.

use std::time::Duration;

use crate::bed::{Node, Pod, eventually};

const GRACE: Duration = Duration::from_secs(60);

async fn logged(pod: &Pod<'_>, name: &str, line: &str) {
    eventually("the line is in the log", async || pod.log(name).iter().any(|logged| logged == line).then_some(()))
        .await;
}

#[tokio::test]
async fn a_program_that_waits_for_its_end_ends_by_itself() {
    let node = Node::new().await;
    let pod = node.pod("waits").await;
    let id = pod.start("main", "terminates", |_| {}).await;
    logged(&pod, "main", "stdout F waiting").await;
    node.client().stop_container(&id, GRACE).await.unwrap();
    let status = pod.exit_of(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"), "{status:?}");
    assert_eq!(pod.log("main"), ["stdout F waiting", "stdout F ending"]);
}

#[tokio::test]
async fn a_program_that_hears_and_stays_is_killed() {
    let node = Node::new().await;
    let pod = node.pod("stays").await;
    let id = pod.start("main", "stays", |_| {}).await;
    logged(&pod, "main", "stdout F waiting").await;
    node.client().stop_container(&id, Duration::from_secs(1)).await.unwrap();
    let status = pod.exit_of(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"), "{status:?}");
    assert_eq!(pod.log("main"), ["stdout F waiting", "stdout F ending"]);
}

#[tokio::test]
async fn a_stop_handler_runs_before_its_program_ends() {
    let node = Node::new().await;
    let pod = node.pod("handles").await;
    let id = pod.start("main", "handles-stop", |_| {}).await;
    node.client().stop_container(&id, GRACE).await.unwrap();
    let status = pod.exit_of(&id).await;
    assert_eq!(status.exit_code, 143, "{status:?}");
    assert_eq!(pod.log("main"), ["stdout F asked to end"]);
}

#[tokio::test]
async fn a_handler_beside_a_function_of_the_same_guest_is_found() {
    let node = Node::new().await;
    let pod = node.pod("by-name").await;
    let id = pod.start("main", "handles-stop", |_| {}).await;
    let command = ["#stop-handler.handle".to_owned()];
    let answer = node.client().exec_sync(&id, &command, GRACE).await.unwrap();
    assert_eq!((answer.exit_code, answer.stdout.as_slice()), (0, &b"asked to end\n"[..]));
}

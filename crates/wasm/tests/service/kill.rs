//! Stops without grace: a guest is gone whatever it is at, and what it held with it. How soon is measured elsewhere; here
//! the call answers, which it does not for a guest that stays.

use std::time::Duration;

use cri::v1;

use crate::bed::{Node, Pod, eventually};

async fn used(node: &Node, id: &str) -> (u64, u64) {
    let stats = node.client().container_stats(id).await.unwrap();
    let value = |value: Option<v1::UInt64Value>| value.map_or(0, |value| value.value);
    (value(stats.cpu.unwrap().usage_core_nano_seconds), value(stats.memory.unwrap().usage_bytes))
}

async fn is_killed(node: &Node, pod: &Pod<'_>, id: &str) {
    node.client().stop_container(id, Duration::ZERO).await.unwrap();
    // No waiting: when the call has answered, it is so.
    let status = node.client().container_status(id).await.unwrap();
    assert_eq!(status.state(), v1::ContainerState::ContainerExited, "{status:?}");
    // What computes is killed; what waits and hears nothing counts as stopped.
    assert!([137, 143].contains(&status.exit_code), "{status:?}");
    assert_eq!(used(node, id).await.1, 0, "it gives back its memory");
    let next = pod.start(&format!("after-{id}"), "prints", |_| {}).await;
    assert_eq!(pod.exit_of(&next).await.exit_code, 0);
}

#[tokio::test]
async fn a_loop_a_sleeper_and_one_instruction_that_nothing_interrupts() {
    let node = Node::new().await;
    let pod = node.pod("busy").await;
    for (guest, memory) in [("spins", 0), ("parked", 0), ("run-03-sleeps", 0), ("fills", 512 << 20)] {
        let id = pod.start(guest, guest, |_| {}).await;
        eventually("it runs", async || {
            let (cpu, held) = used(&node, &id).await;
            (cpu > 0 && held >= memory).then_some(())
        })
        .await;
        is_killed(&node, &pod, &id).await;
    }
}

#[tokio::test]
async fn a_host_call_that_does_not_return() {
    let node = Node::new().await;
    let pod = node.pod("blocked").await;
    // To open a pipe that nobody writes to blocks the thread that does it, and nothing interrupts that.
    let files = node.directory("files");
    let pipe = files.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let id = pod
        .start("main", "reads", |config| {
            config.args = vec!["/files/pipe".into()];
            config.mounts = vec![v1::Mount {
                container_path: "/files".into(),
                host_path: files.display().to_string(),
                ..Default::default()
            }];
        })
        .await;
    eventually("it runs", async || (used(&node, &id).await.0 > 0).then_some(())).await;
    is_killed(&node, &pod, &id).await;
    // Lets the thread go, or the end of the test would wait for it.
    drop(std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap());
}

#[tokio::test]
async fn ten_thousand_sockets() {
    let node = Node::new().await;
    let pod = node.pod("sockets").await;
    let id = pod.start("main", "opens-sockets", |_| {}).await;
    eventually("it has them, or as many as this process may open", async || {
        let log = pod.log("main");
        log.iter().any(|line| line == "stdout F all" || line == "stdout F refused").then_some(())
    })
    .await;
    is_killed(&node, &pod, &id).await;
}

//! CPU time: what containers are charged with is what the process's guest threads have used.
//!
//! Threads of other tests would count too, so this one runs by itself in another process of the same program.

use std::process::Command;

use crate::bed::{Node, eventually};

const ALONE: &str = "WASKLET_TEST_ALONE";
/// How much the guests use before it is compared.
const ENOUGH_NANOSECONDS: u64 = 1_500_000_000;
/// How far the two may be apart.
const TOLERANCE: f64 = 0.05;

#[test]
fn what_containers_are_charged_with_is_what_the_guest_threads_have_used() {
    if std::env::var_os(ALONE).is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let alone =
        Command::new(this).args(["--exact", "accounting::alone", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&alone.stdout) + String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn alone() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    let node = Node::new().await;
    let pod = node.pod("charged").await;
    let mut containers = Vec::new();
    for (name, guest) in [("one", "spins"), ("other", "spins"), ("writes", "floods"), ("short", "prints")] {
        containers.push(pod.start(name, guest, |_| {}).await);
    }
    let (threads_before, charged_before) = (guest_threads(), charged(&node, &containers).await);
    eventually("they have used enough", async || {
        (charged(&node, &containers).await >= charged_before + ENOUGH_NANOSECONDS).then_some(())
    })
    .await;
    let (threads, charged) = (guest_threads() - threads_before, charged(&node, &containers).await - charged_before);
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = charged as f64 / threads as f64;
    assert!((ratio - 1.0).abs() < TOLERANCE, "{charged} ns charged, {threads} ns used: {ratio}");
}

async fn charged(node: &Node, containers: &[String]) -> u64 {
    let mut sum = 0;
    for id in containers {
        let stats = node.client().container_stats(id).await.unwrap();
        sum += stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value;
    }
    sum
}

/// Nanoseconds that all threads that run guests have used.
fn guest_threads() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let guests = threads.filter(|thread| std::fs::read_to_string(thread.join("comm")).is_ok_and(|it| it == "guest\n"));
    let used = guests.filter_map(|thread| std::fs::read_to_string(thread.join("schedstat")).ok());
    used.filter_map(|used| used.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

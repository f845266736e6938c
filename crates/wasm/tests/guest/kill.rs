//! Kills: a guest is gone at once, whatever it is at.

use std::time::{Duration, Instant};

use testbed::guests::wat;
use wasm::guest::Exit;

use crate::node::{PATIENCE, Running, Setup, until};

/// A busy machine's worth beyond the 50 ms that a kill may take.
const SOON: Duration = Duration::from_secs(2);

async fn is_gone_soon(running: &Running) {
    let asked = Instant::now();
    running.guest.kill();
    assert_eq!(running.exited().await, Exit::Killed);
    let took = asked.elapsed();
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn a_loop_and_a_sleeper_in_either_kind_of_code() {
    for wasm in [wat::loops(), wat::component_of(&wat::loops()), wat::sleeps(), wat::component_of(&wat::sleeps())] {
        let running = Setup::of(&wasm).await.start();
        running.used_cpu(Duration::from_nanos(1)).await;
        is_gone_soon(&running).await;
        until("all it held is given back", || running.guest.usage().memory_bytes == 0).await;
        assert_eq!(Exit::Killed.code(), 137);
    }
}

#[tokio::test]
async fn an_instruction_that_nothing_interrupts() {
    let running = Setup::of(&wat::fills()).await.start();
    until("it fills its memory", || running.guest.usage().memory_bytes >= 512 << 20).await;
    is_gone_soon(&running).await;
    until("all it held is given back", || running.guest.usage().memory_bytes == 0).await;
}

#[tokio::test]
async fn ten_thousand_sockets() {
    let mut running = Setup::of(&wat::opens_sockets()).await.start();
    let said = tokio::time::timeout(PATIENCE, running.stdout.recv()).await.unwrap().unwrap();
    // Fewer where the tests may not open as many files; the kill is the same.
    assert!(["all\n", "refused\n"].iter().any(|expected| said == *expected), "{said:?}");
    is_gone_soon(&running).await;
}

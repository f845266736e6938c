//! Limits: memory that ends a guest, CPU that parks it.

use std::time::{Duration, Instant};

use testbed::guests::wat;
use wasm::guest::Exit;
use wasm::limits::Limits;

use crate::node::{Setup, one_thread};

#[tokio::test]
async fn growing_past_the_memory_limit_is_out_of_memory() {
    for wasm in [wat::grows(), wat::component_of(&wat::grows())] {
        let ended = Setup::of(&wasm).await.with(|spec| spec.limits.memory_bytes = Some(8 << 20)).run().await;
        assert_eq!(ended.exit, Exit::OutOfMemory);
        assert_eq!((ended.exit.code(), ended.exit.reason()), (137, "OOMKilled"));
        assert!(ended.stderr.contains("memory limit"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_guest_that_declares_too_much_never_starts() {
    let ended = Setup::of(&wat::sleeps()).await.with(|spec| spec.limits.memory_bytes = Some(1)).run().await;
    assert_eq!(ended.exit, Exit::OutOfMemory);
}

#[tokio::test]
async fn a_running_guest_reports_the_memory_it_declared() {
    let running = Setup::of(&wat::sleeps()).await.start();
    crate::node::until("it has its memory", || running.guest.usage().memory_bytes >= 65_536).await;
}

#[tokio::test]
async fn a_limited_loop_gets_its_share_of_cpu_and_a_kill_reaches_it_while_parked() {
    let running = Setup::of(&wat::loops()).await.with(|spec| spec.limits.cpu_millis = Some(200)).start();
    running.used_cpu(Duration::from_millis(50)).await;
    let (start, before) = (Instant::now(), running.guest.usage().cpu);
    running.used_cpu(before + Duration::from_millis(300)).await;
    let share = (running.guest.usage().cpu - before).as_secs_f64() / start.elapsed().as_secs_f64();
    // An upper bound only counts: on a busy machine it may well get less.
    assert!(share < 0.3, "{share}");
    running.guest.kill();
    assert_eq!(running.exited().await, Exit::Killed);
}

#[tokio::test]
async fn a_running_loops_limit_is_taken_away_and_given_back() {
    let running = Setup::of(&wat::loops()).await.with(|spec| spec.limits.cpu_millis = Some(1)).start();
    running.used_cpu(Duration::from_millis(5)).await;
    // At a thousandth of a core this would take minutes.
    running.guest.set_limits(&Limits::default()).unwrap();
    running.used_cpu(Duration::from_millis(300)).await;
    running.guest.set_limits(&Limits { cpu_millis: Some(100), ..Limits::default() }).unwrap();
    let (start, before) = (Instant::now(), running.guest.usage().cpu);
    running.used_cpu(before + Duration::from_millis(100)).await;
    let share = (running.guest.usage().cpu - before).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(share < 0.25, "{share}");
}

#[tokio::test]
async fn a_tight_loop_leaves_room_for_others() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let mut loops = Vec::new();
    for _ in 0..=cpus {
        loops.push(Setup::of(&wat::loops()).await.start());
    }
    for busy in &loops {
        busy.used_cpu(Duration::from_millis(10)).await;
    }
    let other = Setup::of(&wat::prints_and_exits("still here\n", 0)).await.run().await;
    assert_eq!(other.stdout, "still here\n");
}

#[tokio::test]
async fn loops_that_compete_have_of_the_cpu_what_their_shares_say() {
    let engines = one_thread();
    let looping = async |shares| {
        Setup::on(&engines, &wat::loops()).await.with(|spec| spec.limits.cpu_shares = Some(shares)).start()
    };
    let (large, small) = (looping(3000).await, looping(1000).await);
    for guest in [&large, &small] {
        guest.used_cpu(Duration::from_millis(20)).await;
    }
    let used = || (large.guest.usage().cpu, small.guest.usage().cpu);
    let before = used();
    small.used_cpu(before.1 + Duration::from_millis(200)).await;
    let after = used();
    let ratio = (after.0 - before.0).as_secs_f64() / (after.1 - before.1).as_secs_f64();
    assert!((2.4..3.6).contains(&ratio), "{ratio}");

    // A change holds at once, and what one had before is not held against it.
    small.guest.set_limits(&Limits { cpu_shares: Some(3000), ..Limits::default() }).unwrap();
    let before = used();
    small.used_cpu(before.1 + Duration::from_millis(300)).await;
    let after = used();
    let ratio = (after.0 - before.0).as_secs_f64() / (after.1 - before.1).as_secs_f64();
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
}

//! Functions of a command of WASI 0.3, called in the instance that its program waits in.

use std::time::Duration;

use bytes::Bytes;
use testbed::guests::wat;
use tokio::sync::mpsc;
use wasm::guest::exec::{Exec, ExecSpec};
use wasm::guest::{Exit, Guest, Stdin, Streams};

use crate::node::{Finished, PATIENCE, Running, Setup, text, until};

/// A call, and what it writes.
struct Called {
    exec: Exec,
    stdout: mpsc::Receiver<Bytes>,
    stderr: mpsc::Receiver<Bytes>,
}

fn call(guest: &Guest, name: &str) -> Called {
    let (stdout_sink, stdout) = mpsc::channel(16);
    let (stderr_sink, stderr) = mpsc::channel(16);
    let streams = Streams { stdin: Stdin::Empty, stdout: stdout_sink, stderr: stderr_sink, tty: false };
    let exec = guest.exec(ExecSpec { code: None, args: vec![name.to_owned()], streams }).expect("it can be called");
    Called { exec, stdout, stderr }
}

impl Called {
    async fn finish(mut self) -> Finished {
        let all = async { tokio::join!(self.exec.exited(), text(&mut self.stdout), text(&mut self.stderr)) };
        let (exit, stdout, stderr) = tokio::time::timeout(PATIENCE, all).await.expect("the call ends");
        Finished { exit, stdout, stderr }
    }
}

/// What a call that ends by itself ends with.
async fn called(guest: &Guest, name: &str) -> (Exit, String, String) {
    let Finished { exit, stdout, stderr } = call(guest, name).finish().await;
    (exit, stdout, stderr)
}

fn says(code: i32, stdout: &str, stderr: &str) -> (Exit, String, String) {
    (Exit::Code(code), stdout.to_owned(), stderr.to_owned())
}

/// One whose program waits.
async fn waiting() -> Running {
    let mut running = Setup::of(&wat::live()).await.start();
    assert_eq!(running.stdout.recv().await.unwrap(), "waiting\n");
    running
}

#[tokio::test]
async fn a_call_sees_what_the_program_has_done() {
    let running = waiting().await;
    assert_eq!(called(&running.guest, "#count").await, says(0, "42\n", ""));
    assert_eq!(called(&running.guest, "#liveness").await, says(0, "ok\n", ""));
    assert_eq!(called(&running.guest, "#health.readiness").await, says(1, "", "still warming up\n"));
    let (one, other) = tokio::join!(called(&running.guest, "#count"), called(&running.guest, "#count"));
    assert_eq!([one.1, other.1].concat().len(), "43\n44\n".len());
    assert_eq!(called(&running.guest, "#count").await, says(0, "45\n", ""), "both were counted");
    running.guest.kill();
    assert_eq!(running.exited().await, Exit::Killed);
}

#[tokio::test]
async fn a_call_that_traps_ends_the_program_and_says_so() {
    let mut running = waiting().await;
    let Finished { exit, stdout, stderr } = call(&running.guest, "#startup").finish().await;
    assert!(matches!(&exit, Exit::Trap { message } if message.contains("unreachable")), "{exit:?}");
    assert!(stdout.is_empty() && stderr.contains("unreachable"), "{stderr}");
    assert_eq!(running.exited().await, exit);
    assert!(text(&mut running.stderr).await.contains("unreachable"));
}

#[tokio::test]
async fn a_call_whose_time_is_over_ends_alone_although_the_guest_goes_on() {
    let running = waiting().await;
    let spins = call(&running.guest, "#spin");
    running.used_cpu(Duration::from_millis(20)).await;
    let waits = call(&running.guest, "#count");
    for called in [waits, spins] {
        called.exec.kill();
        assert_eq!(called.finish().await.exit, Exit::Killed);
    }
    let used = running.guest.usage().cpu;
    until("it computes on", || running.guest.usage().cpu > used).await;
    assert_eq!(running.guest.exit(), None);
    running.guest.kill();
    assert_eq!(running.exited().await, Exit::Killed);
}

#[tokio::test]
async fn a_call_ends_with_its_guest() {
    let running = waiting().await;
    let spins = call(&running.guest, "#spin");
    running.used_cpu(Duration::from_millis(20)).await;
    running.guest.kill();
    assert_eq!(spins.finish().await.exit, Exit::Killed);
}

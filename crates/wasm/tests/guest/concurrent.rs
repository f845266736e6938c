//! Commands of WASI 0.3.

use testbed::guests::wat;
use wasm::code::Kind;
use wasm::guest::Exit;

use crate::node::{Setup, compile};

#[tokio::test]
async fn a_command_of_wasi_03_runs_to_its_end() {
    for (fails, code) in [(false, 0), (true, 1)] {
        let wasm = wat::concurrent(fails);
        assert_eq!(compile(&wasm).await.unwrap().kind(), Kind::CommandP3);
        let ended = Setup::of(&wasm).await.run().await;
        assert_eq!(
            (ended.exit, ended.stdout.as_str()),
            (Exit::Code(code), "hello from WASI 0.3\n"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn a_command_of_wasi_03_that_sleeps_is_killed() {
    let mut running = Setup::of(&wat::concurrent_sleeps()).await.start();
    assert_eq!(running.stdout.recv().await.unwrap(), "hello from WASI 0.3\n");
    running.guest.kill();
    assert_eq!(running.exited().await, Exit::Killed);
}

#[tokio::test]
async fn what_of_wasi_03_is_not_there_is_refused_by_name() {
    let sockets = r#"(component (import "wasi:sockets/unheard-of@0.3.0" (instance (export "x" (func))))
        (instance) (export "wasi:cli/run@0.3.0" (instance 1)))"#;
    let refused = compile(&::wat::parse_str(sockets).unwrap()).await.err().expect("it is refused").to_string();
    assert!(refused.contains("wasi:sockets/unheard-of@0.3.0"), "{refused}");
}

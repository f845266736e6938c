//! Commands of WASI 0.3.

use std::time::Duration;

use testbed::guests::wat;
use tokio::io::AsyncWriteExt;
use wasm::code::Kind;
use wasm::guest::Exit;

use crate::http::{connect, get, rest, serve, streams_both_ways};
use crate::node::{PATIENCE, Setup, compile, until};

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
async fn a_handler_of_wasi_03_answers_each_request_and_goes_on_after_its_answer_began() {
    let wasm = wat::http_03_answers(201, "hello from WASI 0.3\n");
    assert_eq!(compile(&wasm).await.unwrap().kind(), Kind::HttpP3);
    let (running, address) = serve(&wasm).await;
    for _ in 0..3 {
        let answer = get(address).await;
        assert!(answer.starts_with("HTTP/1.1 201 ") && answer.contains("hello from WASI 0.3\n"), "{answer}");
    }
    assert!(running.guest.usage().cpu > Duration::ZERO);
    until("all instances are gone", || running.guest.usage().memory_bytes == 0).await;
    running.guest.request_stop(PATIENCE);
    assert_eq!(running.exited().await, Exit::Code(0));
}

#[tokio::test]
async fn bodies_stream_both_ways_through_a_handler_of_wasi_03() {
    streams_both_ways(&wat::http_03_echoes()).await;
}

#[tokio::test]
async fn what_a_handler_of_wasi_03_is_not_told_it_is_not_asked() {
    let (_running, address) = serve(&wat::http_03_echoes()).await;
    let mut stream = connect(address).await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.starts_with("HTTP/1.0 400 "));
}

#[tokio::test]
async fn what_of_wasi_03_is_not_there_is_refused_by_name() {
    let sockets = r#"(component (import "wasi:sockets/unheard-of@0.3.0" (instance (export "x" (func))))
        (instance) (export "wasi:cli/run@0.3.0" (instance 1)))"#;
    let refused = compile(&::wat::parse_str(sockets).unwrap()).await.err().expect("it is refused").to_string();
    assert!(refused.contains("wasi:sockets/unheard-of@0.3.0"), "{refused}");
}

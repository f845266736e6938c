//! HTTP handlers of WASI 0.3: an instance answers several requests beside one another, unless the pod wants one each.

use std::net::SocketAddr;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use testbed::guests::wat;
use tokio::io::AsyncWriteExt;
use wasm::code::Kind;
use wasm::guest::Exit;

use crate::http::{self, connect, get, rest, serve, serve_shared, status};
use crate::node::{PATIENCE, compile, until};

/// Asks until an answer has what is wanted, each of the others one of `may_be`.
async fn asks_until(address: SocketAddr, wanted: impl Fn(u16) -> bool, may_be: impl Fn(u16) -> bool) {
    let asking = async {
        loop {
            let status = status(address).await;
            if wanted(status) {
                break;
            }
            assert!(may_be(status), "{status}");
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the answer comes");
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
    http::streams_both_ways(&wat::http_03_echoes()).await;
}

#[tokio::test]
async fn what_a_handler_of_wasi_03_is_not_told_it_is_not_asked() {
    let (_running, address) = serve(&wat::http_03_echoes()).await;
    let mut stream = connect(address).await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.starts_with("HTTP/1.0 400 "));
}

#[tokio::test]
async fn an_instance_of_wasi_03_answers_more_than_one_request_unless_one_is_wanted() {
    let guest = wat::http_03_counts(1_000);
    let (_shared, address) = serve(&guest).await;
    asks_until(address, |status| status == 203, |status| (201..203).contains(&status)).await;
    let (_twice, address) = serve_shared(&guest, 2).await;
    asks_until(address, |status| status == 202, |status| status == 201).await;
    for _ in 0..20 {
        assert!((201..=202).contains(&status(address).await));
    }
    let (_alone, address) = serve_shared(&guest, 1).await;
    for _ in 0..20 {
        assert_eq!(status(address).await, 201);
    }
}

#[tokio::test]
async fn requests_that_wait_are_in_one_instance() {
    let (_running, address) = serve(&wat::http_03_gathers(2)).await;
    let mut asked = FuturesUnordered::new();
    // One that comes at the very moment that the first is looked after has an instance of its own.
    let gathered = async {
        loop {
            asked.push(status(address));
            let answered = tokio::time::timeout(Duration::from_millis(200), asked.next()).await;
            if let Ok(Some(status)) = answered {
                break status;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, gathered).await.expect("two are together") >= 202);
}

#[tokio::test]
async fn many_requests_at_one_time_are_all_answered_by_wasi_03() {
    let (_running, address) = serve(&wat::http_03_answers(200, "one of many\n")).await;
    let answers = futures::future::join_all((0..200).map(|_| get(address))).await;
    assert!(answers.iter().all(|answer| answer.contains("one of many\n")));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_instance_of_wasi_03_along() {
    http::a_client_takes_its_instance_along(&wat::http_03_gathers(u32::MAX)).await;
}

#[tokio::test]
async fn an_instance_of_wasi_03_that_fails_at_a_second_request_is_the_last_that_had_two() {
    let (mut running, address) = serve(&wat::http_03_counts(1)).await;
    asks_until(address, |status| status == 500, |status| status == 201).await;
    let said = http::told_that_instances_are_shared_no_more(&mut running).await;
    assert!(said.contains("GET /: ") && said.contains("unreachable"), "{said}");
    // What was begun before that may have been the second, too.
    asks_until(address, |status| status == 201, |status| status == 500).await;
    for _ in 0..20 {
        assert_eq!(status(address).await, 201);
    }
    assert_eq!(running.guest.exit(), None);
}

#[tokio::test]
async fn a_graceful_stop_waits_for_those_who_wait_for_wasi_03() {
    // Its length is known to the node, so that it needs no chunks.
    http::a_graceful_stop_finishes_what_was_begun(&wat::http_03_echoes(), "\r\n\r\nonce").await;
}

#[tokio::test]
async fn a_kill_ends_requests_to_wasi_03_in_flight() {
    http::a_kill_ends_a_request_in_flight(&wat::http_03_gathers(u32::MAX)).await;
}

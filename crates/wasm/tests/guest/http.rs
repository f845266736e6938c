//! HTTP guests: served at the pod's address, one instance per request, stopped without losing an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use testbed::guests::wat;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wasm::guest::{Exit, Http, StartError};
use wasm::wasi::network::Protocol;

use crate::node::{PATIENCE, Running, Setup, free_port, mapped, pod, until};

pub(crate) async fn serve(wasm: &[u8]) -> (Running, SocketAddr) {
    let running = Setup::of(wasm).await.with(|spec| spec.http.port = 8080).start();
    let address = running.guest.listening().expect("an HTTP guest listens");
    (running, address)
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("the guest listens")
}

/// All that comes until the other side closes.
pub(crate) async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the answer ends").expect("the answer is whole");
    String::from_utf8(answer).unwrap()
}

pub(crate) async fn get(address: SocketAddr) -> String {
    let mut stream = connect(address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.unwrap();
    rest(stream).await
}

/// Reads until the text has come.
pub(crate) async fn read_until(stream: &mut TcpStream, text: &str) {
    let mut answer = String::new();
    while !answer.contains(text) {
        let mut piece = [0; 1024];
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut piece)).await.expect("it comes").unwrap();
        assert_ne!(count, 0, "{text} is not in {answer}");
        answer.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
}

#[tokio::test]
async fn a_handler_answers_at_the_pods_address_and_at_its_localhost() {
    let running = Setup::of(&wat::http_answers(201, "hello from wasm\n")).await.with(|spec| spec.http.port = 8080);
    let network = Arc::clone(&running.spec.network);
    let running = running.start();
    let address = SocketAddr::new(network.address(), 8080);
    assert_eq!(running.guest.listening(), Some(address));
    assert_eq!(network.local(Protocol::Tcp, 8080), address);
    for _ in 0..3 {
        let answer = get(address).await;
        assert!(answer.starts_with("HTTP/1.1 201 ") && answer.contains("hello from wasm\n"), "{answer}");
    }
    assert!(running.guest.usage().cpu > Duration::ZERO);
    until("all instances are gone", || running.guest.usage().memory_bytes == 0).await;
}

#[tokio::test]
async fn many_requests_at_one_time_are_all_answered() {
    let (_running, address) = serve(&wat::http_answers(200, "one of many\n")).await;
    let answers = futures::future::join_all((0..200).map(|_| get(address))).await;
    assert!(answers.iter().all(|answer| answer.contains("one of many\n")));
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    streams_both_ways(&wat::http_echoes()).await;
}

/// Sends a body piece by piece, to a guest that answers with it as it comes.
pub(crate) async fn streams_both_ways(echoes: &[u8]) {
    let (_running, address) = serve(echoes).await;
    let mut stream = connect(address).await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    stream.write_all(b"5\r\nfirst\r\n").await.unwrap();
    read_until(&mut stream, "first").await;
    stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut stream, "second").await;
}

/// The status of one answer.
pub(crate) async fn status(address: SocketAddr) -> u16 {
    let answer = get(address).await;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status")
}

pub(crate) async fn serve_shared(wasm: &[u8], requests: u32) -> (Running, SocketAddr) {
    let http = Http { port: 8080, requests_per_instance: Some(requests.try_into().unwrap()) };
    let running = Setup::of(wasm).await.with(|spec| spec.http = http).start();
    let address = running.guest.listening().expect("an HTTP guest listens");
    (running, address)
}

#[tokio::test]
async fn an_instance_answers_one_request_unless_more_are_asked_for() {
    let guest = wat::http_counts(100);
    let (_alone, address) = serve(&guest).await;
    for _ in 0..3 {
        assert_eq!(status(address).await, 201);
    }
    let (_shared, address) = serve_shared(&guest, 3).await;
    for counted in [201, 202, 203, 201, 202] {
        assert_eq!(status(address).await, counted);
    }
}

#[tokio::test]
async fn instances_of_a_guest_that_fails_at_a_second_request_are_shared_no_more() {
    let (mut running, address) = serve_shared(&wat::http_counts(1), 100).await;
    for answered in [201, 500, 201, 201] {
        assert_eq!(status(address).await, answered);
    }
    told_that_instances_are_shared_no_more(&mut running).await;
}

/// Waits until the guest's log says so, and gives all that it has said by then.
pub(crate) async fn told_that_instances_are_shared_no_more(running: &mut Running) -> String {
    let mut said = String::new();
    while !said.contains("from now on each request has an instance of its own") {
        let piece = tokio::time::timeout(PATIENCE, running.stderr.recv()).await.expect("it says so").unwrap();
        said.push_str(&String::from_utf8_lossy(&piece));
    }
    said
}

#[tokio::test]
async fn a_trap_costs_one_request_and_is_told_on_stderr() {
    let (mut running, address) = serve(&wat::http_traps()).await;
    for _ in 0..2 {
        let answer = get(address).await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        let line = running.stderr.recv().await.unwrap();
        let line = String::from_utf8_lossy(&line);
        assert!(line.starts_with("GET /: ") && line.contains("unreachable"), "{line}");
    }
    assert_eq!(running.guest.exit(), None);
}

#[tokio::test]
async fn a_request_without_a_host_is_a_bad_request() {
    let (_running, address) = serve(&wat::http_answers(200, "hello\n")).await;
    let mut stream = connect(address).await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.starts_with("HTTP/1.0 400 "));
}

#[tokio::test]
async fn a_graceful_stop_finishes_what_was_begun_and_takes_nothing_new() {
    a_graceful_stop_finishes_what_was_begun(&wat::http_echoes(), "once\r\n0\r\n\r\n").await;
}

/// `whole` is the end of its answer to the body `once`.
pub(crate) async fn a_graceful_stop_finishes_what_was_begun(echoes: &[u8], whole: &str) {
    let (running, address) = serve(echoes).await;
    let mut begun = connect(address).await;
    begun.write_all(b"POST / HTTP/1.1\r\nHost: pod\r\nContent-Length: 10\r\n\r\nfirst").await.unwrap();
    read_until(&mut begun, "first").await;
    let mut idle = connect(address).await;
    idle.write_all(b"POST / HTTP/1.1\r\nHost: pod\r\nContent-Length: 4\r\n\r\nonce").await.unwrap();
    read_until(&mut idle, whole).await;

    running.guest.request_stop(PATIENCE);
    let start = std::time::Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(start.elapsed() < PATIENCE, "it still accepts");
    }
    assert_eq!(rest(idle).await, "", "idle connections are closed");
    assert_eq!(running.guest.exit(), None);
    begun.write_all(b"-last").await.unwrap();
    assert!(rest(begun).await.contains("-last"));
    assert_eq!(running.exited().await, Exit::Code(0));
    assert_eq!(running.guest.usage().memory_bytes, 0);
}

/// A guest with a request that it does not answer.
async fn with_a_request_in_flight(silent: &[u8]) -> (Running, TcpStream) {
    let (running, address) = serve(silent).await;
    let mut waiting = connect(address).await;
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n").await.unwrap();
    until("the request runs", || running.guest.usage().memory_bytes > 0).await;
    (running, waiting)
}

#[tokio::test]
async fn a_kill_ends_requests_in_flight() {
    a_kill_ends_a_request_in_flight(&wat::http_is_silent()).await;
}

pub(crate) async fn a_kill_ends_a_request_in_flight(silent: &[u8]) {
    let (running, mut waiting) = with_a_request_in_flight(silent).await;
    running.guest.kill();
    assert_eq!(running.exited().await, Exit::Killed);
    assert_eq!(running.guest.usage().memory_bytes, 0);
    let mut answer = Vec::new();
    // Closed or reset, as the kernel has it.
    let _ = tokio::time::timeout(PATIENCE, waiting.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_instance_along() {
    a_client_takes_its_instance_along(&wat::http_is_silent()).await;
}

pub(crate) async fn a_client_takes_its_instance_along(silent: &[u8]) {
    let (running, waiting) = with_a_request_in_flight(silent).await;
    drop(waiting);
    until("the request has ended", || running.guest.usage().memory_bytes == 0).await;
}

#[tokio::test]
async fn an_instance_that_outgrows_the_limit_alone_ends_the_container() {
    let setup = Setup::of(&wat::http_answers(200, "hello\n")).await.with(|spec| spec.limits.memory_bytes = Some(1));
    let running = setup.start();
    let answer = get(running.guest.listening().unwrap()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert_eq!(running.exited().await, Exit::OutOfMemory);
}

#[tokio::test]
async fn two_pods_have_the_same_port_and_a_clash_is_named() {
    let wasm = wat::http_answers(200, "hello\n");
    let (_one, address) = serve(&wasm).await;
    let (_other, other) = serve(&wasm).await;
    assert_eq!(address.port(), other.port());
    assert_ne!(address, other);

    let clash = wasm::wasi::network::PodNetwork::own(address.ip(), pod().loopback());
    let setup = Setup::of(&wasm).await.with(|spec| {
        spec.http.port = 8080;
        spec.network = Arc::new(clash);
    });
    let error = setup.try_start().err().expect("the port is taken");
    assert!(matches!(error, StartError::Listen { address: taken, .. } if taken == address));
    let said = error.to_string();
    assert_eq!(said, format!("cannot listen on {address} for HTTP: the port is already in use there"));
}

#[tokio::test]
async fn a_mapped_port_is_served_where_it_is_mapped_to() {
    let (ports, at) = mapped(80);
    let loopback = pod().loopback();
    let network = wasm::wasi::network::PodNetwork::host(at.ip(), loopback).with_ports(ports);
    let running = Setup::of(&wat::http_answers(200, "mapped\n")).await.with(|spec| spec.network = Arc::new(network));
    let running = running.start();
    assert_eq!(running.guest.listening(), Some(at));
    assert!(get(at).await.contains("mapped\n"));
    assert_ne!(free_port(at.ip()), at.port(), "the port is taken while it serves");
}

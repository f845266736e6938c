//! Standard input and output of containers that somebody is attached to.

use bytes::Bytes;
use cri::wasklet::attach_response::Output;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::bed::{Node, eventually};

async fn read_until(output: &mut (impl Stream<Item = Result<Output, cri::CallError>> + Unpin), wanted: &str) {
    let mut heard = String::new();
    while !heard.contains(wanted) {
        match output.next().await.expect("the output ended").unwrap() {
            Output::Stdout(bytes) | Output::Stderr(bytes) => heard.push_str(std::str::from_utf8(&bytes).unwrap()),
        }
    }
}

#[tokio::test]
async fn what_goes_in_comes_out_and_the_end_of_input_reaches_the_guest() {
    let node = Node::new().await;
    let pod = node.pod("cat").await;
    let id = pod.create("main", "cat", |config| config.stdin = true).await;
    let (input, sent) = mpsc::channel(1);
    // Attached before the start, so that nothing is missed.
    let mut output = node.client().attach(&id, ReceiverStream::new(sent)).await.unwrap();
    node.client().start_container(&id).await.unwrap();
    input.send(Bytes::from_static(b"one\n")).await.unwrap();
    read_until(&mut output, "one\n").await;
    input.send(Bytes::from_static(b"two\n")).await.unwrap();
    read_until(&mut output, "two\n").await;
    drop(input);
    assert!(output.next().await.is_none());
    let status = pod.exit_of(&id).await;
    assert_eq!(status.exit_code, 0, "{status:?}");
    assert_eq!(pod.log("main"), ["stdout F one", "stdout F two"]);
    let late = node.client().attach(&id, stream::pending()).await.err().unwrap();
    assert_eq!(late.code(), cri::Code::FailedPrecondition);
}

#[tokio::test]
async fn input_given_once_ends_when_its_client_goes() {
    let node = Node::new().await;
    let pod = node.pod("once").await;
    let id = pod
        .start("main", "cat", |config| {
            config.stdin = true;
            config.stdin_once = true;
        })
        .await;
    let first = stream::iter([Bytes::from_static(b"hello\n")]).chain(stream::pending());
    let mut output = node.client().attach(&id, first).await.unwrap();
    read_until(&mut output, "hello\n").await;
    drop(output);
    assert_eq!(pod.exit_of(&id).await.exit_code, 0);
}

#[tokio::test]
async fn input_that_stays_open_outlives_its_client_and_a_guest_without_input_reads_none() {
    let node = Node::new().await;
    let pod = node.pod("open").await;
    let open = pod.start("open", "cat", |config| config.stdin = true).await;
    for text in ["first\n", "second\n"] {
        let input = stream::iter([Bytes::copy_from_slice(text.as_bytes())]).chain(stream::pending());
        let mut output = node.client().attach(&open, input).await.unwrap();
        read_until(&mut output, text).await;
    }
    eventually("both are in the log", async || {
        (pod.log("open") == ["stdout F first", "stdout F second"]).then_some(())
    })
    .await;
    let none = pod.start("none", "cat", |_| {}).await;
    assert_eq!(pod.exit_of(&none).await.exit_code, 0);
}

//! The stream of what happens.

use cri::Code;
use futures::StreamExt;

use crate::bed::Node;

/// More than the runtime keeps for a reader, with what fits into the connection on the way.
const SANDBOXES: usize = 500;

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_so_and_let_go() {
    let node = Node::new().await;
    let mut events = node.client().container_events().await.unwrap();
    for number in 0..SANDBOXES {
        node.pod(&format!("pod-{number}")).await.remove().await;
    }
    let mut told = 0;
    let error = loop {
        match events.next().await.expect("the stream ended without a word") {
            Ok(_event) => told += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::DataLoss, "{error:?}");
    assert!(told < 4 * SANDBOXES && error.message().contains("list the containers"), "{told}: {error:?}");
    assert!(events.next().await.is_none());
}

//! Tests of `channel`.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::fake::Fake;
use crate::wasklet::attach_response::Output;
use crate::wasklet::{AttachRequest, AttachResponse};
use crate::{Client, Code};

#[test]
fn an_endpoint_is_a_path_with_or_without_its_scheme() {
    assert_eq!(socket_path("unix:///run/wasklet.sock"), Ok(PathBuf::from("/run/wasklet.sock")));
    assert_eq!(socket_path("/run/wasklet.sock"), Ok(PathBuf::from("/run/wasklet.sock")));
    assert_eq!(socket_path("here.sock"), Ok(PathBuf::from("here.sock")));
}

#[test]
fn other_endpoints_are_refused_by_name() {
    let refusal = |endpoint: &str| socket_path(endpoint).unwrap_err().to_string();
    assert_eq!(
        refusal("tcp://127.0.0.1:80"),
        "runtime endpoint \"tcp://127.0.0.1:80\": scheme \"tcp\" is not supported; give unix:///PATH or a path"
    );
    assert_eq!(
        refusal("unix://run/wasklet.sock"),
        "runtime endpoint \"unix://run/wasklet.sock\" names no absolute path; give unix:///PATH"
    );
    assert_eq!(refusal(""), "the runtime endpoint is empty; give unix:///PATH or a path");
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_unavailable_and_its_socket_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let client = Client::new(unix(socket.to_str().unwrap()).unwrap());
    let error = client.version().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(error.message().contains(socket.to_str().unwrap()), "{error:?}");
}

#[tokio::test]
async fn the_in_memory_services_end_with_the_last_channel() {
    let fake = Arc::new(Fake::new());
    let weak = Arc::downgrade(&fake);
    let channel = in_memory(routes(fake.clone(), fake.clone(), fake));
    let client = Client::new(channel);
    client.version().await.unwrap();
    assert!(weak.upgrade().is_some());
    drop(client);
    let gone = async {
        while weak.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
}

#[tokio::test]
async fn what_a_runtime_leaves_out_is_unimplemented() {
    use crate::v1::{self, runtime_service_client::RuntimeServiceClient};
    let mut client = RuntimeServiceClient::new(in_memory(Fake::new().routes()));
    let error = client.checkpoint_pod(v1::CheckpointPodRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
}

/// Writes to standard output without end.
struct Torrent;

#[tonic::async_trait]
impl Stdio for Torrent {
    async fn attach(
        &self,
        _: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<tonic::codegen::BoxStream<AttachResponse>>, Status> {
        let chunk = AttachResponse { output: Some(Output::Stdout(Bytes::from(vec![b'x'; 4096]))) };
        Ok(Response::new(stream::repeat(chunk).map(Ok).boxed()))
    }
}

#[tokio::test]
async fn readers_that_sleep_hold_up_no_call() {
    let fake = Arc::new(Fake::new());
    let client = Client::new(in_memory(routes(fake.clone(), fake, Arc::new(Torrent))));
    let reading = async {
        let mut sleeping = Vec::new();
        for _ in 0..200 {
            let mut output = client.attach("torrent", stream::pending()).await.unwrap();
            output.next().await.unwrap().unwrap();
            sleeping.push(output);
        }
        client.version().await.unwrap();
    };
    timeout(Duration::from_secs(30), reading).await.unwrap();
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused() {
    let fake = Fake::new();
    let client = fake.client();
    let fits = "x".repeat(MAX_MESSAGE_BYTES - 1024);
    let error = client.stop_pod_sandbox(&"x".repeat(MAX_MESSAGE_BYTES + 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{}", error.message());
    client.stop_pod_sandbox(&fits).await.unwrap();
}

//! `wasklet.v1.Stdio`: joins the standard streams of a container on the connection that is already there.
//!
//! In come bytes for the guest, held back while it does not read; out go copies of its output, which a client that does
//! not take them loses, and with them the connection. The answers end when the container does.

use std::sync::Arc;

use cri::wasklet::attach_response::Output;
use cri::wasklet::stdio_server::Stdio;
use cri::wasklet::{AttachRequest, AttachResponse};
use futures::stream;
use tokio::task::JoinHandle;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::container::Container;
use crate::container::stdio::Piece;
use crate::log::Stream;
use crate::runtime::Runtime;
use crate::service::Answer;
use crate::service::error::ServiceError;

#[tonic::async_trait]
impl Stdio for Runtime {
    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Answer<BoxStream<AttachResponse>> {
        let mut input = request.into_inner();
        let first = input.message().await?.ok_or_else(|| Status::invalid_argument("container_id: missing"))?;
        let container = self.core.registry().container(&first.container_id)?;
        let output = container.stdio.attach().ok_or_else(|| ServiceError::WrongState {
            id: container.id.clone(),
            state: container.state.borrow().name(),
        })?;
        let attached = Attached { pump: tokio::spawn(pump(first, input, Arc::clone(&container))), container };
        // The pump goes with the answers: they end with the container, or are dropped when the client goes.
        let state = Some((output, attached));
        let answers = stream::unfold(state, |state| async move {
            let (mut output, attached) = state?;
            match output.recv().await {
                Some(piece) => Some((Ok(answer(piece)), Some((output, attached)))),
                None if attached.container.stdio.is_open() => Some((Err(too_slow()), None)),
                None => None,
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// One client's hold on a container.
struct Attached {
    pump: JoinHandle<()>,
    container: Arc<Container>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.pump.abort();
        self.container.stdio.detached();
    }
}

/// Carries input to the guest. The end of the requests alone is not the end of input: a client may only want to listen.
async fn pump(first: AttachRequest, mut input: Streaming<AttachRequest>, container: Arc<Container>) {
    let mut next = Some(first);
    while let Some(message) = next {
        if !message.stdin.is_empty() {
            container.stdio.write_stdin(message.stdin).await;
        }
        if message.close_stdin {
            container.stdio.close_stdin();
        }
        next = match input.message().await {
            Ok(message) => message,
            Err(status) => {
                tracing::debug!(container = %container.id, %status, "an attached client broke off");
                None
            }
        };
    }
}

/// What a client is told that was let go while the container goes on.
fn too_slow() -> Status {
    Status::resource_exhausted(
        "the output came faster than it was read: attach again; all of it is in the container's log",
    )
}

fn answer((stream, bytes): Piece) -> AttachResponse {
    let output = match stream {
        Stream::Stdout => Output::Stdout(bytes),
        Stream::Stderr => Output::Stderr(bytes),
    };
    AttachResponse { output: Some(output) }
}

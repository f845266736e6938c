//! `Stdio`: every container of the fake gives back what it is sent.

use std::future;

use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use super::Fake;
use super::state::{Container, ContainerStage};
use crate::wasklet::attach_response::Output;
use crate::wasklet::{AttachRequest, AttachResponse, stdio_server::Stdio};

type Answers = tonic::codegen::BoxStream<AttachResponse>;

#[tonic::async_trait]
impl Stdio for Fake {
    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Result<Response<Answers>, Status> {
        let mut incoming = request.into_inner();
        let id = match incoming.message().await? {
            Some(first) if !first.container_id.is_empty() => first.container_id,
            _ => return Err(Status::invalid_argument("the first message names no container")),
        };
        let name = self.state().container_name(&id);
        self.enter("Attach", &name).await?;
        if matches!(self.state().container(&id)?.stage, ContainerStage::Exited(_)) {
            return Err(Status::failed_precondition(format!("container {id} has ended")));
        }
        let fake = self.clone();
        let ended = async move {
            fake.until(|state| {
                let alive = |found: &Container| !matches!(found.stage, ContainerStage::Exited(_));
                !state.containers.get(&id).is_some_and(alive)
            })
            .await;
        };
        let echo = incoming
            .take_while(|message| future::ready(!matches!(message, Ok(AttachRequest { close_stdin: true, .. }))))
            .filter_map(|message| {
                future::ready(match message {
                    Ok(message) if message.stdin.is_empty() => None,
                    Ok(message) => Some(Ok(AttachResponse { output: Some(Output::Stdout(message.stdin)) })),
                    Err(status) => Some(Err(status)),
                })
            })
            // A guest that has no more input is still a guest.
            .chain(stream::pending())
            .take_until(ended);
        Ok(Response::new(Box::pin(echo)))
    }
}

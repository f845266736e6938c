//! The kubelet's side of the seam: one method for each call it makes, each with its timeout.
//!
//! In come ids and CRI messages, out go the parts of the answers that matter, or a `CallError` that names the call and
//! the object. Never here: a second try.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::channel::MAX_MESSAGE_BYTES;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::wasklet::stdio_client::StdioClient;

mod containers;
mod images;
mod runtime;
mod sandboxes;

/// How long a call may take unless its method says otherwise: the kubelet's `runtimeRequestTimeout`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2 * 60);

/// A call that failed: on the way, in time, or in the runtime.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{call} {object} failed")]
pub struct CallError {
    /// CRI's name of the call, as in `StartContainer`.
    pub call: &'static str,
    /// The id or name of what the call was about.
    pub object: String,
    /// What the runtime, or the way to it, answered.
    pub source: Status,
}

impl CallError {
    /// The gRPC code of the answer.
    #[must_use]
    pub fn code(&self) -> Code {
        self.source.code()
    }

    /// What the runtime said, without the code.
    #[must_use]
    pub fn message(&self) -> &str {
        self.source.message()
    }

    /// The runtime knows of no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// The runtime could not be reached. Nothing is known of what the call did.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.code() == Code::Unavailable
    }
}

/// Why a command in a container gave no exit code.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecError {
    /// It ran longer than it may. The runtime has stopped it, unless it gave no answer at all.
    #[error("command {command:?} timed out")]
    TimedOut {
        /// The command, its words joined by spaces.
        command: String,
        /// How long it could run.
        limit: Duration,
    },
    /// The call failed: there is no such container, it does not run, or it has no such command.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A runtime as the kubelet sees it. Clones share one connection.
#[derive(Clone)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    stdio: StdioClient<Channel>,
    request_timeout: Duration,
    observer: Option<Observer>,
}

/// Who hears of every call that has ended: its name in CRI, how long it took, and whether it failed.
pub type Observer = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

impl Client {
    /// A client whose calls may take [`REQUEST_TIMEOUT`].
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self::with_request_timeout(channel, REQUEST_TIMEOUT)
    }

    /// A client whose calls may take `request_timeout`, unless their method says otherwise.
    #[must_use]
    pub fn with_request_timeout(channel: Channel, request_timeout: Duration) -> Self {
        // What is too large to send the runtime refuses, in words; a refusal of ours would only reset the stream.
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            stdio: StdioClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
            request_timeout,
            observer: None,
        }
    }

    /// The same client, whose calls `observer` hears of.
    #[must_use]
    pub fn observed_by(self, observer: Observer) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// One call with the usual timeout.
    fn call<'a, T: 'a>(
        &'a self,
        call: &'static str,
        object: &'a str,
        answer: impl Future<Output = Result<Response<T>, Status>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, CallError>> {
        self.within(self.request_timeout, call, object, answer)
    }

    /// One call that may take `limit`. Past it the call is cancelled, which the runtime sees.
    fn within<'a, T: 'a>(
        &'a self,
        limit: Duration,
        call: &'static str,
        object: &'a str,
        answer: impl Future<Output = Result<Response<T>, Status>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, CallError>> {
        self.heard(call, object, async move {
            time::timeout(limit, answer).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs_f64())))
            })
        })
    }

    /// One call that takes what it takes. Boxed, so that the future of whoever makes many calls stays small.
    fn heard<'a, T: 'a>(
        &'a self,
        call: &'static str,
        object: &'a str,
        answer: impl Future<Output = Result<Response<T>, Status>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, CallError>> {
        Box::pin(async move {
            let began = time::Instant::now();
            let result = answer.await;
            if let Some(observer) = &self.observer {
                observer(call, began.elapsed(), result.is_err());
            }
            result.map(Response::into_inner).map_err(|source| failed(call, object, source))
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("request_timeout", &self.request_timeout).finish_non_exhaustive()
    }
}

fn failed(call: &'static str, object: &str, source: Status) -> CallError {
    CallError { call, object: object.to_owned(), source }
}

/// An answer without the part it is made for.
fn incomplete(call: &'static str, object: &str, missing: &str) -> CallError {
    failed(call, object, Status::internal(format!("the runtime's answer has no {missing}")))
}

#[cfg(test)]
mod tests;

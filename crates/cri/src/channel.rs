//! Channels to a runtime, and what both ends of one agree on.
//!
//! In comes a runtime's services or the endpoint of a socket, out goes a `Channel` that connects at its first call and
//! again after each loss. Never here: a retry of a call; whoever made the call knows whether it may be made twice.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::ConnectError;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server, Uri};

use crate::v1::image_service_server::{ImageService, ImageServiceServer};
use crate::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::wasklet::stdio_server::{Stdio, StdioServer};

/// The largest message either end accepts, in bytes. The kubelet's own limit for CRI is the same.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// What stdout and stderr of an ExecSync hold together, in bytes; a runtime discards the rest. CRI's limit is that of a
/// message, which the answer must fit with its other fields.
pub const MAX_EXEC_OUTPUT_BYTES: usize = MAX_MESSAGE_BYTES - 1024;

/// How long a dial of a Unix socket may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What one stream may have on the way before its reader takes it. Small beside `CONNECTION_WINDOW_BYTES`, so that an
/// attach whose reader sleeps holds up itself and never the calls that share its connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// What all streams of a connection together may have on the way: room for a thousand sleeping readers.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * STREAM_WINDOW_BYTES;

/// Calls under way on one connection. A stop lasts as long as its grace period, and a node may stop all its pods at once.
const MAX_CONCURRENT_STREAMS: u32 = 16 * 1024;

/// What a pipe of the in-memory channel holds in each direction, in bytes.
const PIPE_BYTES: usize = 64 * 1024;

/// An endpoint that names no Unix socket.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointError {
    /// Nothing was given.
    #[error("the runtime endpoint is empty; give unix:///PATH or a path")]
    Empty,
    /// A scheme other than `unix`.
    #[error("runtime endpoint {endpoint:?}: scheme {scheme:?} is not supported; give unix:///PATH or a path")]
    Scheme {
        /// The endpoint as it was given.
        endpoint: String,
        /// What stands before its `://`.
        scheme: String,
    },
    /// `unix://` with a host in it, or with no path after it.
    #[error("runtime endpoint {endpoint:?} names no absolute path; give unix:///PATH")]
    Path {
        /// The endpoint as it was given.
        endpoint: String,
    },
}

/// Puts a runtime's services together, with the seam's limits.
pub fn routes<R, I, S>(runtime: Arc<R>, images: Arc<I>, stdio: Arc<S>) -> Routes
where
    R: RuntimeService,
    I: ImageService,
    S: Stdio,
{
    Routes::new(
        RuntimeServiceServer::from_arc(runtime)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
    .add_service(
        ImageServiceServer::from_arc(images)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
    .add_service(
        StdioServer::from_arc(stdio)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
}

/// A channel to services in this process, over a pipe. A pipe that broke is replaced at the next call. The services end
/// when the last clone of the channel is gone. Must be called inside a Tokio runtime, which then also runs the services.
#[must_use]
pub fn in_memory(routes: Routes) -> Channel {
    let (pipes, accepted) = mpsc::channel::<DuplexStream>(1);
    let incoming = ReceiverStream::new(accepted).map(Ok::<_, io::Error>);
    tokio::spawn(async move {
        if let Err(error) = server().add_routes(routes).serve_with_incoming(incoming).await {
            tracing::error!(%error, "the in-memory runtime service ended");
        }
    });
    // The name is for logs alone: nothing resolves it.
    endpoint("http://in-memory.invalid").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let pipes = pipes.clone();
        async move {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            pipes.send(far).await.map_err(|_| ConnectError("the in-memory runtime service has ended".into()))?;
            Ok::<_, ConnectError>(TokioIo::new(near))
        }
    }))
}

/// A channel to a runtime that listens on a Unix socket, named `unix:///PATH` or by its path alone. It connects at its
/// first call: a runtime that is not there yet is an `UNAVAILABLE` of that call, which names the socket.
///
/// # Errors
/// An endpoint of another kind.
pub fn unix(endpoint_name: &str) -> Result<Channel, EndpointError> {
    let path = socket_path(endpoint_name)?;
    Ok(endpoint("http://unix.invalid")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| dial(path.clone()))))
}

async fn dial(path: PathBuf) -> Result<TokioIo<UnixStream>, ConnectError> {
    match UnixStream::connect(&path).await {
        Ok(stream) => Ok(TokioIo::new(stream)),
        Err(error) => Err(ConnectError(format!("dialing runtime socket {}: {error}", path.display()).into())),
    }
}

/// The path that an endpoint names.
///
/// # Errors
/// An endpoint that names no Unix socket.
pub fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    if endpoint.is_empty() {
        return Err(EndpointError::Empty);
    }
    let Some((scheme, path)) = endpoint.split_once("://") else {
        return Ok(PathBuf::from(endpoint));
    };
    if scheme != "unix" {
        return Err(EndpointError::Scheme { endpoint: endpoint.to_owned(), scheme: scheme.to_owned() });
    }
    if !Path::new(path).is_absolute() {
        return Err(EndpointError::Path { endpoint: endpoint.to_owned() });
    }
    Ok(PathBuf::from(path))
}

fn endpoint(name: &'static str) -> Endpoint {
    Endpoint::from_static(name)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// A server with the seam's limits, for either kind of channel.
pub(crate) fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
}

#[cfg(test)]
mod tests;

//! Serving an HTTP guest: a listener at the pod's address comes in, answered requests go out, until it is stopped.
//!
//! ```text
//!   listener ─► connection (at most 1,024) ─► request (at most 256, and as many as the pool has instances)
//!                                              └─► a fresh instance: a trap is a 500 and a line on stderr
//! ```
//! Each request has an instance of its own and shares nothing with others but the container's limits and sinks. A
//! client that leaves before its answer began ends its instance; one that leaves later is seen by the guest as a
//! closed stream. Only HTTP/1.1 is spoken. Nothing is retried.

mod application;
mod handler;
mod p3;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::{Exit, OutputSink, StartError, Stdin, Streams, Termination};
use crate::engine::Engines;
use crate::limits::{Metered, Metering, PollCount, yield_at_ticks};
use crate::wasi::network::{Everywhere, Protocol};
use crate::wasi::stdio::{Input, Output, Pieces};
use crate::wasi::{Host, Stdio, Surroundings};
pub(super) use application::Routed;
pub(super) use handler::Handler;

/// Connections one guest holds at a time; more wait in the listener's queue.
const CONNECTIONS: usize = 1_024;
/// Requests of one guest that run at a time.
const REQUESTS: usize = 256;
/// How long a request waits for its turn before it is answered with 503.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send its request's head, and a connection may stay idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long accepting pauses when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener and all that its requests need.
pub(super) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    site: Site,
    /// Keeps the port reachable at the pod's 127.0.0.1.
    _everywhere: Everywhere,
}

/// Who answers which requests.
#[derive(Clone)]
enum Site {
    /// The guest, all of them.
    Guest(Arc<Shared>),
    /// The components of a Spin application, by its routes.
    Application(Arc<application::Site>),
}

impl Site {
    async fn answer(&self, request: Request<Incoming>, from: SocketAddr) -> Response<HyperOutgoingBody> {
        match self {
            Self::Guest(guest) => Arc::clone(guest).answer(request).await,
            Self::Application(application) => application.answer(request, from).await,
        }
    }
}

struct Shared {
    handler: Handler,
    args: Vec<String>,
    surroundings: Arc<Surroundings>,
    stdout: OutputSink,
    stderr: OutputSink,
    tty: bool,
    metering: Arc<Metering>,
    termination: Termination,
    requests: Arc<Semaphore>,
    /// Over all guests of the process: what the pool has room for.
    instances: Arc<Semaphore>,
    tracker: TaskTracker,
    /// Ends every request at once.
    abort: CancellationToken,
    /// What ends the whole guest.
    fatal: watch::Sender<Option<Exit>>,
}

/// What each request is run with, and where requests come in.
pub(super) struct Served {
    pub(super) args: Vec<String>,
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) streams: Streams,
    pub(super) port: u16,
    pub(super) termination: Termination,
    /// The application that the guest is the first component of.
    pub(super) application: Option<Routed>,
}

/// Binds the listener and opens each mount once, so that what cannot work fails here and not in every request.
pub(super) fn prepare(
    engines: &Engines,
    handler: Handler,
    served: Served,
    metering: Arc<Metering>,
    tracker: TaskTracker,
) -> Result<Server, StartError> {
    let Served { args, surroundings, streams, port, termination, application } = served;
    // There is no input for requests that run beside one another.
    let Streams { stdin: _, stdout, stderr, tty } = streams;
    let network = Arc::clone(&surroundings.network);
    let address = network.published(Protocol::Tcp, port);
    let bound = bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|source| StartError::Listen { address, source })?;
    let shared = Shared {
        handler,
        args,
        surroundings,
        stdout,
        stderr,
        tty,
        metering,
        termination,
        requests: Arc::new(Semaphore::new(REQUESTS)),
        instances: Arc::clone(&engines.http_instances),
        tracker,
        abort: CancellationToken::new(),
        fatal: watch::Sender::new(None),
    };
    shared.host(&shared.stdio())?;
    let shared = Arc::new(shared);
    let site = match application {
        None => Site::Guest(Arc::clone(&shared)),
        Some(Routed { router, answers, about, others }) => {
            let mut parts = vec![Arc::clone(&shared)];
            for (id, handler, surroundings) in others {
                let part = shared.beside(id, handler, surroundings);
                part.host(&part.stdio())?;
                parts.push(Arc::new(part));
            }
            Site::Application(Arc::new(application::Site { router, answers, about, parts }))
        }
    };
    let everywhere = network.listen_everywhere(Protocol::Tcp, port, reachable(address));
    Ok(Server { listener, address, shared, site, _everywhere: everywhere })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Where a client on this node finds a listener bound here.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, bound.port())
}

impl Server {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is asked to end, then finishes what was begun. Dropping it ends all at once.
    pub(super) async fn serve(self) -> Exit {
        let stop = self.shared.termination.asked().clone();
        let _all_requests_end_with_this = self.shared.abort.clone().drop_guard();
        let mut fatal = self.shared.fatal.subscribe();
        let served = self.serve_until(&stop);
        tokio::select! {
            biased;
            ended = fatal.wait_for(Option::is_some) => match ended {
                Ok(exit) => exit.clone().unwrap_or(Exit::Killed),
                Err(_) => Exit::Killed,
            },
            () = served => Exit::Code(0),
        }
    }

    async fn serve_until(self, stop: &CancellationToken) {
        let Server { listener, shared, site, _everywhere, .. } = self;
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accept(&listener, &room) => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((connected, place)) => {
                    connections.spawn(connection(site.clone(), connected, place, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!("HTTP guest: cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // No longer listening, nor found at the pod's 127.0.0.1.
        drop((listener, _everywhere));
        while connections.join_next().await.is_some() {}
        // A guest may go on working after its answer is sent.
        shared.tracker.close();
        shared.tracker.wait().await;
    }
}

/// A connection, and from where it comes.
type Connected = (TcpStream, SocketAddr);

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<(Connected, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, from) = listener.accept().await?;
    // Answers are small and go out whole; waiting to fill a packet only delays them.
    stream.set_nodelay(true)?;
    Ok(((stream, from), place))
}

async fn connection(site: Site, connected: Connected, _place: OwnedSemaphorePermit, stop: CancellationToken) {
    let (stream, from) = connected;
    let service = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(request, from).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        // Clients leave as they please.
        tracing::debug!("HTTP guest: connection ended: {error}");
    }
}

/// A request's leave to run.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// The guest's answer to one request: a response, or the error it chose.
type Answer<E> = Result<Response<HyperOutgoingBody>, E>;

/// What one request holds while it runs.
struct Running {
    turn: Turn,
    /// How the request is called in the log.
    line: String,
    stdio: Stdio,
    polls: PollCount,
}

impl Shared {
    /// What answers beside this one, within the same limits.
    fn beside(&self, id: String, handler: Handler, surroundings: Arc<Surroundings>) -> Self {
        Self {
            handler,
            surroundings,
            args: vec![id],
            stdout: self.stdout.clone(),
            stderr: self.stderr.clone(),
            tty: self.tty,
            metering: Arc::clone(&self.metering),
            termination: self.termination.clone(),
            requests: Arc::clone(&self.requests),
            instances: Arc::clone(&self.instances),
            tracker: self.tracker.clone(),
            abort: self.abort.clone(),
            fatal: self.fatal.clone(),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<HyperOutgoingBody> {
        let turn = async {
            let mine = Arc::clone(&self.requests).acquire_owned().await.ok()?;
            Some((mine, Arc::clone(&self.instances).acquire_owned().await.ok()?))
        };
        match tokio::time::timeout(TURN_TIMEOUT, turn).await {
            Ok(Some(turn)) => self.run(request, turn).await,
            Ok(None) | Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests are running\n"),
        }
    }

    /// Runs the request in an instance of its own.
    async fn run(self: Arc<Self>, request: Request<Incoming>, turn: Turn) -> Response<HyperOutgoingBody> {
        let line = format!("{} {}", request.method(), request.uri().path());
        let stdio = self.stdio();
        let polls = PollCount::default();
        let mut store = match self.host(&stdio) {
            Ok(host) => Store::new(self.handler.engine(), host),
            Err(error) => {
                stdio.error.write_line(&format!("{line}: {error}")).await;
                return plain(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be run\n");
            }
        };
        store.limiter(|host| &mut host.memory);
        yield_at_ticks(&mut store, &polls);
        let running = Running { turn, line, stdio, polls };
        match self.handler.clone() {
            Handler::P2(proxy) => self.run_p2(proxy, store, request, running).await,
            Handler::P3(service) => {
                let Some(request) = p3::addressed(request) else { return nameless() };
                let (answer, answered) = oneshot::channel();
                let task = self.begin(p3::handle(service, store, request, answer), running);
                response(answered, task).await
            }
        }
    }

    async fn run_p2(
        self: Arc<Self>,
        proxy: ProxyPre<Host>,
        mut store: Store<Host>,
        request: Request<Incoming>,
        running: Running,
    ) -> Response<HyperOutgoingBody> {
        let (answer, answered) = oneshot::channel();
        let mut http = store.data_mut().http();
        let Ok(incoming) = http.new_incoming_request(Scheme::Http, request) else { return nameless() };
        let Ok(outparam) = http.new_response_outparam(answer) else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be run\n");
        };
        let handle = async move {
            let instance = proxy.instantiate_async(&mut store).await?;
            instance.wasi_http_incoming_handler().call_handle(&mut store, incoming, outparam).await
        };
        let task = self.begin(handle, running);
        response::<ErrorCode>(answered, task).await
    }

    /// Runs an instance in a task of its own, because a guest may go on after its answer began. Until then the task lives
    /// and dies with this client's patience.
    fn begin(
        self: &Arc<Self>,
        handle: impl Future<Output = wasmtime::Result<()>> + Send + 'static,
        running: Running,
    ) -> AbortOnDropHandle<StatusCode> {
        let Running { turn, line, stdio, polls } = running;
        let shared = Arc::clone(self);
        let work = async move {
            let ended = AssertUnwindSafe(handle).catch_unwind().await;
            let status = shared.judge(ended, &line, &stdio).await;
            drop(turn);
            status
        };
        let work = Metered::new(Arc::clone(&self.metering), polls, work);
        let abort = self.abort.clone();
        let task = self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = abort.cancelled() => StatusCode::SERVICE_UNAVAILABLE,
                status = work => status,
            }
        });
        AbortOnDropHandle::new(task)
    }

    /// What the end of a request's instance means; the status is for a client that has no answer yet.
    async fn judge(
        &self,
        ended: Result<wasmtime::Result<()>, Box<dyn std::any::Any + Send>>,
        line: &str,
        stdio: &Stdio,
    ) -> StatusCode {
        let mut status = StatusCode::INTERNAL_SERVER_ERROR;
        let exit = match ended {
            Ok(Ok(())) => Exit::Code(0),
            // The others are not to end with this one, as they would if the whole container were out of memory.
            Ok(Err(error)) if is_crowded(&error) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                Exit::Trap { message: format!("{error:#}") }
            }
            Ok(Err(error)) => Exit::from_error(&error),
            Err(panic) => Exit::from_panic(panic.as_ref()),
        };
        if let Some(complaint) = exit.complaint() {
            stdio.error.write_line(&format!("{line}: {complaint}")).await;
        }
        stdio.output.finish().await;
        stdio.error.finish().await;
        // One instance that alone outgrows the container's limit, or a bug of ours: the container ends, as on Linux.
        if matches!(exit, Exit::OutOfMemory | Exit::HostPanic { .. }) {
            self.fatal.send_replace(Some(exit));
        }
        status
    }

    fn stdio(&self) -> Stdio {
        Stdio {
            input: Input::new(Stdin::Empty, self.tty),
            output: Output::new(self.stdout.clone(), self.tty, Pieces::Lines),
            error: Output::new(self.stderr.clone(), self.tty, Pieces::Lines),
        }
    }

    fn host(&self, stdio: &Stdio) -> Result<Host, StartError> {
        let (memory, termination) = (self.metering.store_memory(), self.termination.clone());
        self.surroundings.host(&self.args, stdio.clone(), memory, termination)
    }
}

/// Whether a request failed only because others ran at the same time.
fn is_crowded(error: &wasmtime::Error) -> bool {
    error.is::<wasmtime::PoolConcurrencyLimitError>()
        || error.chain().any(<dyn std::error::Error>::is::<crate::limits::MemoryShared>)
}

/// The guest's answer, or what its end without one means.
async fn response<E: std::fmt::Debug>(
    answered: oneshot::Receiver<Answer<E>>,
    task: AbortOnDropHandle<StatusCode>,
) -> Response<HyperOutgoingBody> {
    match answered.await {
        Ok(Ok(response)) => {
            // From here on the guest finishes by itself.
            task.detach();
            response
        }
        Ok(Err(error)) => {
            task.detach();
            tracing::debug!("HTTP guest: answered with an error: {error:?}");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the guest answered with an error\n")
        }
        Err(_) => {
            let status = task.await.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            plain(status, "the guest ended without an answer\n")
        }
    }
}

fn nameless() -> Response<HyperOutgoingBody> {
    plain(StatusCode::BAD_REQUEST, "the request names no host\n")
}

fn plain(status: StatusCode, text: &'static str) -> Response<HyperOutgoingBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, text);
    response
}

//! Serving an HTTP guest: a listener at the pod's address comes in, answered requests go out, until it is stopped.
//!
//! ```text
//!   listener ─► connection (at most 1,024) ─► request (at most 256, and as many as the pool has instances)
//!                                              └─► an instance: a trap is a 500 and a line on stderr
//! ```
//! Each request to a handler of WASI 0.2 has an instance of its own and shares nothing with others but the container's
//! limits and sinks, unless the pod asks for [`instances`] that answer several, one after the other. Those of 0.3 answer
//! several beside one another ([`concurrent`]), unless the pod asks for one each. A client that leaves before its answer
//! began ends its instance, once others in it are served; one that leaves later is seen by the guest as a closed stream.
//! Only HTTP/1.1 is spoken. Nothing is retried.

mod application;
mod concurrent;
mod handler;
mod instances;
mod request;

use std::convert::Infallible;
use std::fmt::Debug;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::{Exit, Http, OutputSink, StartError, Streams, Termination};
use crate::engine::Engines;
use crate::limits::Metering;
use crate::wasi::Surroundings;
use crate::wasi::network::{Everywhere, Protocol};
pub(super) use application::Routed;
pub(super) use handler::Handler;
use handler::Instances;

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
    fn parts(&self) -> &[Arc<Shared>] {
        match self {
            Self::Guest(guest) => std::slice::from_ref(guest),
            Self::Application(application) => &application.parts,
        }
    }

    async fn answer(&self, request: Request<Incoming>, from: SocketAddr) -> Response<HyperOutgoingBody> {
        match self {
            Self::Guest(guest) => Arc::clone(guest).answer(request).await,
            Self::Application(application) => application.answer(request, from).await,
        }
    }
}

struct Shared {
    instances: Instances,
    args: Vec<String>,
    surroundings: Arc<Surroundings>,
    stdout: OutputSink,
    stderr: OutputSink,
    tty: bool,
    metering: Arc<Metering>,
    termination: Termination,
    requests: Arc<Semaphore>,
    /// Over all guests of the process: what the pool has room for.
    slots: Arc<Semaphore>,
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
    pub(super) http: Http,
    pub(super) termination: Termination,
    /// The application that the guest is the first component of.
    pub(super) application: Option<Routed>,
}

/// Binds the listener.
pub(super) fn prepare(
    engines: &Engines,
    handler: Handler,
    served: Served,
    metering: Arc<Metering>,
    tracker: TaskTracker,
) -> Result<Server, StartError> {
    let Served { args, surroundings, streams, http: Http { port, requests_per_instance }, termination, application } =
        served;
    // There is no input for requests that run beside one another.
    let Streams { stdin: _, stdout, stderr, tty } = streams;
    let network = Arc::clone(&surroundings.network);
    let address = network.published(Protocol::Tcp, port);
    let bound = bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|source| StartError::Listen { address, source })?;
    let instances = |handler| Instances::new(handler, requests_per_instance, Arc::clone(&engines.idle_instances));
    let shared = Shared {
        instances: instances(handler),
        args,
        surroundings,
        stdout,
        stderr,
        tty,
        metering,
        termination,
        requests: Arc::new(Semaphore::new(REQUESTS)),
        slots: Arc::clone(&engines.http_instances),
        tracker,
        abort: CancellationToken::new(),
        fatal: watch::Sender::new(None),
    };
    let shared = Arc::new(shared);
    let site = match application {
        None => Site::Guest(Arc::clone(&shared)),
        Some(Routed { router, answers, about, others }) => {
            let mut parts = vec![Arc::clone(&shared)];
            for (id, handler, surroundings) in others {
                parts.push(Arc::new(shared.beside(id, instances(handler), surroundings)));
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
        let mut expirations = JoinSet::new();
        for part in site.parts().iter().filter(|part| part.instances.are_shared()).map(Arc::clone) {
            expirations.spawn(async move { part.instances.expire().await });
        }
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accept(&listener, &room) => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((connected, place)) => {
                    let connection = connection(site.clone(), connected, place, stop.clone());
                    connections.spawn(shared.tracker.track_future(connection));
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
        site.parts().iter().for_each(|part| part.instances.retire());
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

impl Shared {
    /// What answers beside this one, within the same limits.
    fn beside(&self, id: String, instances: Instances, surroundings: Arc<Surroundings>) -> Self {
        Self {
            instances,
            surroundings,
            args: vec![id],
            stdout: self.stdout.clone(),
            stderr: self.stderr.clone(),
            tty: self.tty,
            metering: Arc::clone(&self.metering),
            termination: self.termination.clone(),
            requests: Arc::clone(&self.requests),
            slots: Arc::clone(&self.slots),
            tracker: self.tracker.clone(),
            abort: self.abort.clone(),
            fatal: self.fatal.clone(),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<HyperOutgoingBody> {
        let turn = async {
            let mine = Arc::clone(&self.requests).acquire_owned().await.ok()?;
            Some((mine, Arc::clone(&self.slots).acquire_owned().await.ok()?))
        };
        match tokio::time::timeout(TURN_TIMEOUT, turn).await {
            Ok(Some(turn)) => self.run(request, turn).await,
            Ok(None) | Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests are running\n"),
        }
    }
}

fn nameless() -> Response<HyperOutgoingBody> {
    plain(StatusCode::BAD_REQUEST, "the request names no host\n")
}

fn failed(error: &impl Debug) -> Response<HyperOutgoingBody> {
    tracing::debug!("HTTP guest: answered with an error: {error:?}");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "the guest answered with an error\n")
}

fn plain(status: StatusCode, text: &'static str) -> Response<HyperOutgoingBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, text);
    response
}

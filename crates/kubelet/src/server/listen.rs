//! Connections: accepted, bounded in number and in patience, ended in order.
//!
//! In comes a listening socket, out go requests to the router, each with the user its connection's certificate names.
//! Never here: what a request means.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinSet,
    time,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::{authenticate::User, tls::Tls};

/// Connections at once; beyond it new ones wait to be accepted.
const MOST_CONNECTIONS: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request's head may take to arrive, and the first request of a connection altogether.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// HTTP/2: how often a quiet client is asked whether it is still there, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const MOST_STREAMS: u32 = 250;
/// How long requests under way may take to finish when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after an accept that failed, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The user that the connection's certificate names, if it has one.
#[derive(Debug, Clone)]
pub(super) struct ConnectionUser(pub(super) Option<Arc<User>>);

/// Serves until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    mut tls: Tls,
    router: Router,
    reload_every: Duration,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut reload = time::interval(reload_every);
    reload.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            _ = reload.tick() => {
                tls.reload();
                continue;
            }
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let connection = Connection {
                    acceptor: TlsAcceptor::from(tls.current()),
                    router: router.clone(),
                    watcher: graceful.watcher(),
                };
                connections.spawn(async move {
                    if let Err(error) = connection.serve(stream).await {
                        debug!("a connection to the kubelet's API ended: {error}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!("accepting a connection to the kubelet's API: {error}");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // What is not over by then ends with the set of connections.
    if time::timeout(STOP_TIMEOUT, graceful.shutdown()).await.is_err() {
        debug!("requests of the kubelet's API were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

/// Why a connection ended before its client wanted it to.
type Broken = Box<dyn std::error::Error + Send + Sync>;

struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    watcher: Watcher,
}

impl Connection {
    async fn serve(self, stream: TcpStream) -> Result<(), Broken> {
        let stream = time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let user = ConnectionUser(certificate.and_then(User::of_certificate).map(Arc::new));
        requests(stream, user, self.router, self.watcher).await
    }
}

/// Answers requests until the client goes. One that asks nothing keeps a place that others need, and is let go.
async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    user: ConnectionUser,
    router: Router,
    watcher: Watcher,
) -> Result<(), Broken> {
    let asked = Arc::new(Notify::new());
    let asks = Arc::clone(&asked);
    let service = router.map_request(move |mut request: http::Request<Incoming>| {
        asks.notify_one();
        request.extensions_mut().insert(user.clone());
        request
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MOST_STREAMS);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(watcher.watch(connection));
    // Neither telling HTTP/1 from HTTP/2 nor the latter's preface has a limit of its own.
    tokio::select! {
        ended = &mut connection => return ended,
        first = time::timeout(HEADER_TIMEOUT, asked.notified()) => first?,
    }
    connection.await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    async fn served(said: &str, router: Router) -> (DuplexStream, Result<(), Broken>) {
        let (mut client, stream) = duplex(4096);
        client.write_all(said.as_bytes()).await.unwrap();
        let graceful = GracefulShutdown::new();
        let ended = requests(stream, ConnectionUser(None), router, graceful.watcher()).await;
        (client, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_nothing_is_let_go() {
        for said in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /healthz HT"] {
            let served = time::timeout(HEADER_TIMEOUT * 2, served(said, Router::new())).await;
            let (_client, ended) = served.unwrap_or_else(|_| panic!("{said:?} keeps its place"));
            assert!(ended.is_err(), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_asked_may_wait_for_the_answer() {
        let slow = get(async || {
            time::sleep(HEADER_TIMEOUT * 3).await;
            "at last"
        });
        let said = "GET / HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
        let (mut client, ended) = served(said, Router::new().route("/", slow)).await;
        ended.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("at last"), "{answer}");
    }
}

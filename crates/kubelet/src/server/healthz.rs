//! `/healthz`: whether the kubelet still does its work.
//!
//! Here also is the plain listener on 127.0.0.1:10248, which says nothing else and asks nobody who they are.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::debug;

use super::{ServerError, pods::Pods};

/// Connections at once, and how long each may last: a probe needs one for a moment.
const MOST_CONNECTIONS: usize = 32;
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn ping() -> Response {
    text(StatusCode::OK, "ok")
}

pub(super) fn sync_loop(pods: &dyn Pods) -> Response {
    if pods.is_alive() {
        ping()
    } else {
        text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: the kubelet's loop stands still\n")
    }
}

pub(super) fn all(pods: &dyn Pods) -> Response {
    if pods.is_alive() {
        return ping();
    }
    let report = "[+]ping ok\n[+]log ok\n[-]syncloop failed: the kubelet's loop stands still\nhealthz check failed\n";
    text(StatusCode::INTERNAL_SERVER_ERROR, report)
}

fn text(code: StatusCode, text: &'static str) -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    (code, [(CONTENT_TYPE, plain)], text).into_response()
}

/// Opens the plain `/healthz`; it stays open until the returned address's task, which runs for the process's life, ends.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve_healthz(address: SocketAddr, pods: Arc<dyn Pods>) -> Result<SocketAddr, ServerError> {
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let routes = Router::new()
        .route("/healthz", get(|pods: axum::extract::State<Arc<dyn Pods>>| async move { all(&**pods) }))
        .route("/healthz/ping", get(async || ping()))
        .route("/healthz/syncloop", get(|pods: axum::extract::State<Arc<dyn Pods>>| async move { sync_loop(&**pods) }))
        .with_state(pods);
    tokio::spawn(listen(listener, routes));
    Ok(local)
}

async fn listen(listener: TcpListener, routes: Router) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("accepting a connection to /healthz: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            let connection = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(permit);
        });
    }
}

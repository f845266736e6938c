//! Paths and answers.
//!
//! In come requests, out go answers. Before any path is looked at, the request is counted, its user found and judged: what
//! does not exist is not told to strangers either.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Path, Query, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use jiff::Timestamp;
use k8s_openapi::{List, api::core::v1::Pod};
use tracing::{debug, warn};

use super::{
    authenticate::Authenticator,
    authorize::{Attributes, Authorizer},
    healthz,
    listen::ConnectionUser,
    logs::{self, Refusal, Wanted},
    pods::{LogError, Pods, container_with_log},
};
use crate::{
    config::Config,
    metrics::{Metrics, PodCounts},
};

/// What the handlers share.
pub(super) struct Shared {
    pub(super) authenticator: Authenticator,
    pub(super) authorizer: Authorizer,
    pub(super) config: Arc<Config>,
    pub(super) pods: Arc<dyn Pods>,
    pub(super) metrics: Arc<Metrics>,
}

type App = State<Arc<Shared>>;

/// Paths that reach into pods or show the node's inside; `enableDebuggingHandlers: false` closes them.
const DEBUGGING: [&str; 8] =
    ["attach", "checkpoint", "containerLogs", "exec", "logs", "portForward", "run", "runningpods"];
/// The other first parts of paths, for counting.
const OTHERS: [&str; 5] = ["configz", "healthz", "metrics", "pods", "stats"];

/// All paths, behind authentication and authorization.
pub(super) fn router(shared: Shared) -> Router {
    let shared = Arc::new(shared);
    let debugging = if shared.config.server.debugging_handlers { debugging() } else { closed() };
    Router::new()
        .route("/healthz", get(async |app: App| healthz::all(&*app.pods)))
        .route("/healthz/ping", get(async || healthz::ping()))
        .route("/healthz/syncloop", get(async |app: App| healthz::sync_loop(&*app.pods)))
        .route("/pods", get(async |app: App| pod_list(app.pods.list())))
        .route("/pods/", get(async |app: App| pod_list(app.pods.list())))
        .route("/configz", get(async |app: App| json(app.config.configz().to_string())))
        .route("/metrics", get(metrics))
        .route("/metrics/probes", get(async |app: App| metrics_page(app.metrics.render_probes())))
        .route("/metrics/{*rest}", get(async || not_yet("this kind of metrics")))
        .route("/stats/{*rest}", get(async || not_yet("stats")).post(async || not_yet("stats")))
        .merge(debugging)
        .fallback(async || plain(StatusCode::NOT_FOUND, "404: Page Not Found"))
        .method_not_allowed_fallback(async || plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

fn debugging() -> Router<Arc<Shared>> {
    let mut routes = Router::new()
        .route("/runningpods/", get(async |app: App| pod_list(app.pods.running())))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .route("/logs/{*rest}", get(async || not_yet("reading the node's logs")))
        .route("/run/{*rest}", post(async || not_yet("run")))
        .route("/checkpoint/{*rest}", post(async || not_yet("checkpoint")));
    for what in ["exec", "attach", "portForward"] {
        let refuse = async move || not_yet(what);
        routes = routes.route(&format!("/{what}/{{*rest}}"), get(refuse).post(refuse));
    }
    routes
}

fn closed() -> Router<Arc<Shared>> {
    DEBUGGING.iter().fold(Router::new(), |routes, name| {
        let refuse = async || plain(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n");
        routes.route(&format!("/{name}/"), any(refuse)).route(&format!("/{name}/{{*rest}}"), any(refuse))
    })
}

/// Finds out who asks and whether they may, then lets the request through.
async fn admit(app: App, connection: Extension<ConnectionUser>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    app.metrics.http_request(method_label(method), path_label(path));
    let user = match app.authenticator.user(connection.0.0.as_deref(), request.headers()).await {
        Ok(Some(user)) => user,
        Ok(None) => return plain(StatusCode::UNAUTHORIZED, "Unauthorized"),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            warn!(error, "asking the API server about a token");
            return plain(StatusCode::UNAUTHORIZED, "Unauthorized");
        }
    };
    let wanted = Attributes::of(method, path);
    let (name, verb) = (&user.name, wanted.verb);
    let subresources = wanted.subresources.join(" ");
    match app.authorizer.allows(&app.config.node_name, &user, wanted).await {
        Ok(true) => next.run(request).await,
        Ok(false) => {
            debug!(user = name, verb, subresources, "a request is forbidden");
            let text =
                format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n");
            plain(StatusCode::FORBIDDEN, text)
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            warn!(error, user = name, "asking the API server what a user may do");
            let text = format!(
                "Authorization error (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n"
            );
            plain(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

fn path_label(path: &str) -> &'static str {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let known = DEBUGGING.iter().chain(&OTHERS).find(|known| **known == first);
    known.copied().unwrap_or("Invalid path")
}

async fn container_logs(
    app: App,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let wanted = match Wanted::parse(&query, Timestamp::now()) {
        Ok(wanted) => wanted,
        Err(Refusal::Undecodable) => {
            return plain(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#);
        }
        Err(Refusal::Invalid) => {
            return plain(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#);
        }
    };
    match open_log(&app.pods, &namespace, name, &container, wanted).await {
        Ok(body) => ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], body).into_response(),
        Err(error) if error.is_not_found() => plain(StatusCode::NOT_FOUND, error.to_string()),
        Err(error) => plain(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

async fn open_log(
    pods: &Arc<dyn Pods>,
    namespace: &str,
    name: String,
    container: &str,
    wanted: Wanted,
) -> Result<axum::body::Body, LogError> {
    let Some(pod) = pods.by_name(namespace, &name) else { return Err(LogError::NoPod { pod: name }) };
    let id = container_with_log(&pod, container, wanted.previous)?;
    let unreadable =
        |message: String| LogError::Unreadable { pod: name.clone(), container: container.to_owned(), message };
    let path = pods
        .log_path(&pod, container, &id)
        .ok_or_else(|| unreadable("the runtime does not have this container any more".to_owned()))?;
    logs::body(&path, wanted.options, Arc::clone(pods), Arc::clone(&pod), id)
        .await
        .map_err(|error| unreadable(error.to_string()))
}

async fn metrics(app: App) -> Response {
    let (desired, running) = (app.pods.list(), app.pods.running().len());
    let (static_pods, mirrors) = app.pods.static_pods();
    metrics_page(app.metrics.render(PodCounts { desired: &desired, static_pods, mirrors, running }))
}

fn metrics_page(text: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"))], text).into_response()
}

fn pod_list(pods: Vec<Arc<Pod>>) -> Response {
    let list = List { items: pods.into_iter().map(Arc::unwrap_or_clone).collect(), ..List::<Pod>::default() };
    match serde_json::to_string(&list) {
        Ok(text) => json(text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn json(text: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

fn plain(code: StatusCode, text: impl Into<String>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (code, headers, text.into()).into_response()
}

fn not_yet(what: &str) -> Response {
    plain(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported by wasklet yet\n"))
}

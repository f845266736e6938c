//! An API server for one Node and its Lease: create, get, patch, replace, list and watch, over real HTTP.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State as Extract},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_stream::{StreamExt as _, wrappers::WatchStream};

#[derive(Debug, Default, Clone)]
pub(super) struct State {
    pub(super) node: Option<Value>,
    pub(super) lease: Option<Value>,
    pub(super) lease_writes: usize,
    pub(super) status_writes: usize,
    /// Requests that were refused while the server was away.
    pub(super) refused: usize,
    away: bool,
    version: u64,
}

#[derive(Clone)]
pub(super) struct ApiServer {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    address: std::net::SocketAddr,
}

impl ApiServer {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { state: Arc::default(), changed: watch::channel(0).0, address: listener.local_addr().unwrap() };
        let routes = Router::new()
            .route("/api/v1/nodes", get(list).post(create_node))
            .route("/api/v1/nodes/wasm-1", any(node))
            .route("/api/v1/nodes/wasm-1/status", any(node_status))
            .route("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", any(lease))
            .route("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/wasm-1", any(lease))
            .layer(axum::middleware::from_fn_with_state(server.clone(), away))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        server
    }

    pub(super) fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    pub(super) fn node(&self) -> Option<Value> {
        self.state.lock().unwrap().node.clone()
    }

    pub(super) fn status_writes(&self) -> usize {
        self.state.lock().unwrap().status_writes
    }

    /// Answers 503 to everything while it is `away`.
    pub(super) fn refuse(&self, away: bool) {
        self.state.lock().unwrap().away = away;
    }

    pub(super) fn put(&self, mut node: Value) {
        node["metadata"]["uid"] = "node-uid".into();
        self.with(|state| state.node = Some(node));
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Value)) {
        self.with(|state| change(state.node.as_mut().unwrap()));
    }

    /// Waits until something is found in the state.
    pub(super) async fn until<T>(&self, find: impl Fn(&State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(found) = find(&self.state.lock().unwrap()) {
                return found;
            }
            changes.changed().await.unwrap();
        }
    }

    /// One change of the state, which gives the objects a new version.
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let result = change(&mut state);
        state.version += 1;
        let version = state.version;
        if let Some(node) = &mut state.node {
            node["metadata"]["resourceVersion"] = version.to_string().into();
        }
        drop(state);
        self.changed.send_replace(version);
        result
    }
}

async fn away(
    Extract(server): Extract<ApiServer>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    if server.state.lock().unwrap().away {
        server.with(|state| state.refused += 1);
        return (StatusCode::SERVICE_UNAVAILABLE, "away").into_response();
    }
    next.run(request).await
}

fn status(code: StatusCode, reason: &str) -> Response {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason,
        "code": code.as_u16() });
    (code, Json(body)).into_response()
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    watch: Option<String>,
    field_selector: String,
}

async fn list(Extract(server): Extract<ApiServer>, Query(query): Query<ListQuery>) -> Response {
    assert_eq!(query.field_selector, "metadata.name=wasm-1");
    if query.watch.as_deref() != Some("true") {
        let (items, version) = {
            let state = server.state.lock().unwrap();
            (state.node.iter().cloned().collect::<Vec<_>>(), state.version)
        };
        let metadata = json!({ "resourceVersion": version.to_string() });
        return Json(json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": items }))
            .into_response();
    }
    let changes = WatchStream::new(server.changed.subscribe());
    let lines = changes.filter_map(move |_| {
        let mut node = server.node()?;
        (node["kind"], node["apiVersion"]) = ("Node".into(), "v1".into());
        Some(Ok::<_, Infallible>(format!("{}\n", json!({ "type": "MODIFIED", "object": node }))))
    });
    Response::new(Body::from_stream(lines))
}

async fn create_node(Extract(server): Extract<ApiServer>, Json(mut node): Json<Value>) -> Response {
    if server.node().is_some() {
        return status(StatusCode::CONFLICT, "AlreadyExists");
    }
    node["metadata"]["uid"] = "node-uid".into();
    server.with(|state| state.node = Some(node));
    Json(server.node()).into_response()
}

async fn node(Extract(server): Extract<ApiServer>, method: Method, body: Bytes) -> Response {
    if method == Method::PATCH {
        let patch: Value = serde_json::from_slice(&body).unwrap();
        server.change(|node| merge(node, &patch));
    }
    match server.node() {
        Some(node) => Json(node).into_response(),
        None => status(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn node_status(Extract(server): Extract<ApiServer>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["content-type"], "application/strategic-merge-patch+json");
    let patch: Value = serde_json::from_slice(&body).unwrap();
    server.with(|state| {
        state.status_writes += 1;
        merge(state.node.as_mut().unwrap(), &patch);
    });
    Json(server.node()).into_response()
}

async fn lease(Extract(server): Extract<ApiServer>, method: Method, body: Bytes) -> Response {
    if method != Method::GET {
        let lease: Value = serde_json::from_slice(&body).unwrap();
        server.with(|state| {
            assert_eq!(state.lease.is_none(), method == Method::POST);
            state.lease = Some(lease);
            state.lease_writes += 1;
        });
    }
    let lease = server.state.lock().unwrap().lease.clone();
    match lease {
        Some(lease) => Json(lease).into_response(),
        None => status(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// As much of a strategic merge as the node's patches use.
fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(base.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(patch)) if patch.iter().all(|item| item["type"].is_string()) => {
            for item in patch {
                match base.iter_mut().find(|old| old["type"] == item["type"]) {
                    Some(old) => *old = item.clone(),
                    None => base.push(item.clone()),
                }
            }
        }
        (base, Value::Array(patch)) => {
            *base = patch.iter().filter(|item| item["$patch"].is_null()).cloned().collect::<Vec<_>>().into();
        }
        (base, patch) => *base = patch.clone(),
    }
}

//! An API server in memory, as far as [`super::Objects`] needs one: lists, watches, gets, and tokens.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::clock::Clock;

/// Kind in the path, namespace, name.
type Key = (String, String, String);

/// Clones are the same server.
#[derive(Clone)]
pub(crate) struct MockApi {
    state: Arc<Mutex<Server>>,
    /// Moves with every event, and when the server goes or comes back.
    moved: watch::Sender<u64>,
    clock: Clock,
}

struct Server {
    objects: BTreeMap<Key, Value>,
    /// What happened: the version after it, whom it concerns, and the watch event.
    log: Vec<(u64, Key, Value)>,
    version: u64,
    away: bool,
    forbidden: bool,
    token_life: Duration,
    token_requests: Vec<Value>,
    /// Requests for lists and watches, as path and query.
    asked: Vec<String>,
}

impl MockApi {
    pub(crate) fn new() -> Self {
        let server = Server {
            objects: BTreeMap::new(),
            log: Vec::new(),
            version: 1,
            away: false,
            forbidden: false,
            token_life: Duration::from_secs(3600),
            token_requests: Vec::new(),
            asked: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(server)), moved: watch::Sender::new(0), clock: Clock::tokio() }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn client(&self) -> kube::Client {
        let router = Router::new()
            .route("/api/v1/services", get(services))
            .route("/apis/node.k8s.io/v1/runtimeclasses", get(runtime_classes))
            .route("/api/v1/namespaces/{namespace}/{kind}", get(list_or_watch))
            .route("/api/v1/namespaces/{namespace}/{kind}/{name}", get(one))
            .route("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", post(token))
            .with_state(self.clone());
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            router.clone().oneshot(request.map(Body::new))
        });
        kube::Client::new(service, "default")
    }

    /// Makes or changes an object: `configmaps`, `secrets`, `services` or `runtimeclasses`, with what is in it beside metadata.
    pub(crate) fn put(&self, kind: &str, namespace: &str, name: &str, content: Value) {
        let mut server = self.state.lock().unwrap();
        server.version += 1;
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = content;
        object["metadata"] = json!({
            "namespace": namespace, "name": name, "uid": format!("{kind}-{name}"),
            "resourceVersion": server.version.to_string(),
        });
        let what = if server.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        server.tell(what, key.clone(), object.clone());
        server.objects.insert(key, object);
        drop(server);
        self.moved.send_modify(|moved| *moved += 1);
    }

    pub(crate) fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let mut server = self.state.lock().unwrap();
        server.version += 1;
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let object = server.objects.remove(&key).unwrap();
        server.tell("DELETED", key, object);
        drop(server);
        self.moved.send_modify(|moved| *moved += 1);
    }

    fn set(&self, change: impl FnOnce(&mut Server)) {
        change(&mut self.state.lock().unwrap());
        self.moved.send_modify(|moved| *moved += 1);
    }

    /// Every request fails, and watches end.
    pub(crate) fn set_away(&self, away: bool) {
        self.set(|server| server.away = away);
    }

    /// ConfigMaps and Secrets may not be read.
    pub(crate) fn set_forbidden(&self, forbidden: bool) {
        self.set(|server| server.forbidden = forbidden);
    }

    pub(crate) fn set_token_life(&self, life: Duration) {
        self.set(|server| server.token_life = life);
    }

    /// Bodies of the requests for tokens so far.
    pub(crate) fn token_requests(&self) -> Vec<Value> {
        self.state.lock().unwrap().token_requests.clone()
    }

    /// Queries of lists and watches so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl Server {
    fn tell(&mut self, what: &str, key: Key, object: Value) {
        let mut object = object;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push((self.version, key, json!({"type": what, "object": object})));
    }
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": message,
    });
    (code, axum::Json(body)).into_response()
}

fn unavailable() -> Response {
    status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "away")
}

async fn services(State(api): State<MockApi>, query: Query<BTreeMap<String, String>>) -> Response {
    answer(&api, "services", None, &query)
}

async fn runtime_classes(State(api): State<MockApi>, query: Query<BTreeMap<String, String>>) -> Response {
    answer(&api, "runtimeclasses", None, &query)
}

async fn list_or_watch(
    State(api): State<MockApi>,
    Path((namespace, kind)): Path<(String, String)>,
    query: Query<BTreeMap<String, String>>,
) -> Response {
    answer(&api, &kind, Some(namespace), &query)
}

async fn one(State(api): State<MockApi>, Path((namespace, kind, name)): Path<(String, String, String)>) -> Response {
    let server = api.state.lock().unwrap();
    match server.objects.get(&(kind, namespace, name)) {
        _ if server.away => unavailable(),
        Some(object) => axum::Json(object.clone()).into_response(),
        None => status(StatusCode::NOT_FOUND, "NotFound", "not found"),
    }
}

fn answer(api: &MockApi, kind: &str, namespace: Option<String>, query: &BTreeMap<String, String>) -> Response {
    let name = query.get("fieldSelector").and_then(|field| field.strip_prefix("metadata.name=")).map(str::to_owned);
    let of_kind = kind.to_owned();
    let wanted = move |(kind, its_namespace, its_name): &Key| {
        *kind == of_kind
            && namespace.as_ref().is_none_or(|namespace| namespace == its_namespace)
            && name.as_ref().is_none_or(|name| name == its_name)
    };
    let mut server = api.state.lock().unwrap();
    let watch = query.get("watch").is_some_and(|watch| watch == "true");
    server.asked.push(format!("{kind} {} {watch}", query.get("fieldSelector").cloned().unwrap_or_default()));
    if server.away {
        return unavailable();
    }
    if server.forbidden && kind != "services" {
        return status(StatusCode::FORBIDDEN, "Forbidden", "no relationship found");
    }
    if watch {
        let since = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        return follow(api, since, wanted);
    }
    let items: Vec<&Value> = server.objects.iter().filter(|(key, _)| wanted(key)).map(|(_, object)| object).collect();
    let metadata = json!({"resourceVersion": server.version.to_string()});
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})).into_response()
}

fn follow(api: &MockApi, since: u64, wanted: impl Fn(&Key) -> bool + Send + Sync + 'static) -> Response {
    let start = (api.clone(), api.moved.subscribe(), since, Arc::new(wanted));
    let lines = stream::unfold(start, |(api, mut moved, since, wanted)| async move {
        loop {
            let next = {
                let server = api.state.lock().unwrap();
                if server.away {
                    return None;
                }
                let next = server.log.iter().find(|(version, key, _)| *version > since && wanted(key));
                next.map(|(version, _, event)| (*version, format!("{event}\n")))
            };
            if let Some((version, line)) = next {
                return Some((Ok::<_, Infallible>(Bytes::from(line)), (api, moved, version, wanted)));
            }
            moved.changed().await.ok()?;
        }
    });
    Body::from_stream(lines).into_response()
}

async fn token(State(api): State<MockApi>, axum::Json(request): axum::Json<Value>) -> Response {
    let mut server = api.state.lock().unwrap();
    if server.away {
        return unavailable();
    }
    server.token_requests.push(request.clone());
    let expires = decide::time::after(api.clock.now(), server.token_life);
    let mut answer = request;
    answer["status"] = json!({
        "token": format!("token-{}", server.token_requests.len()),
        "expirationTimestamp": expires.to_string(),
    });
    answer["metadata"] = json!({});
    (StatusCode::CREATED, axum::Json(answer)).into_response()
}

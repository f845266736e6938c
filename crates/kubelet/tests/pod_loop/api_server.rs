//! An API server for pods and events, called without a network so that time may be paused: list, watch, get, status patch,
//! delete with preconditions; mirrors created; the node read; events created and patched.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Default)]
struct Store {
    pods: BTreeMap<String, Value>,
    /// What a watch tells, each with its version.
    history: Vec<(u64, Value)>,
    /// One line for each call that changed something, and for each that was refused.
    log: Vec<String>,
    events: Vec<Value>,
    /// Calls that made or changed an event.
    event_writes: usize,
    /// Pods that were read one by one.
    reads: usize,
    version: u64,
    away: bool,
    /// Watches tell nothing, and all else is answered.
    watches_late: bool,
    /// Status patches that are refused, for the pod of this name.
    stubborn: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct ApiServer {
    store: Arc<Mutex<Store>>,
    turn: watch::Sender<u64>,
}

impl ApiServer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn client(&self) -> kube::Client {
        let routes = Router::new()
            .route("/api/v1/pods", get(list))
            .route("/api/v1/nodes/{name}", get(read_node))
            .route("/api/v1/namespaces/{namespace}/pods", post(create))
            .route("/api/v1/namespaces/{namespace}/pods/{name}", get(read).delete(delete))
            .route("/api/v1/namespaces/{namespace}/pods/{name}/status", patch(patch_status))
            .route("/api/v1/namespaces/{namespace}/events", post(create_event))
            .route("/api/v1/namespaces/{namespace}/events/{name}", patch(patch_event))
            .layer(from_fn_with_state(self.clone(), perhaps_away))
            .with_state(self.clone());
        kube::Client::new(routes, "default")
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let result = change(&mut self.store());
        self.turn.send_modify(|turn| *turn += 1);
        result
    }

    /// As `kubectl apply` of a pod that is bound to the node.
    pub(crate) fn apply(&self, pod: &Value) {
        self.change(|store| store.put(pod.clone()));
    }

    /// As whoever else writes pods.
    pub(crate) fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        self.change(|store| {
            let mut pod = store.pods[name].clone();
            edit(&mut pod);
            store.put(pod);
        });
    }

    /// As `kubectl delete --force --grace-period=0`.
    pub(crate) fn force_delete(&self, name: &str) {
        self.change(|store| store.remove(name));
    }

    /// Refuses every call, and breaks every watch, while it is away.
    pub(crate) fn away(&self, away: bool) {
        self.change(|store| store.away = away);
    }

    /// Keeps what happens from every watch until told otherwise.
    pub(crate) fn watches_late(&self, late: bool) {
        self.change(|store| store.watches_late = late);
    }

    /// Refuses status patches of the pod.
    pub(crate) fn refuse_status_of(&self, name: Option<&str>) {
        self.change(|store| store.stubborn = name.map(str::to_owned));
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        self.store().pods.get(name).cloned()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.store().log.clone()
    }

    pub(crate) fn reads(&self) -> usize {
        self.store().reads
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.store().events.clone()
    }

    pub(crate) fn event_writes(&self) -> usize {
        self.store().event_writes
    }

    /// As after an hour.
    pub(crate) fn forget_events(&self) {
        self.change(|store| store.events.clear());
    }

    /// Waits until something is found.
    pub(crate) async fn until(&self, what: &str, found: impl Fn(&Self) -> bool) {
        let mut turns = self.turn.subscribe();
        let wait = async {
            loop {
                turns.mark_unchanged();
                if found(self) {
                    return;
                }
                turns.changed().await.unwrap();
            }
        };
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(4 * 60 * 60), wait).await;
        assert!(in_time.is_ok(), "never came to {what}: {:#?} {:#?}", self.log(), self.store().pods);
    }

    pub(crate) async fn until_status(&self, name: &str, field: &str, wanted: impl Into<Value>) {
        let wanted = wanted.into();
        let is = |api: &Self| {
            api.pod(name).and_then(|pod| pod.pointer(&format!("/status{field}")).cloned()) == Some(wanted.clone())
        };
        self.until(&format!("{field} {wanted} of {name}"), is).await;
    }
}

impl Store {
    fn put(&mut self, mut pod: Value) {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = self.version.to_string().into();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let known = self.pods.insert(name, pod.clone());
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        self.history.push((self.version, json!({ "type": kind, "object": pod })));
    }

    fn remove(&mut self, name: &str) {
        self.version += 1;
        let mut pod = self.pods.remove(name).unwrap();
        pod["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.history.push((self.version, json!({ "type": "DELETED", "object": pod })));
    }
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason,
        "code": code.as_u16() });
    (code, Json(body)).into_response()
}

async fn perhaps_away(State(api): State<ApiServer>, request: Request, next: Next) -> Response {
    if api.store().away {
        api.change(|store| store.log.push(format!("refused {} {}", request.method(), request.uri().path())));
        return failure(StatusCode::SERVICE_UNAVAILABLE, "away");
    }
    next.run(request).await
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    watch: Option<String>,
    field_selector: String,
    resource_version: Option<String>,
}

async fn list(State(api): State<ApiServer>, Query(query): Query<ListQuery>) -> Response {
    assert_eq!(query.field_selector, "spec.nodeName=node");
    if query.watch.as_deref() != Some("true") {
        let store = api.store();
        let metadata = json!({ "resourceVersion": store.version.to_string() });
        let items: Vec<&Value> = store.pods.values().collect();
        return Json(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items }))
            .into_response();
    }
    let seen: u64 = query.resource_version.unwrap_or_default().parse().unwrap_or(0);
    let lines = stream::unfold((api.turn.subscribe(), seen), move |(mut turns, seen)| {
        let api = api.clone();
        async move {
            loop {
                turns.mark_unchanged();
                let next = {
                    let store = api.store();
                    if store.away {
                        return None;
                    }
                    store.history.iter().find(|(version, _)| *version > seen && !store.watches_late).cloned()
                };
                if let Some((version, event)) = next {
                    return Some((Ok::<_, Infallible>(format!("{event}\n")), (turns, version)));
                }
                turns.changed().await.ok()?;
            }
        }
    });
    Response::new(Body::from_stream(lines))
}

async fn read_node(Path(name): Path<String>) -> Response {
    let metadata = json!({ "name": name, "uid": "uid-of-the-node" });
    Json(json!({ "kind": "Node", "apiVersion": "v1", "metadata": metadata })).into_response()
}

/// As a node may: a mirror, owned by it.
async fn create(State(api): State<ApiServer>, Json(mut pod): Json<Value>) -> Response {
    let metadata = &pod["metadata"];
    let is_mirror = metadata["annotations"]["kubernetes.io/config.mirror"].is_string();
    if !is_mirror || metadata["ownerReferences"][0]["uid"] != "uid-of-the-node" || pod["spec"]["nodeName"] != "node" {
        return failure(StatusCode::FORBIDDEN, "Forbidden");
    }
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    api.change(|store| {
        if store.pods.contains_key(&name) {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        pod["metadata"]["uid"] = format!("uid-{}", store.version).into();
        pod["status"] = json!({ "phase": "Pending" });
        store.log.push(format!("create {name}"));
        store.put(pod);
        Json(store.pods[&name].clone()).into_response()
    })
}

async fn read(State(api): State<ApiServer>, Path((_, name)): Path<(String, String)>) -> Response {
    api.store().reads += 1;
    match api.pod(&name) {
        Some(pod) => Json(pod).into_response(),
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn patch_status(
    State(api): State<ApiServer>,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers["content-type"], "application/strategic-merge-patch+json");
    let body: Value = serde_json::from_slice(&body).unwrap();
    api.change(|store| {
        let Some(mut pod) = store.pods.get(&name).cloned() else { return failure(StatusCode::NOT_FOUND, "NotFound") };
        if body["metadata"]["uid"] != pod["metadata"]["uid"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        if store.stubborn.as_ref() == Some(&name) {
            store.log.push(format!("refused status {name}"));
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        let before = pod.clone();
        merge(&mut pod["status"], &body["status"]);
        let phase = pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
        store.log.push(format!("status {name} {phase}"));
        if pod != before {
            store.put(pod.clone());
        }
        Json(pod).into_response()
    })
}

async fn delete(State(api): State<ApiServer>, Path((_, name)): Path<(String, String)>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    api.change(|store| {
        let Some(pod) = store.pods.get(&name).cloned() else { return failure(StatusCode::NOT_FOUND, "NotFound") };
        if body["preconditions"]["uid"] != pod["metadata"]["uid"] || body["gracePeriodSeconds"] != json!(0) {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        store.log.push(format!("delete {name}"));
        store.remove(&name);
        Json(pod).into_response()
    })
}

async fn create_event(State(api): State<ApiServer>, Json(event): Json<Value>) -> Response {
    api.change(|store| {
        store.event_writes += 1;
        store.events.push(event.clone());
    });
    Json(event).into_response()
}

async fn patch_event(State(api): State<ApiServer>, Path((_, name)): Path<(String, String)>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    api.change(|store| {
        store.event_writes += 1;
        match store.events.iter_mut().find(|event| event["metadata"]["name"] == name.as_str()) {
            Some(event) => {
                merge(event, &body);
                Json(event.clone()).into_response()
            }
            None => failure(StatusCode::NOT_FOUND, "NotFound"),
        }
    })
}

/// As much of a strategic merge as pods' statuses use: conditions by their type, other lists as a whole.
fn merge(base: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (name, value) in fields {
        let old = &mut base[name];
        match value {
            Value::Null => {
                base.as_object_mut().unwrap().remove(name);
            }
            Value::Array(items) if name == "conditions" => merge_by_type(old, items),
            Value::Array(items) => *old = items.iter().filter(|item| item["$patch"].is_null()).cloned().collect(),
            _ => merge(old, value),
        }
    }
}

fn merge_by_type(base: &mut Value, items: &[Value]) {
    if !base.is_array() {
        *base = json!([]);
    }
    let list = base.as_array_mut().unwrap();
    for item in items {
        let position = list.iter().position(|old| old["type"] == item["type"]);
        match (position, item["$patch"] == "delete") {
            (Some(position), true) => {
                list.remove(position);
            }
            (None, true) => {}
            (Some(position), false) => merge(&mut list[position], item),
            (None, false) => {
                let mut new = json!({});
                merge(&mut new, item);
                list.push(new);
            }
        }
    }
}

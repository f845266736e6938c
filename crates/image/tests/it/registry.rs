//! A registry on loopback that tests fill, break and question: what it should serve goes in, what it was asked comes out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use futures::{StreamExt, stream};
use image::pack::Artifact;
use image::{Digest, Reference};
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What happens to requests instead of a good answer.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// This status, with the OCI error code where there is one, and a message that tells secrets.
    Status(u16, Option<&'static str>),
    /// Other content of the same length.
    Lie,
    /// Half of the body, then a closed connection.
    BreakOff,
    /// Half of the body, then silence.
    Stall,
    /// A byte now and then.
    Drip,
    /// The body, and then more of it than announced.
    GoOn,
}

/// Which requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Route {
    Manifests,
    Blobs,
    Token,
}

/// How many requests a fault meets before the registry recovers.
pub(crate) const ALWAYS: usize = usize::MAX;

#[derive(Default)]
struct Inner {
    manifests: Mutex<HashMap<String, (String, Bytes)>>,
    blobs: Mutex<HashMap<String, Bytes>>,
    faults: Mutex<HashMap<Route, (Fault, usize)>>,
    asked: Mutex<Vec<(Route, String)>>,
    token: Mutex<Option<String>>,
    held: Mutex<Option<tokio::sync::watch::Receiver<bool>>>,
    address: Mutex<String>,
}

#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "p4ssw0rd-of-alice";
pub(crate) const TOKEN: &str = "t0ken-of-alice";

impl Registry {
    pub(crate) async fn start() -> Self {
        let registry = Self(Arc::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        *registry.0.address.lock().unwrap() = listener.local_addr().unwrap().to_string();
        let router = Router::new()
            .route("/v2/", get(ping))
            .route("/token", get(token))
            .route("/v2/{owner}/{name}/manifests/{reference}", get(manifest))
            .route("/v2/{owner}/{name}/blobs/{digest}", get(blob))
            .with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        registry
    }

    pub(crate) fn host(&self) -> String {
        self.0.address.lock().unwrap().clone()
    }

    /// The reference of a name in this registry: `test/NAME`.
    pub(crate) fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/test/{name}", self.host())).unwrap()
    }

    pub(crate) fn blob(&self, media_type: &str, content: impl Into<Bytes>) -> Value {
        let content = content.into();
        let digest = Digest::of(&content).to_string();
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
        self.0.blobs.lock().unwrap().insert(digest, content);
        descriptor
    }

    /// Serves `document` under a tag and its digest.
    pub(crate) fn manifest(&self, tag: &str, media_type: &str, document: &[u8]) -> Digest {
        let digest = Digest::of(document);
        for name in [tag.to_owned(), digest.to_string()] {
            let entry = (media_type.to_owned(), Bytes::copy_from_slice(document));
            self.0.manifests.lock().unwrap().insert(name, entry);
        }
        digest
    }

    /// Serves an image of these descriptors.
    pub(crate) fn image(&self, tag: &str, config: &Value, layers: &[Value]) -> Digest {
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers});
        self.manifest(tag, OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    pub(crate) fn artifact(&self, tag: &str, artifact: &Artifact) -> Digest {
        self.blob("", artifact.config().to_vec());
        self.blob("", artifact.layer().to_vec());
        self.manifest(tag, OCI_MANIFEST, artifact.manifest())
    }

    /// Meets the next `count` requests of `route` with `fault`.
    pub(crate) fn fail(&self, route: Route, fault: Fault, count: usize) {
        self.0.faults.lock().unwrap().insert(route, (fault, count));
    }

    /// From now on only [`USER`] with [`PASSWORD`] gets a token, and `token` is what it is.
    pub(crate) fn require_login(&self, token: &str) {
        *self.0.token.lock().unwrap() = Some(token.to_owned());
    }

    /// Holds blob requests back until the sender says `true`.
    pub(crate) fn hold_blobs(&self) -> tokio::sync::watch::Sender<bool> {
        let (sender, receiver) = tokio::sync::watch::channel(false);
        *self.0.held.lock().unwrap() = Some(receiver);
        sender
    }

    /// How often a route was asked for.
    pub(crate) fn asked(&self, route: Route) -> usize {
        self.0.asked.lock().unwrap().iter().filter(|(asked, _)| *asked == route).count()
    }

    /// How often a blob was asked for.
    pub(crate) fn asked_for(&self, digest: Digest) -> usize {
        self.0.asked.lock().unwrap().iter().filter(|(_, what)| *what == digest.to_string()).count()
    }

    fn note(&self, route: Route, what: &str) -> Option<Fault> {
        self.0.asked.lock().unwrap().push((route, what.to_owned()));
        let mut faults = self.0.faults.lock().unwrap();
        let (fault, left) = faults.get_mut(&route)?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }

    fn lets_in(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        match self.0.token.lock().unwrap().as_ref() {
            Some(token) if !carries(headers, &format!("Bearer {token}")) => Err(Box::new(self.challenge())),
            _ => Ok(()),
        }
    }

    fn challenge(&self) -> Response {
        let challenge = format!(r#"Bearer realm="http://{}/token",service="test""#, self.host());
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }
}

fn carries(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get(header::AUTHORIZATION).is_some_and(|found| found == wanted)
}

async fn ping(State(registry): State<Registry>) -> Response {
    if registry.0.token.lock().unwrap().is_some() { registry.challenge() } else { StatusCode::OK.into_response() }
}

async fn token(State(registry): State<Registry>, headers: HeaderMap) -> Response {
    let fault = registry.note(Route::Token, "");
    if let Some(fault) = fault {
        return answer(Some(fault), "application/json", Bytes::new());
    }
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    if !carries(&headers, &format!("Basic {login}")) {
        return (StatusCode::UNAUTHORIZED, format!("you sent {headers:?}")).into_response();
    }
    let token = registry.0.token.lock().unwrap().clone();
    axum::Json(json!({ "token": token })).into_response()
}

async fn manifest(
    State(registry): State<Registry>,
    Path((_, _, reference)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let fault = registry.note(Route::Manifests, &reference);
    if let Err(challenge) = registry.lets_in(&headers) {
        return *challenge;
    }
    let found = registry.0.manifests.lock().unwrap().get(&reference).cloned();
    match found {
        Some((media_type, content)) => answer(fault, &media_type, content),
        None => answer(fault.or(Some(Fault::Status(404, Some("MANIFEST_UNKNOWN")))), "", Bytes::new()),
    }
}

async fn blob(
    State(registry): State<Registry>,
    Path((_, _, digest)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let fault = registry.note(Route::Blobs, &digest);
    if let Err(challenge) = registry.lets_in(&headers) {
        return *challenge;
    }
    let held = registry.0.held.lock().unwrap().clone();
    if let Some(mut held) = held {
        held.wait_for(|free| *free).await.unwrap();
    }
    let found = registry.0.blobs.lock().unwrap().get(&digest).cloned();
    match found {
        Some(content) => answer(fault, "application/octet-stream", content),
        None => answer(fault.or(Some(Fault::Status(404, Some("BLOB_UNKNOWN")))), "", Bytes::new()),
    }
}

fn answer(fault: Option<Fault>, media_type: &str, content: Bytes) -> Response {
    let half = content.slice(..content.len() / 2);
    let announced =
        [(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_LENGTH, content.len().to_string())];
    match fault {
        None => (announced, content).into_response(),
        Some(Fault::Status(status, code)) => {
            let secrets = format!("you sent {USER} {PASSWORD} {TOKEN}");
            let body = match code {
                Some(code) => json!({"errors": [{"code": code, "message": secrets}]}).to_string(),
                None => secrets,
            };
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        }
        Some(Fault::Lie) => {
            let lie: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
            (announced, lie).into_response()
        }
        Some(Fault::BreakOff) => {
            let parts = stream::iter([Ok(half), Err(std::io::Error::other("broken off"))]);
            (announced, Body::from_stream(parts)).into_response()
        }
        Some(Fault::Stall) => {
            let parts = stream::iter([Ok::<_, std::io::Error>(half)]).chain(stream::pending());
            (announced, Body::from_stream(parts)).into_response()
        }
        Some(Fault::Drip) => {
            let bytes = stream::iter(content).then(|byte| async move {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Ok::<_, std::io::Error>(Bytes::from(vec![byte]))
            });
            (announced, Body::from_stream(bytes)).into_response()
        }
        Some(Fault::GoOn) => {
            let parts = stream::repeat_with(move || Ok::<_, std::io::Error>(content.clone()));
            Body::from_stream(parts).into_response()
        }
    }
}

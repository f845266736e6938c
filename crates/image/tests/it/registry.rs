//! A registry on loopback that tests fill, break and question: what it should serve goes in, what it was asked comes out.

mod referrers;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
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
    /// This status, and a wait of so many seconds asked for.
    Busy(u16, u64),
    /// So many bytes, then a closed connection.
    BreakOffAfter(usize),
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
    Uploads,
    Referrers,
}

/// Who gets in.
#[derive(Clone, Default)]
enum Door {
    /// Everybody.
    #[default]
    Open,
    /// Who has this token, which [`USER`] gets for [`PASSWORD`] and an identity token for itself.
    Token(String),
    /// Who sends [`USER`] and [`PASSWORD`] with every request.
    Basic,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) route: Route,
    pub(crate) method: Method,
    /// What it was about.
    pub(crate) what: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

/// How many requests a fault meets before the registry recovers.
pub(crate) const ALWAYS: usize = usize::MAX;

#[derive(Default)]
struct Inner {
    manifests: Mutex<HashMap<String, (String, Bytes)>>,
    blobs: Mutex<HashMap<String, Bytes>>,
    referrers: Mutex<Option<HashMap<String, Vec<Value>>>>,
    faults: Mutex<HashMap<Route, (Fault, usize)>>,
    asked: Mutex<Vec<Asked>>,
    door: Mutex<Door>,
    ranges: Mutex<bool>,
    realm: Mutex<Option<String>>,
    held: Mutex<Option<tokio::sync::watch::Receiver<bool>>>,
    address: Mutex<String>,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

/// Connections whose handshake is done; the others are nobody's.
struct TlsListener {
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "p4ssw0rd-of-alice";
pub(crate) const TOKEN: &str = "t0ken-of-alice";
pub(crate) const IDENTITY: &str = "1dentity-of-alice";

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Over TLS, as `localhost`, for those who believe the returned certificate (PEM).
    pub(crate) async fn start_tls() -> (Self, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        (Self::start_with(Some(acceptor)).await, signed.cert.pem())
    }

    async fn start_with(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let registry = Self(Arc::new(Inner { tls, ..Inner::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        *registry.0.address.lock().unwrap() = listener.local_addr().unwrap().to_string();
        let router = Router::new()
            .route("/v2/", get(ping))
            .route("/token", get(token).post(exchange))
            .route("/v2/{owner}/{name}/manifests/{reference}", get(manifest).put(put_manifest))
            .route("/v2/{owner}/{name}/blobs/{digest}", get(blob))
            .route("/v2/{owner}/{name}/referrers/{digest}", get(referrers::referrers))
            .route("/v2/{owner}/{name}/blobs/uploads/", post(begin_upload))
            .route("/v2/{owner}/{name}/blobs/uploads/{id}", axum::routing::put(upload))
            .layer(axum::extract::DefaultBodyLimit::max(1 << 30))
            .with_state(registry.clone());
        registry.serve(listener, router);
        registry
    }

    fn serve(&self, listener: tokio::net::TcpListener, router: Router) {
        match &self.0.tls {
            None => {
                tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            }
            Some(acceptor) => {
                let listener = TlsListener { listener, acceptor: acceptor.clone() };
                tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            }
        }
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

    /// From now on only [`USER`] with [`PASSWORD`], or who has [`IDENTITY`], gets a token, and `token` is what it is.
    pub(crate) fn require_login(&self, token: &str) {
        *self.0.door.lock().unwrap() = Door::Token(token.to_owned());
    }

    /// From now on [`USER`] and [`PASSWORD`] are wanted with every request.
    pub(crate) fn require_basic(&self) {
        *self.0.door.lock().unwrap() = Door::Basic;
    }

    /// Answers requests for a part of a blob with that part.
    pub(crate) fn serve_ranges(&self) {
        *self.0.ranges.lock().unwrap() = true;
    }

    /// Names this token service in place of its own.
    pub(crate) fn name_realm(&self, realm: &str) {
        *self.0.realm.lock().unwrap() = Some(realm.to_owned());
    }

    /// Everything it was asked.
    pub(crate) fn log(&self) -> Vec<Asked> {
        self.0.asked.lock().unwrap().clone()
    }

    /// Whether it has a blob or a manifest of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.blobs.lock().unwrap().contains_key(name) || self.0.manifests.lock().unwrap().contains_key(name)
    }

    /// Holds blob requests back until the sender says `true`.
    pub(crate) fn hold_blobs(&self) -> tokio::sync::watch::Sender<bool> {
        let (sender, receiver) = tokio::sync::watch::channel(false);
        *self.0.held.lock().unwrap() = Some(receiver);
        sender
    }

    /// How often a route was asked for.
    pub(crate) fn asked(&self, route: Route) -> usize {
        self.0.asked.lock().unwrap().iter().filter(|asked| asked.route == route).count()
    }

    /// How often a blob was asked for.
    pub(crate) fn asked_for(&self, digest: Digest) -> usize {
        self.0.asked.lock().unwrap().iter().filter(|asked| asked.what == digest.to_string()).count()
    }

    fn note(&self, route: Route, what: &str, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Fault> {
        let header = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        self.0.asked.lock().unwrap().push(Asked {
            route,
            method: method.clone(),
            what: what.to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            authorization: header(header::AUTHORIZATION),
            range: header(header::RANGE),
        });
        let mut faults = self.0.faults.lock().unwrap();
        let (fault, left) = faults.get_mut(&route)?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }

    fn lets_in(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let door = self.0.door.lock().unwrap().clone();
        let wanted = match door {
            Door::Open => return Ok(()),
            Door::Token(token) => format!("Bearer {token}"),
            Door::Basic => login(),
        };
        if carries(headers, &wanted) { Ok(()) } else { Err(Box::new(self.challenge())) }
    }

    fn challenge(&self) -> Response {
        let own = format!("http://{}/token", self.host());
        let realm = self.0.realm.lock().unwrap().clone().unwrap_or(own);
        let challenge = match &*self.0.door.lock().unwrap() {
            Door::Basic => "Basic realm=\"test\"".to_owned(),
            _ => format!(r#"Bearer realm="{realm}",service="test""#),
        };
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }

    fn token(&self) -> Response {
        let Door::Token(token) = self.0.door.lock().unwrap().clone() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        axum::Json(json!({ "token": token })).into_response()
    }
}

fn login() -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

fn carries(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get(header::AUTHORIZATION).is_some_and(|found| found == wanted)
}

async fn ping(State(registry): State<Registry>, headers: HeaderMap) -> Response {
    registry.lets_in(&headers).map_or_else(|challenge| *challenge, |()| StatusCode::OK.into_response())
}

async fn token(State(registry): State<Registry>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if let Some(fault) = registry.note(Route::Token, "", &method, &uri, &headers) {
        return answer(Some(fault), "application/json", Bytes::from_static(b"{\"token\":\"t\"}"));
    }
    if !carries(&headers, &login()) {
        return (StatusCode::UNAUTHORIZED, format!("you sent {headers:?}")).into_response();
    }
    registry.token()
}

/// OAuth2's exchange of a refresh token.
async fn exchange(
    State(registry): State<Registry>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    form: String,
) -> Response {
    registry.note(Route::Token, &form, &method, &uri, &headers);
    let has = |pair: &str| form.split('&').any(|found| found == pair);
    let granted = has("grant_type=refresh_token") && has(&format!("refresh_token={IDENTITY}")) && has("service=test");
    match granted {
        true => registry.token(),
        false => (StatusCode::BAD_REQUEST, format!("you sent {form}")).into_response(),
    }
}

async fn manifest(
    State(registry): State<Registry>,
    Path((_, _, reference)): Path<(String, String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let fault = registry.note(Route::Manifests, &reference, &method, &uri, &headers);
    if let Err(challenge) = registry.lets_in(&headers) {
        return *challenge;
    }
    let found = registry.0.manifests.lock().unwrap().get(&reference).cloned();
    match found {
        Some((media_type, content)) => {
            let digest = Digest::of(&content).to_string();
            let mut answer = answer(fault, &media_type, content);
            answer.headers_mut().insert("docker-content-digest", digest.parse().unwrap());
            answer
        }
        None => answer(fault.or(Some(Fault::Status(404, Some("MANIFEST_UNKNOWN")))), "", Bytes::new()),
    }
}

async fn put_manifest(
    State(registry): State<Registry>,
    Path((_, _, reference)): Path<(String, String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    content: Bytes,
) -> Response {
    let fault = registry.note(Route::Manifests, &reference, &method, &uri, &headers);
    if let Err(challenge) = registry.lets_in(&headers) {
        return *challenge;
    }
    if let Some(fault) = fault {
        return answer(Some(fault), "", Bytes::new());
    }
    registry.manifest(&reference, headers[header::CONTENT_TYPE].to_str().unwrap(), &content);
    StatusCode::CREATED.into_response()
}

async fn begin_upload(State(registry): State<Registry>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if let Some(fault) = registry.note(Route::Uploads, "begin", &method, &uri, &headers) {
        return answer(Some(fault), "", Bytes::new());
    }
    if let Err(challenge) = registry.lets_in(&headers) {
        return *challenge;
    }
    (StatusCode::ACCEPTED, [(header::LOCATION, format!("{}1?state=abc", uri.path()))]).into_response()
}

async fn upload(
    State(registry): State<Registry>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    content: Bytes,
) -> Response {
    let fault = registry.note(Route::Uploads, "content", &method, &uri, &headers);
    if let Err(challenge) = registry.lets_in(&headers) {
        return *challenge;
    }
    if let Some(fault) = fault {
        return answer(Some(fault), "", Bytes::new());
    }
    let stored = registry.blob("", content)["digest"].clone();
    let right = query["state"] == "abc" && stored == query["digest"];
    if right { StatusCode::CREATED.into_response() } else { StatusCode::BAD_REQUEST.into_response() }
}

async fn blob(
    State(registry): State<Registry>,
    Path((_, _, digest)): Path<(String, String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let fault = registry.note(Route::Blobs, &digest, &method, &uri, &headers);
    if let Err(challenge) = registry.lets_in(&headers) {
        return *challenge;
    }
    let held = registry.0.held.lock().unwrap().clone();
    if let Some(mut held) = held {
        held.wait_for(|free| *free).await.unwrap();
    }
    let found = registry.0.blobs.lock().unwrap().get(&digest).cloned();
    let Some(content) = found else {
        return answer(fault.or(Some(Fault::Status(404, Some("BLOB_UNKNOWN")))), "", Bytes::new());
    };
    let from = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().unwrap().strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let from = from.filter(|_| *registry.0.ranges.lock().unwrap());
    let Some(from) = from else { return answer(fault, "application/octet-stream", content) };
    let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
    let mut answer = answer(fault, "application/octet-stream", content.slice(from..));
    if answer.status() == StatusCode::OK {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        answer.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
    }
    answer
}

fn answer(fault: Option<Fault>, media_type: &str, content: Bytes) -> Response {
    let half = match fault {
        Some(Fault::BreakOffAfter(bytes)) => content.slice(..bytes.min(content.len())),
        _ => content.slice(..content.len() / 2),
    };
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
        Some(Fault::Busy(status, seconds)) => {
            (StatusCode::from_u16(status).unwrap(), [(header::RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Some(Fault::BreakOff | Fault::BreakOffAfter(_)) => {
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

//! A server, its clients' certificates, an API server that answers reviews, and pods of the tests' own.

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::super::{Pods, Server, ServerError, Setup, start};
use crate::{
    certificates,
    config::{Authorization, Config, Host},
    flags::KubeletFlags,
    metrics::Metrics,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the server is to be like.
pub(super) struct Setting {
    pub(super) client_ca: bool,
    pub(super) api: bool,
    pub(super) always_allow: bool,
    pub(super) debugging: bool,
    pub(super) reload_every: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Self { client_ca: true, api: true, always_allow: false, debugging: true, reload_every: super::RELOAD_EVERY }
    }
}

/// Who asks.
pub(super) enum Identity {
    None,
    /// A certificate: may do everything.
    Admin,
    /// A certificate: may read metrics.
    Reader,
    /// A certificate of another CA, with the admin's name.
    Stranger,
    Token(&'static str),
}

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn client(&self, name: &str, group: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
    }
}

/// Everything at work.
pub(super) struct Bed {
    server: Server,
    pub(super) api: Api,
    pub(super) pods: Arc<TestPods>,
    folder: tempfile::TempDir,
    ca: Ca,
    strangers_ca: Ca,
}

impl Bed {
    pub(super) async fn start(setting: Setting) -> Self {
        Self::try_start(setting).await.unwrap()
    }

    pub(super) async fn try_start(setting: Setting) -> Result<Self, ServerError> {
        let folder = tempfile::tempdir().unwrap();
        let (ca, strangers_ca) = (Ca::new(), Ca::new());
        let ca_file = folder.path().join("ca.crt");
        fs::write(&ca_file, &ca.pem).unwrap();
        let host = Host { hostname: "wasm-1".to_owned(), is_root: true, user_state: None, home: None };
        let mut config = Config::resolve(&KubeletFlags::default(), &host).unwrap();
        config.cert_dir = folder.path().join("pki");
        config.server.address = "127.0.0.1:0".parse().unwrap();
        config.server.client_ca_file = setting.client_ca.then_some(ca_file);
        config.server.debugging_handlers = setting.debugging;
        if setting.always_allow {
            config.server.authorization = Authorization::AlwaysAllow;
        }
        let (api, pods) = (Api::default(), Arc::new(TestPods::new(folder.path().join("logs"))));
        let server = start(Setup {
            config: Arc::new(config),
            api: setting.api.then(|| api.client()),
            pods: pods.clone(),
            metrics: Arc::new(Metrics::new("wasm-1")),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            reload_every: setting.reload_every,
        })
        .await?;
        Ok(Self { server, api, pods, folder, ca, strangers_ca })
    }

    pub(super) fn trust_the_strangers_ca(&self) {
        fs::write(self.folder.path().join("ca.crt"), &self.strangers_ca.pem).unwrap();
    }

    pub(super) async fn stop(self) {
        self.server.stop().await;
    }

    pub(super) async fn get(&self, identity: &Identity, path: &str) -> Answer {
        self.request(identity, "GET", path).await
    }

    pub(super) async fn request(&self, identity: &Identity, method: &str, path: &str) -> Answer {
        let response = self.send(identity, method, path).await.unwrap();
        Answer::read(response).await.unwrap()
    }

    pub(super) async fn try_get(&self, identity: &Identity, path: &str) -> Result<Answer, Failure> {
        Answer::read(self.send(identity, "GET", path).await?).await
    }

    pub(super) async fn stream(&self, identity: &Identity, path: &str) -> Pieces {
        let response = self.send(identity, "GET", path).await.unwrap();
        assert_eq!(response.status(), 200);
        Pieces(response.into_body())
    }

    async fn send(&self, identity: &Identity, method: &str, path: &str) -> Result<http::Response<Incoming>, Failure> {
        let mut roots = RootCertStore::empty();
        let pem = fs::read(self.folder.path().join("pki/kubelet.crt"))?;
        roots.add(CertificateDer::from_pem_slice(&pem)?)?;
        let client = ClientConfig::builder_with_provider(certificates::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let certificate = match identity {
            Identity::Admin => Some(self.ca.client("admin", "system:masters")),
            Identity::Reader => Some(self.ca.client("reader", "readers")),
            Identity::Stranger => Some(self.strangers_ca.client("admin", "system:masters")),
            Identity::None | Identity::Token(_) => None,
        };
        let client = match certificate {
            Some((certificate, key)) => client.with_client_auth_cert(vec![certificate], key)?,
            None => client.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.server.address()).await?;
        let name = ServerName::try_from("wasm-1")?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
        let mut request = http::Request::builder().method(method).uri(path).header("host", "wasm-1");
        if let Identity::Token(token) = identity {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        exchange(TokioIo::new(stream), request.body(Empty::new())?).await
    }
}

async fn exchange<T>(stream: T, request: http::Request<Empty<Bytes>>) -> Result<http::Response<Incoming>, Failure>
where
    T: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

pub(super) async fn plain_get(address: std::net::SocketAddr, path: &str) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let request = http::Request::builder().uri(path).header("host", "localhost").body(Empty::new()).unwrap();
    Answer::read(exchange(TokioIo::new(stream), request).await.unwrap()).await.unwrap()
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) text: String,
    headers: http::HeaderMap,
}

impl Answer {
    async fn read(response: http::Response<Incoming>) -> Result<Self, Failure> {
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
        Ok(Self { code: head.status.as_u16(), text, headers: head.headers })
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// An answer as it comes.
pub(super) struct Pieces(Incoming);

impl Pieces {
    pub(super) async fn next(&mut self) -> Option<String> {
        let frame = tokio::time::timeout(Duration::from_secs(20), self.0.frame()).await.unwrap()?;
        Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    }
}

/// An API server that knows one token, and what admin and reader may do.
#[derive(Clone, Default)]
pub(super) struct Api {
    state: Arc<Mutex<ApiState>>,
}

#[derive(Default)]
struct ApiState {
    reviews: Vec<Value>,
    token_reviews: usize,
    broken: bool,
}

impl Api {
    fn client(&self) -> kube::Client {
        let state = Arc::clone(&self.state);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let state = Arc::clone(&state);
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect_bytes().await?;
                let (code, answer) = state.lock().unwrap().answer(&path, serde_json::from_slice(&body)?);
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                Ok::<_, Failure>(http::Response::builder().status(code).body(body)?)
            }
        });
        kube::Client::new(service, "default")
    }

    pub(super) fn reviews(&self) -> Vec<Value> {
        self.state.lock().unwrap().reviews.clone()
    }

    pub(super) fn token_reviews(&self) -> usize {
        self.state.lock().unwrap().token_reviews
    }

    pub(super) fn break_down(&self) {
        self.state.lock().unwrap().broken = true;
    }
}

impl ApiState {
    fn answer(&mut self, path: &str, mut review: Value) -> (u16, Value) {
        if self.broken {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "broken",
                "reason": "InternalError", "code": 500 });
            return (500, status);
        }
        match path {
            "/apis/authentication.k8s.io/v1/tokenreviews" => {
                self.token_reviews += 1;
                let user =
                    json!({ "username": "system:serviceaccount:ns:monitor", "groups": ["system:serviceaccounts"] });
                let known = review["spec"]["token"] == "right";
                review["status"] = if known { json!({ "authenticated": true, "user": user }) } else { json!({}) };
            }
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                self.reviews.push(review.clone());
                let reader = review["spec"]["user"] == "reader";
                let metrics = review["spec"]["resourceAttributes"]["subresource"] == "metrics";
                review["status"] = json!({ "allowed": !reader || metrics });
            }
            _ => panic!("{path} is not asked for"),
        }
        (201, review)
    }
}

/// One pod with a container that runs (its instance is `one`) and one that waits.
pub(super) struct TestPods {
    logs: PathBuf,
    state: Mutex<PodState>,
}

struct PodState {
    ended: HashSet<String>,
    alive: bool,
}

impl TestPods {
    fn new(logs: PathBuf) -> Self {
        fs::create_dir_all(&logs).unwrap();
        Self { logs, state: Mutex::new(PodState { ended: HashSet::new(), alive: true }) }
    }

    /// Appends entries, without their times, to the log of an instance.
    pub(super) fn write(&self, id: &str, entries: &[&str]) {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.logs.join(id));
        let text: String = entries.iter().map(|entry| format!("2026-01-01T00:00:00.000000001Z {entry}\n")).collect();
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(super) fn end(&self, id: &str) {
        self.state.lock().unwrap().ended.insert(id.to_owned());
    }

    pub(super) fn set_alive(&self, alive: bool) {
        self.state.lock().unwrap().alive = alive;
    }

    fn pod() -> Arc<Pod> {
        let status = |name: &str, id: &str, state: Value| {
            json!({ "name": name, "containerID": id, "state": state, "image": "i", "imageID": "", "ready": true,
                "restartCount": 0 })
        };
        let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
        let pod = json!({
            "metadata": { "namespace": "ns", "name": "web" },
            "spec": { "containers": [{ "name": "app" }, { "name": "late" }] },
            "status": { "containerStatuses": [
                status("app", "wasklet://one", json!({ "running": {} })), status("late", "", waiting),
            ] },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }
}

impl Pods for TestPods {
    fn list(&self) -> Vec<Arc<Pod>> {
        vec![Self::pod()]
    }

    fn static_pods(&self) -> (usize, usize) {
        (0, 0)
    }

    fn running(&self) -> Vec<Arc<Pod>> {
        vec![Self::pod()]
    }

    fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        ((namespace, name) == ("ns", "web")).then(Self::pod)
    }

    fn log_path(&self, _pod: &Pod, _container: &str, container_id: &str) -> Option<PathBuf> {
        Some(self.logs.join(container_id))
    }

    fn is_running(&self, _pod: &Pod, container_id: &str) -> bool {
        !self.state.lock().unwrap().ended.contains(container_id)
    }

    fn is_alive(&self) -> bool {
        self.state.lock().unwrap().alive
    }
}

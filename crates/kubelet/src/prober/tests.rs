//! Probes against servers that really listen.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use cri::fake::{Exec, Fake};
use cri::v1;
use decide::event::ProbeResult;
use decide::names::ContainerId;
use decide::parse::parse;
use decide::pod::{Pod, ProbeKind};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Asked, Prober, user_agent};
use crate::certificates;
use crate::metrics::Metrics;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Bed {
    prober: Prober,
    metrics: Arc<Metrics>,
    fake: Fake,
}

impl Bed {
    fn new() -> Self {
        let (metrics, fake) = (Arc::new(Metrics::new("node")), Fake::new());
        Self { prober: Prober::new(fake.client(), Arc::clone(&metrics)), metrics, fake }
    }

    /// What a readiness probe of `handler` tells.
    async fn probe(&self, handler: Value) -> ProbeResult {
        let pod = pod(handler);
        let container = pod.containers.iter().next().unwrap();
        let id = ContainerId::from("id");
        let asked = Asked { pod: &pod, pod_ip: Some(LOCAL), container, id: &id };
        self.prober.probe(asked, ProbeKind::Readiness).await
    }
}

async fn probe(handler: Value) -> ProbeResult {
    Bed::new().probe(handler).await
}

/// A pod of one container with that readiness probe, whose port `web` is 8080.
fn pod(mut handler: Value) -> Pod {
    handler["timeoutSeconds"] = json!(1);
    let object = json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u" },
        "spec": { "containers": [{
            "name": "c", "image": "i", "ports": [{ "name": "web", "containerPort": 8080 }],
            "env": [{ "name": "WORD", "value": "hello" }],
            "readinessProbe": handler,
        }] },
    });
    parse(Arc::new(serde_json::from_value(object).unwrap())).map_err(|refused| refused.rejection.message).unwrap()
}

fn failure(result: ProbeResult) -> String {
    match result {
        ProbeResult::Failure(why) => why,
        other => panic!("it is no failure: {other:?}"),
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn serve(routes: Router) -> u16 {
    let (listener, port) = listener().await;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    port
}

/// Calls `handle` with each connection.
async fn accept<F: Future<Output = ()> + Send + 'static>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> u16 {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    port
}

fn http(port: u16, path: &str) -> Value {
    json!({ "httpGet": { "port": port, "path": path } })
}

#[tokio::test]
async fn statuses_from_200_to_399_are_success() {
    let routes = Router::new()
        .route("/{status}", get(async |uri: Uri| StatusCode::from_u16(uri.path()[1..].parse().unwrap()).unwrap()));
    let port = serve(routes).await;
    for status in [200, 204, 299] {
        assert_eq!(probe(http(port, &format!("/{status}"))).await, ProbeResult::Success, "{status}");
    }
    for status in [304, 399] {
        let result = probe(http(port, &format!("/{status}"))).await;
        assert_eq!(result, ProbeResult::Warning("Probe terminated redirects, Response body: ".into()), "{status}");
    }
    for status in [400, 404, 500, 503] {
        let why = failure(probe(http(port, &format!("/{status}"))).await);
        assert_eq!(why, format!("HTTP probe failed with statuscode: {status}"));
    }
}

/// What came in, as the body of a redirect that leads elsewhere, so that the probe tells it.
async fn told(uri: Uri, headers: HeaderMap) -> impl IntoResponse {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
    lines.sort();
    (StatusCode::FOUND, [("location", "http://elsewhere/")], format!("{uri} {}", lines.join(" ")))
}

async fn echoed(handler: Value) -> String {
    match probe(handler).await {
        ProbeResult::Warning(text) => text.replace("Probe terminated redirects, Response body: ", ""),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_are_those_of_the_kubelet() {
    let port = serve(Router::new().fallback(told)).await;
    assert_eq!(user_agent("probe"), "kube-probe/1.37");
    let plain = echoed(http(port, "/a b?c=d#e")).await;
    let expected = "accept=*/* connection=close";
    assert_eq!(plain, format!("/a%20b?c=d {expected} host=127.0.0.1:{port} user-agent=kube-probe/1.37"));
    let headers = json!([
        { "name": "Host", "value": "web.example" }, { "name": "X-Word", "value": "a" }, { "name": "x-word", "value": "b" },
        { "name": "User-Agent", "value": "mine" }, { "name": "Accept", "value": "" }, { "name": "Content-Length", "value": "7" },
    ]);
    let own = echoed(json!({ "httpGet": { "port": port, "path": "/", "httpHeaders": headers } })).await;
    assert_eq!(own, "/ connection=close host=web.example user-agent=mine x-word=a x-word=b");
}

#[tokio::test]
async fn redirects_are_followed_at_the_host_and_end_elsewhere() {
    let routes = Router::new()
        .route("/to/ok", get(async || (StatusCode::FOUND, [("location", "../ok?from=here")])))
        .route("/to/bad", get(async || Redirect::permanent("/bad")))
        .route("/to/nowhere", get(async || StatusCode::FOUND))
        .route("/to/itself", get(async || Redirect::temporary("/to/itself")))
        .route("/to/ftp", get(async || Redirect::temporary("ftp://127.0.0.1/")))
        .route("/away", get(async || (StatusCode::FOUND, [("location", "http://0.0.0.0/")], "go away")))
        .route("/ok", get(async || "ok"))
        .route("/bad", get(async || StatusCode::INTERNAL_SERVER_ERROR));
    let port = serve(routes).await;
    assert_eq!(probe(http(port, "/to/ok")).await, ProbeResult::Success);
    assert_eq!(failure(probe(http(port, "/to/bad")).await), "HTTP probe failed with statuscode: 500");
    let warning = |body: &str| ProbeResult::Warning(format!("Probe terminated redirects, Response body: {body}"));
    assert_eq!(probe(http(port, "/to/nowhere")).await, warning(""));
    assert_eq!(probe(http(port, "/away")).await, warning("go away"));
    let url = format!("http://127.0.0.1:{port}/to/");
    assert_eq!(
        failure(probe(http(port, "/to/itself")).await),
        format!("Get \"{url}itself\": stopped after 10 redirects")
    );
    let ftp = failure(probe(http(port, "/to/ftp")).await);
    assert!(ftp.contains("unsupported protocol scheme \"ftp\""), "{ftp}");
}

#[tokio::test]
async fn a_redirect_may_change_port_and_scheme_and_leaves_a_foreign_host_header_behind() {
    let end = serve(Router::new().fallback(told)).await;
    let location = format!("http://127.0.0.1:{end}/end");
    let begin = serve(Router::new().fallback(get(async move || Redirect::temporary(&location)))).await;
    let headers = json!([{ "name": "Host", "value": "web.example" }, { "name": "X-Kept", "value": "a" }]);
    let text = echoed(json!({ "httpGet": { "port": begin, "path": "/", "httpHeaders": headers } })).await;
    assert!(text.starts_with("/end ") && text.contains(&format!("host=127.0.0.1:{end}")), "{text}");
    assert!(text.contains("x-kept=a"), "{text}");
}

#[tokio::test]
async fn no_more_than_10_kib_of_a_body_are_read() {
    let endless = async || {
        let chunks = futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1000])));
        (StatusCode::FOUND, [("location", "http://elsewhere/")], Body::from_stream(chunks))
    };
    let port = serve(Router::new().route("/", get(endless))).await;
    assert_eq!(echoed(http(port, "/")).await, "x".repeat(10 * 1024));
}

#[tokio::test]
async fn what_does_not_answer_in_time_has_failed_and_a_body_that_does_not_come_tells_nothing() {
    let silent = accept(async |stream| {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let why = failure(probe(http(silent, "/a")).await);
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    assert_eq!(why, format!("Get \"http://127.0.0.1:{silent}/a\": {late}"));
    let half = accept(async |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let late = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    assert_eq!(probe(http(half, "/")).await, ProbeResult::Errored { state: "failure", message: late.into() });
}

#[tokio::test]
async fn what_is_not_there_and_what_is_no_http_has_failed() {
    let (gone, port) = listener().await;
    drop(gone);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(failure(probe(http(port, "/")).await), format!("Get \"http://127.0.0.1:{port}/\": {refused}"));
    assert_eq!(failure(probe(json!({ "tcpSocket": { "port": port } })).await), refused);
    let why = failure(probe(json!({ "grpc": { "port": port } })).await);
    assert_eq!(why, format!("error: failed to connect service at \"127.0.0.1:{port}\": {refused}"));
    let closing = accept(async |stream| drop(stream)).await;
    failure(probe(http(closing, "/")).await);
    let garbage = accept(async |mut stream| stream.write_all(b"SSH-2.0-x\r\n\r\n").await.unwrap()).await;
    failure(probe(http(garbage, "/")).await);
    failure(probe(json!({ "httpGet": { "port": garbage, "path": "/", "scheme": "HTTPS" } })).await);
}

#[tokio::test]
async fn ports_have_names_and_hosts_can_be_named() {
    let bed = Bed::new();
    let unknown = ProbeResult::Errored { state: "unknown", message: "port \"admin\" not found".into() };
    for handler in [json!({ "httpGet": { "port": "admin", "path": "/" } }), json!({ "tcpSocket": { "port": "admin" } })]
    {
        assert_eq!(bed.probe(handler).await, unknown);
    }
    let named = failure(bed.probe(json!({ "tcpSocket": { "port": "web", "host": "127.0.0.1" } })).await);
    assert!(named.starts_with("dial tcp 127.0.0.1:8080: "), "{named}");
    let port = accept(async |stream| drop(stream)).await;
    assert_eq!(bed.probe(json!({ "tcpSocket": { "port": port, "host": "localhost" } })).await, ProbeResult::Success);
    // What told nothing is not counted.
    let counted = bed.metrics.render_probes();
    let labels = "container=\"c\",namespace=\"n\",pod=\"p\",pod_uid=\"u\",probe_type=\"Readiness\"";
    assert!(counted.contains(&format!("prober_probe_total{{{labels},result=\"failed\"}} 1\n")), "{counted}");
    assert!(counted.contains(&format!("prober_probe_total{{{labels},result=\"successful\"}} 1\n")), "{counted}");
    assert!(counted.contains("prober_probe_duration_seconds_count{"), "{counted}");
    bed.metrics.forget_probes_of(&"u".into());
    assert!(!bed.metrics.render_probes().contains("pod_uid"));
}

/// A TLS server for connections that speak what `alpn` says, with a certificate that nobody signed, for another name.
fn acceptor(alpn: &[&[u8]]) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["nobody.example".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(certificates::provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves `routes` by whichever HTTP the client begins with.
async fn http_over<S>(stream: S, routes: Router)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper_util::service::TowerToHyperService::new(routes);
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn https_does_not_look_at_the_certificate_and_speaks_what_is_agreed() {
    let version = async |request: axum::extract::Request| {
        (StatusCode::FOUND, [("location", "http://elsewhere/")], format!("{:?} {}", request.version(), request.uri()))
    };
    for (alpn, begins) in [(&[][..], "HTTP/1.1 /a"), (&[&b"h2"[..]][..], "HTTP/2.0 https://127.0.0.1:")] {
        let acceptor = acceptor(alpn);
        let port = accept(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let stream = acceptor.accept(stream).await.unwrap();
                http_over(stream, Router::new().fallback(version)).await;
            }
        })
        .await;
        let text = echoed(json!({ "httpGet": { "port": port, "path": "/a", "scheme": "HTTPS" } })).await;
        assert!(text.starts_with(begins), "{text}");
    }
    let port = accept(move |stream| http_over(stream, Router::new().fallback(version))).await;
    let text = echoed(json!({ "httpGet": { "port": port, "path": "/a", "protocol": "HTTP2" } })).await;
    assert!(text.starts_with("HTTP/2.0 http://127.0.0.1:"), "{text}");
}

/// A health server that knows one service and answers with `status` of the protocol.
async fn health(request: axum::extract::Request) -> axum::response::Response {
    assert_eq!(request.headers()["user-agent"], "kube-probe/1.37");
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1000).await.unwrap();
    let service = String::from_utf8_lossy(body.get(7..).unwrap_or_default()).into_owned();
    let (status, code) = match (path.as_str(), service.as_str()) {
        ("/grpc.health.v1.Health/Check", "") => (Some(1), "0"),
        ("/grpc.health.v1.Health/Check", "down") => (Some(2), "0"),
        ("/grpc.health.v1.Health/Check", "old") => (None, "12"),
        ("/grpc.health.v1.Health/Check", "slow") => std::future::pending().await,
        _ => (None, "5"),
    };
    let message = status.map(|status| Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status])));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers.insert("grpc-message", "as%20asked".parse().unwrap());
    let frames = message.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, Infallible>);
    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
    ([("content-type", "application/grpc")], body).into_response()
}

#[tokio::test]
async fn grpc_asks_for_a_service_and_tells_what_is_wrong() {
    let port = accept(async |stream| http_over(stream, Router::new().fallback(health)).await).await;
    let ask = async |service: &str| probe(json!({ "grpc": { "port": port, "service": service } })).await;
    assert_eq!(probe(json!({ "grpc": { "port": port } })).await, ProbeResult::Success);
    assert_eq!(failure(ask("down").await), "service unhealthy (responded with \"NOT_SERVING\")");
    let old = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): as asked";
    assert_eq!(failure(ask("old").await), old);
    let unknown = "error: health rpc probe failed: rpc error: code = NotFound desc = as asked";
    assert_eq!(failure(ask("unknown").await), unknown);
    assert_eq!(failure(ask("slow").await), "timeout: health rpc did not complete within 1s");
    let acceptor = acceptor(&[b"h2"]);
    let tls = accept(move |stream| {
        let acceptor = acceptor.clone();
        async move { http_over(acceptor.accept(stream).await.unwrap(), Router::new().fallback(health)).await }
    })
    .await;
    assert_eq!(probe(json!({ "grpc": { "port": tls, "mode": "TLS" } })).await, ProbeResult::Success);
    let silent = accept(async |stream| {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    failure(probe(json!({ "grpc": { "port": silent } })).await);
}

#[tokio::test]
async fn addresses_of_either_family_are_asked() {
    let Ok(listener) = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))).await else {
        return;
    };
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(told)).await });
    let text = echoed(json!({ "httpGet": { "port": port, "host": "::1", "path": "/" } })).await;
    assert!(text.contains(&format!("host=[::1]:{port}")), "{text}");
}

/// The id of a container that runs on the fake.
async fn running(fake: &Fake) -> String {
    fake.script().image("i");
    let client = fake.client();
    let metadata = v1::PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 };
    let sandbox = v1::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    let sandbox_id = client.run_pod_sandbox(sandbox.clone(), "").await.unwrap();
    let image = v1::ImageSpec { image: "i".into(), ..Default::default() };
    client.pull_image(image.clone(), None, None).await.unwrap();
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(image),
        ..Default::default()
    };
    let id = client.create_container(&sandbox_id, config, sandbox).await.unwrap();
    client.start_container(&id).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn commands_tell_by_their_exit_code() {
    let bed = Bed::new();
    let id = ContainerId::from(running(&bed.fake).await.as_str());
    let exit = |code, stdout: &str, stderr: &str| Exec::Exit { code, stdout: stdout.into(), stderr: stderr.into() };
    bed.fake
        .script()
        .on_exec("i", &["check", "hello", "$(OTHER)"], exit(0, "fine", ""))
        .on_exec("i", &["fail"], exit(2, "out ", "err"))
        .on_exec("i", &["hang"], Exec::Hang);
    let ask = async |command: Value| {
        let pod = pod(json!({ "exec": { "command": command } }));
        let container = pod.containers.iter().next().unwrap();
        let asked = Asked { pod: &pod, pod_ip: None, container, id: &id };
        bed.prober.probe(asked, ProbeKind::Readiness).await
    };
    assert_eq!(ask(json!(["check", "$(WORD)", "$(OTHER)"])).await, ProbeResult::Success);
    assert_eq!(ask(json!(["fail"])).await, ProbeResult::Failure("out err".into()));
    assert_eq!(failure(ask(json!(["hang"])).await), "command \"hang\" timed out");
    let before = bed.fake.calls().len();
    let unknown = ask(json!(["unknown"])).await;
    assert!(matches!(unknown, ProbeResult::Errored { state: "unknown", .. }), "{unknown:?}");
    assert_eq!(bed.fake.calls().len() - before, 3, "what does not work is tried three times");
}

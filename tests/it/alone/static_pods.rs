//! A kubelet without an API server: pods come from files, and go with them.

use std::process::{Command, Stdio};

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::bed::node::configuration;
use crate::bed::place::Place;
use crate::bed::process::{Process, WASKLET, command};
use crate::bed::{PATIENCE, guests, http, ports};

/// An HTTP guest. It is at the node's own address: without an API server there is no podCIDR.
fn manifest(name: &str, image: &str, port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: test.invalid/guests/{image}:v1
    ports: [{{containerPort: {port}}}]
"
    )
}

#[tokio::test]
async fn static_pods_come_and_go_with_their_files() -> Result<()> {
    let place = Place::new().await?;
    let manifests = place.directory("manifests")?;
    let (first, second) = (ports::free()?, ports::free()?);
    let node_ip = ports::own_address()?;
    place.put("manifests/first.yaml", manifest("first", "http-answers", first))?;
    place.put("manifests/broken.yaml", "kind: Deployment\n")?;

    let config = place.put("config.yaml", configuration(&place.path("")))?;
    let kubelet = || -> Result<Command> {
        let mut kubelet = command(WASKLET);
        kubelet.args(["kubelet", "--file-check-frequency=1s", "--healthz-port=0", "--hostname-override=edge"]);
        kubelet.args([format!("--config={config}"), format!("--pod-manifest-path={manifests}")]);
        kubelet.arg(format!("--node-ip={node_ip}"));
        kubelet.arg(format!("--port={}", ports::free()?)).arg("--root-dir").arg(place.path("root"));
        kubelet.env("WASKLET_IMAGE_LAYOUT", futures::executor::block_on(guests::without_compiler())?);
        kubelet.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(kubelet)
    };
    let mut wasklet = Process::start(kubelet()?).await?;
    assert_eq!(http::await_answer((node_ip, first), "/").await?, "hello over http\n");
    wasklet.await_stderr("the broken file's name", |said| said.contains("broken.yaml")).await?;

    place.put("manifests/second.yaml", manifest("second", "http-answers", second))?;
    assert_eq!(http::await_answer((node_ip, second), "/").await?, "hello over http\n");

    std::fs::remove_file(place.path("manifests/first.yaml"))?;
    http::await_silence((node_ip, first)).await?;
    assert_eq!(http::get((node_ip, second), "/").await?.status, 200, "the other pod runs on");

    // A crash: what the files say is true again afterwards.
    wasklet.kill().await?;
    http::await_silence((node_ip, second)).await?;
    let mut wasklet = Process::start(kubelet()?).await?;
    assert_eq!(http::await_answer((node_ip, second), "/").await?, "hello over http\n");

    wasklet.signal(Signal::TERM);
    assert_eq!(wasklet.await_end(PATIENCE).await?, 0);
    http::await_silence((node_ip, second)).await
}

/// A page at a URL that only those see who know the word.
async fn page(body: watch::Receiver<String>) -> Result<u16> {
    let answer = async |State(body): State<watch::Receiver<String>>, headers: HeaderMap| {
        let knows = headers.get("authorization").is_some_and(|said| said == "Bearer open-sesame");
        if knows { Ok(body.borrow().clone()) } else { Err(StatusCode::FORBIDDEN) }
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let routes = Router::new().route("/edge", axum::routing::get(answer)).with_state(body);
    tokio::spawn(async { axum::serve(listener, routes).await });
    Ok(port)
}

#[tokio::test]
async fn static_pods_come_and_go_with_a_url() -> Result<()> {
    let place = Place::new().await?;
    let (port, node_ip) = (ports::free()?, ports::own_address()?);
    let (said, body) = watch::channel(manifest("web", "http-answers", port));
    let url = format!("http://127.0.0.1:{}/edge", page(body).await?);
    let config = place.put("config.yaml", configuration(&place.path("")))?;
    let mut kubelet = command(WASKLET);
    kubelet.args(["kubelet", "--http-check-frequency=1s", "--healthz-port=0", "--hostname-override=edge"]);
    kubelet.args(["--manifest-url-header=Authorization:Bearer open-sesame", &format!("--manifest-url={url}")]);
    kubelet.args([format!("--config={config}"), format!("--node-ip={node_ip}"), format!("--port={}", ports::free()?)]);
    kubelet.arg("--root-dir").arg(place.path("root"));
    kubelet.env("WASKLET_IMAGE_LAYOUT", guests::without_compiler().await?);
    kubelet.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut wasklet = Process::start(kubelet).await?;
    assert_eq!(http::await_answer((node_ip, port), "/").await?, "hello over http\n");
    said.send_replace("no pod at all".to_owned());
    wasklet.await_stderr("what is wrong", |said| said.contains("neither a Pod nor a PodList")).await?;
    assert_eq!(http::get((node_ip, port), "/").await?.status, 200, "the pod runs on");
    said.send_replace(String::new());
    http::await_silence((node_ip, port)).await?;
    wasklet.signal(Signal::TERM);
    let ended = wasklet.ended().await?;
    assert_eq!(ended.code, 0);
    assert!(!ended.stderr.contains("open-sesame"), "the log tells the word: {}", ended.stderr);
    Ok(())
}

//! A kubelet without an API server: pods come from files, and go with them.

use std::process::{Command, Stdio};

use anyhow::Result;
use rustix::process::Signal;

use crate::bed::node::configuration;
use crate::bed::place::Place;
use crate::bed::process::{Process, WASKLET, command};
use crate::bed::{PATIENCE, guests, http, ports};

/// An HTTP guest on the node's own address: without an API server there is no podCIDR.
fn manifest(name: &str, image: &str, port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  hostNetwork: true
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

//! The examples, applied with kubectl as the README says, and looked at as a user would.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::bed::scene::{at, on_shared_node};
use crate::bed::{PATIENCE, http, until};

#[tokio::test]
async fn hello_http_answers_on_its_address_until_it_is_deleted() -> Result<()> {
    on_shared_node(async |scene| {
        scene.kubectl(&["apply", "--filename", "examples/hello-http/pod.yaml"]).await?;
        let pod = scene.namespace.await_condition("hello-http", "Ready").await?;
        let address = at(&pod, 8080)?;
        let body = http::await_answer(address, "/some/path").await?;
        assert!(body.starts_with("Hello from pod hello-http!\nYou asked for /some/path"), "{body}");

        let wide = scene.kubectl(&["get", "pod", "hello-http", "--output=wide"]).await?;
        let ip = address.ip().to_string();
        for word in ["1/1", "Running", &ip, scene.node.name()] {
            assert!(wide.contains(word), "{word:?} is not in {wide}");
        }
        // Events are written a moment after what they tell of.
        until("the events", PATIENCE, async || {
            let described = scene.kubectl(&["describe", "pod", "hello-http"]).await?;
            for reason in ["Scheduled", "Pulled", "Created", "Started"] {
                let told = |line: &str| line.split_whitespace().nth(1) == Some(reason);
                described.lines().find(|line| told(line)).with_context(|| format!("no {reason} in {described}"))?;
            }
            Ok(())
        })
        .await?;

        let asked = Instant::now();
        scene.kubectl(&["delete", "pod", "hello-http"]).await?;
        assert!(asked.elapsed() < Duration::from_secs(20), "an idle pod took {:?} to end", asked.elapsed());
        http::await_silence(address).await
    })
    .await
}

#[tokio::test]
async fn hello_prints_its_line_and_succeeds() -> Result<()> {
    on_shared_node(async |scene| {
        scene.kubectl(&["apply", "--filename", "examples/hello/pod.yaml"]).await?;
        let pod = scene.namespace.await_phase("hello", "Succeeded").await?;
        assert_eq!(crate::bed::scene::exit_code(&pod, "hello"), Some(0));
        let log = scene.kubectl(&["logs", "hello"]).await?;
        assert_eq!(log, "Hello from pod hello: a WebAssembly program on a Kubernetes node.\n");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn logs_are_read_as_kubectl_reads_them() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
restartPolicy: Never
containers:
- name: main
  image: test.invalid/guests/arguments:v1
  args: [first, second, third]
";
        scene.apply_pod("lines", spec).await?;
        scene.namespace.await_phase("lines", "Succeeded").await?;
        let all = scene.kubectl(&["logs", "lines"]).await?;
        assert!(all.ends_with("\nfirst\nsecond\nthird\n"), "{all:?}");
        assert_eq!(scene.kubectl(&["logs", "lines", "--tail=2"]).await?, "second\nthird\n");
        assert_eq!(scene.kubectl(&["logs", "lines", "--tail=2", "--limit-bytes=8"]).await?, "second\nt");
        assert_eq!(scene.kubectl(&["logs", "lines", "--since=1h", "-c", "main"]).await?, all);
        let stamped = scene.kubectl(&["logs", "lines", "--tail=1", "--timestamps"]).await?;
        let (time, text) = stamped.split_once(' ').context("a line without a time")?;
        assert_eq!(text, "third\n");
        let time: k8s_openapi::jiff::Timestamp = time.parse().with_context(|| format!("{time:?} is no time"))?;
        let after = format!("--since-time={}", time + k8s_openapi::jiff::SignedDuration::from_secs(1));
        assert_eq!(scene.kubectl(&["logs", "lines", &after]).await?, "");
        let unknown = scene.namespace.kubectl(&["logs", "lines", "-c", "other"]).await?;
        assert!(unknown.code != 0 && unknown.stderr.contains("other"), "{unknown:?}");
        let previous = scene.namespace.kubectl(&["logs", "lines", "--previous"]).await?;
        let words = "previous terminated container \"main\" in pod \"lines\" not found";
        assert!(previous.code != 0 && previous.stderr.contains(words), "{previous:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_its_pod() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/ticks:v1
";
        scene.apply_pod("ticks", spec).await?;
        scene.namespace.await_condition("ticks", "Ready").await?;
        let mut command = scene.namespace.kubectl_itself().command(&["logs", "ticks", "--follow"]);
        let mut follow = command.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(follow.stdout.take().context("kubectl has no output")?).lines();
        for _ in 0..5 {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("no further line")??;
            assert_eq!(line.as_deref(), Some("tick"));
        }
        scene.kubectl(&["delete", "pod", "ticks", "--wait=false"]).await?;
        let rest = async {
            while lines.next_line().await?.is_some() {}
            Ok::<_, std::io::Error>(())
        };
        tokio::time::timeout(PATIENCE, rest).await.context("the log goes on after its pod")??;
        let status = tokio::time::timeout(PATIENCE, follow.wait()).await.context("kubectl goes on")??;
        assert!(status.success(), "kubectl logs --follow ended with {status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deployment_scales_up_and_down() -> Result<()> {
    on_shared_node(async |scene| {
        let scheduling = scene.node.scheduling("      ");
        let deployment = format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
{scheduling}      containers:
      - name: main
        image: test.invalid/guests/http-answers:v1
        ports: [{{containerPort: 8080}}]
"
        );
        scene.namespace.apply(&deployment).await?;
        for replicas in [3_usize, 5, 1] {
            scene.kubectl(&["scale", "deployment/web", &format!("--replicas={replicas}")]).await?;
            scene.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).await?;
            let addresses = until("as many pods as replicas", PATIENCE, async || {
                let addresses = web_addresses(scene).await?;
                anyhow::ensure!(addresses.len() == replicas, "{addresses:?}");
                Ok(addresses)
            })
            .await?;
            let distinct: std::collections::BTreeSet<_> = addresses.iter().collect();
            assert_eq!(distinct.len(), replicas, "pods share an address: {addresses:?}");
            for address in addresses {
                assert_eq!(http::await_answer((address, 8080), "/").await?, "hello over http\n");
            }
        }
        scene.kubectl(&["scale", "deployment/web", "--replicas=0"]).await?;
        until("no pod to be left", PATIENCE, async || {
            let left = web_addresses(scene).await?;
            anyhow::ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await
    })
    .await
}

async fn web_addresses(scene: &crate::bed::scene::Scene<'_>) -> Result<Vec<std::net::IpAddr>> {
    let pods = scene.namespace.api::<k8s_openapi::api::core::v1::Pod>();
    let list = pods.list(&kube::api::ListParams::default().labels("app=web")).await?;
    let addresses: Vec<_> = list.iter().filter_map(|pod| crate::bed::scene::address(pod).ok()).collect();
    anyhow::ensure!(addresses.len() == list.items.len(), "{} pods, addresses {addresses:?}", list.items.len());
    Ok(addresses)
}

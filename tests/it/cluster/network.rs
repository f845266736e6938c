//! Pods among themselves: addresses, ports, and who is seen as whom.

use anyhow::{Context, Result};

use crate::bed::node::NodeOptions;
use crate::bed::scene::{Scene, address, at, container, on_own_node, on_shared_node};
use crate::bed::{http, ports};

const SERVER: &str = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/sockets:v1
  args: [serve]
";

const UDP_SERVER: &str = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/sockets:v1
  args: [udp-serve]
";

/// Runs the client in a pod of its own and gives what it printed, after the pod's own address.
async fn client(scene: &Scene<'_>, name: &str, arguments: &str) -> Result<(String, String)> {
    let spec = format!(
        "
restartPolicy: Never
containers:
- name: main
  image: test.invalid/guests/sockets:v1
  args: [{arguments}]
"
    );
    scene.apply_pod(name, &spec).await?;
    let pod = scene.namespace.await_phase(name, "Succeeded").await?;
    Ok((address(&pod)?.to_string(), scene.log(name, "main").await?))
}

fn told<'a>(log: &'a str, word: &str) -> Result<&'a str> {
    let line = log.lines().find_map(|line| line.strip_prefix(word));
    line.map(str::trim).with_context(|| format!("no {word:?} in {log:?}"))
}

#[tokio::test]
async fn pods_reach_one_another_as_themselves() -> Result<()> {
    on_shared_node(async |scene| {
        // Two servers on the same port, each at its own address, and a third over UDP.
        scene.apply_pod("first", SERVER).await?;
        scene.apply_pod("second", SERVER).await?;
        scene.apply_pod("datagrams", UDP_SERVER).await?;
        for (name, arguments) in [("first", "connect"), ("second", "connect"), ("datagrams", "udp-send")] {
            let server = scene.namespace.await_condition(name, "Ready").await?;
            let listening = at(&server, 7000)?;
            scene.await_log(name, "main", |log| log.contains("listening on")).await?;
            let arguments = format!("{arguments}, '{listening}', whoami");
            let (own, log) = client(scene, &format!("asks-{name}"), &arguments).await?;
            assert_eq!(told(&log, "peer")?, listening.to_string());
            // The server sees the pod itself, not the node.
            let seen: std::net::SocketAddr = told(&log, "answer")?.parse()?;
            assert_eq!(seen.ip().to_string(), own, "{log}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn localhost_is_the_pods_own() -> Result<()> {
    on_shared_node(async |scene| {
        // Both pods listen at 127.0.0.1:7000; in each, a second container finds the one beside it.
        let spec = "
restartPolicy: OnFailure
terminationGracePeriodSeconds: 2
containers:
- name: serves
  image: test.invalid/guests/sockets:v1
  args: [serve]
  env: [{name: ADDRESS, value: 127.0.0.1}]
- name: asks
  image: test.invalid/guests/sockets:v1
  # Until the other listens it ends with 1, and is started again.
  args: [connect, '127.0.0.1:7000', hello from NAME]
";
        for name in ["one", "other"] {
            scene.apply_pod(name, &spec.replace("NAME", name)).await?;
        }
        for name in ["one", "other"] {
            let answered = |log: &str| log.contains("answer");
            let log = scene.await_log(name, "asks", answered).await?;
            assert_eq!(told(&log, "answer")?, format!("hello from {name}"));
            let pod = scene.pod(name).await?;
            assert!(tokio::net::TcpStream::connect(at(&pod, 7000)?).await.is_err(), "localhost is open to others");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_that_may_add_no_route_shares_its_address() -> Result<()> {
    let options = NodeOptions { no_routes: true, ..NodeOptions::default() };
    on_own_node("shim", options, async |scene| {
        let port = ports::free()?;
        let spec = format!(
            "
terminationGracePeriodSeconds: 2
restartPolicy: Never
containers:
- name: main
  image: test.invalid/guests/http-answers:v1
  ports: [{{containerPort: {port}}}]
"
        );
        scene.apply_pod("first", &spec).await?;
        let first = scene.namespace.await_condition("first", "Ready").await?;
        assert_eq!(address(&first)?, scene.node.address());
        assert_eq!(http::await_answer((scene.node.address(), port), "/").await?, "hello over http\n");

        // A clash of ports is told, and harms only who comes second.
        scene.apply_pod("second", &spec).await?;
        let second = scene.namespace.await_phase("second", "Failed").await?;
        let ended = container(&second, "main").and_then(|status| status.state.clone()?.terminated);
        let ended = ended.context("the container has not ended")?;
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (128, Some("StartError")));
        let message = ended.message.unwrap_or_default();
        assert!(message.contains(&format!(":{port}")) && message.contains("in use"), "{message:?}");
        assert_eq!(http::get((scene.node.address(), port), "/").await?.body, "hello over http\n");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn guests_read_who_they_are() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
restartPolicy: Never
hostname: somebody
hostAliases: [{ip: 192.0.2.77, hostnames: [elsewhere, far-away]}]
containers:
- name: hosts
  image: test.invalid/guests/reads:v1
  args: [/etc/hosts]
- name: hostname
  image: test.invalid/guests/reads:v1
  args: [/etc/hostname]
- name: resolver
  image: test.invalid/guests/reads:v1
  args: [/etc/resolv.conf]
";
        scene.apply_pod("reads", spec).await?;
        let pod = scene.namespace.await_phase("reads", "Succeeded").await?;
        let hosts = scene.log("reads", "hosts").await?;
        assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n"), "{hosts}");
        for line in [format!("{}\tsomebody", address(&pod)?), "192.0.2.77\telsewhere\tfar-away".to_owned()] {
            assert!(hosts.lines().any(|each| each == line), "{line:?} is not in {hosts}");
        }
        assert_eq!(scene.log("reads", "hostname").await?.trim_end(), "somebody");
        assert!(scene.log("reads", "resolver").await?.contains("nameserver"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_host_port_leads_to_its_pod() -> Result<()> {
    on_shared_node(async |scene| {
        let port = ports::free()?;
        let spec = format!(
            "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/http-answers:v1
  ports: [{{containerPort: 8080, hostPort: {port}}}]
"
        );
        scene.apply_pod("published", &spec).await?;
        let pod = scene.namespace.await_condition("published", "Ready").await?;
        assert_eq!(http::await_answer((scene.node.address(), port), "/").await?, "hello over http\n");
        assert_eq!(http::await_answer(at(&pod, 8080)?, "/").await?, "hello over http\n");
        scene.kubectl(&["delete", "pod", "published"]).await?;
        http::await_silence((scene.node.address(), port)).await
    })
    .await
}

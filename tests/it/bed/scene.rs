//! Where a cluster test plays: a cluster, a node, a namespace of its own.
//!
//! Comes in: a test. Goes out: its verdict, and where it failed the end of the node's log. Never here: what is tested.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::LogParams;
use testbed::cluster::{Cluster, Namespace};
use testbed::control_plane::Options;

use super::node::{NodeOptions, WasmNode};
use super::{PATIENCE, until};

/// What a test has around it.
pub(crate) struct Scene<'a> {
    /// The cluster, and its administrator's means.
    pub(crate) cluster: &'a Cluster,
    /// The node that the test's pods run on.
    pub(crate) node: &'a WasmNode,
    /// The test's own namespace.
    pub(crate) namespace: &'a Namespace,
}

/// Plays the test on the node that all share.
pub(crate) async fn on_shared_node(test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    let cluster = Cluster::for_tests().await?;
    let node = WasmNode::shared(&cluster).await?;
    play(&cluster, node, test).await
}

/// Plays the test on a node of its own, which it may kill.
pub(crate) async fn on_own_node(
    name: &str,
    options: NodeOptions,
    test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>,
) -> Result<()> {
    let cluster = Cluster::for_tests().await?;
    let node = WasmNode::own(&cluster, name, options).await?;
    play(&cluster, &node, test).await?;
    node.retire(&cluster).await
}

/// Plays the test on a cluster of its own, whose parts it may stop.
pub(crate) async fn on_own_cluster(
    name: &str,
    cluster: Options,
    node: NodeOptions,
    test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>,
) -> Result<()> {
    let cluster = Cluster::alone(cluster).await?;
    let node = WasmNode::own(&cluster, name, node).await?;
    play(&cluster, &node, test).await?;
    node.retire(&cluster).await
}

async fn play(cluster: &Cluster, node: &WasmNode, test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    let played = cluster.with_namespace(async |namespace| test(&Scene { cluster, node, namespace }).await).await;
    played.with_context(|| format!("the log of node {} ends with:\n{}", node.name(), node.log_tail()))
}

impl Scene<'_> {
    /// Applies a pod of this name for this node; `spec` is YAML.
    pub(crate) async fn apply_pod(&self, name: &str, spec: &str) -> Result<()> {
        self.namespace.apply(&self.node.pod(name, spec)).await
    }

    /// Runs kubectl to its end in the namespace; what it printed, or what went wrong.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.namespace.kubectl(arguments).await?.succeeded()?.stdout)
    }

    /// The pod as it is now.
    pub(crate) async fn pod(&self, name: &str) -> Result<Pod> {
        self.namespace.api::<Pod>().get(name).await.with_context(|| format!("getting pod {name}"))
    }

    /// Waits until the container's log is what it should be, and gives it.
    pub(crate) async fn await_log(&self, pod: &str, container: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        let pods = self.namespace.api::<Pod>();
        let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        until(&format!("the log of {pod}/{container}"), PATIENCE, async || {
            let log = pods.logs(pod, &params).await?;
            if holds(&log) { Ok(log) } else { bail!("it is {log:?}") }
        })
        .await
    }

    /// The log of a container that has ended.
    pub(crate) async fn log(&self, pod: &str, container: &str) -> Result<String> {
        self.await_log(pod, container, |_| true).await
    }
}

/// The pod's address.
pub(crate) fn address(pod: &Pod) -> Result<IpAddr> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("the pod has no address")?;
    address.parse().with_context(|| format!("the pod's address is {address:?}"))
}

/// A port at the pod's address.
pub(crate) fn at(pod: &Pod, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address(pod)?, port))
}

/// The status of the container of this name.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

/// Why the container waits.
pub(crate) fn waiting_reason<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    container(pod, name)?.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// The exit code of the container's present state.
pub(crate) fn exit_code(pod: &Pod, name: &str) -> Option<i32> {
    Some(container(pod, name)?.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// The running container's id.
pub(crate) fn running_id(pod: &Pod, name: &str) -> Result<String> {
    let status = container(pod, name).with_context(|| format!("the pod has no status of container {name}"))?;
    let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
    ensure!(runs, "container {name} does not run: {:?}", status.state);
    status.container_id.clone().context("a running container has no id")
}

//! A node that is full: who has to go, and what the node counts for room.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::bed::node::NodeOptions;
use crate::bed::scene::{Scene, on_own_node, running_id};
use crate::bed::{PATIENCE, until};

/// A pod that is bound past the scheduler, which would have kept it away from a full node.
async fn bind(scene: &Scene<'_>, name: &str, spec: &str) -> Result<()> {
    let node = scene.node.name();
    let manifest = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  tolerations: [{{operator: Exists}}]
{spec}"
    );
    scene.namespace.apply(&manifest).await
}

const SLEEPS: &str = "  containers: [{name: main, image: 'test.invalid/guests/sleeps:v1'}]\n";

#[tokio::test]
async fn a_critical_pod_takes_the_place_of_another() -> Result<()> {
    let flags = vec!["--max-pods=1".to_owned()];
    on_own_node("preempts", NodeOptions { flags, ..NodeOptions::default() }, async |scene| {
        let runs = |pod: &Pod| running_id(pod, "main").is_ok();
        bind(scene, "victim", SLEEPS).await?;
        scene.namespace.await_pod("victim", PATIENCE, runs).await?;
        bind(scene, "plain", SLEEPS).await?;
        let plain = scene.namespace.await_phase("plain", "Failed").await?;
        assert_eq!(plain.status.and_then(|status| status.reason).as_deref(), Some("OutOfpods"));

        bind(scene, "critical", &format!("  priorityClassName: system-cluster-critical\n{SLEEPS}")).await?;
        scene.namespace.await_pod("critical", PATIENCE, runs).await?;
        let status = scene.namespace.await_phase("victim", "Failed").await?.status.context("no status")?;
        assert_eq!(status.reason.as_deref(), Some("Preempting"));
        assert_eq!(status.message.as_deref(), Some("Preempted in order to admit critical pod"));
        let mut conditions = status.conditions.iter().flatten();
        let disruption = conditions.find(|one| one.type_ == "DisruptionTarget").context("no disruption")?;
        assert_eq!(disruption.reason.as_deref(), Some("TerminationByKubelet"));
        until("an event that says so", PATIENCE, async || {
            let events = scene.kubectl(&["events", "--for=pod/victim", "--types=Warning"]).await?;
            ensure!(events.contains("Preempting"), "{events}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn what_an_operator_adds_to_the_node_is_handed_out_once() -> Result<()> {
    let flags = vec!["--node-status-update-frequency=1s".to_owned()];
    on_own_node("dongles", NodeOptions { flags, ..NodeOptions::default() }, async |scene| {
        let nodes: Api<Node> = Api::all(scene.cluster.client());
        let patch = json!({ "status": { "capacity": { "example.com/dongle": "2" } } });
        nodes.patch_status(scene.node.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        let allocatable = |node: &Node| {
            let resources = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
            resources.is_some_and(|resources| resources.contains_key("example.com/dongle"))
        };
        scene.cluster.await_node(scene.node.name(), allocatable).await?;
        let asks = |count: u32| {
            let resources = format!("v1', resources: {{limits: {{example.com/dongle: {count}}}}}");
            SLEEPS.replace("v1'", &resources)
        };
        // The scheduler counts, too.
        scene.apply_pod("first", &asks(1).replacen("  ", "", 1)).await?;
        scene.namespace.await_pod("first", PATIENCE, |pod| running_id(pod, "main").is_ok()).await?;
        bind(scene, "second", &asks(2)).await?;
        let second = scene.namespace.await_phase("second", "Failed").await?;
        assert_eq!(second.status.and_then(|status| status.reason).as_deref(), Some("OutOfexample.com/dongle"));
        Ok(())
    })
    .await
}

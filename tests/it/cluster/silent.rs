//! A node that falls silent: the cluster gives it and its pods up, and when it is back it agrees without running anything
//! twice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use testbed::cluster::has_condition;
use testbed::control_plane::Options;

use crate::bed::node::{NodeOptions, WasmNode, is_ready};
use crate::bed::scene::{at, container, on_own_cluster, running_id};
use crate::bed::{PATIENCE, http};

/// How long the control plane waits for a sign of life. The node gives one each second.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(8);

const WEB: &str = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/http-answers:v1
  ports: [{containerPort: 8080}]
- name: ticks
  image: test.invalid/guests/ticks:v1
";

fn says_ready(pod: &Pod, status: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == status)
}

fn is_unknown(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "Unknown")
}

#[tokio::test]
async fn a_silent_node_is_given_up_and_agrees_when_it_is_back() -> Result<()> {
    let cluster = Options {
        controller_manager_flags: vec![
            format!("--node-monitor-grace-period={}s", GIVEN_UP_AFTER.as_secs()),
            "--node-monitor-period=1s".to_owned(),
        ],
        ..Options::default()
    };
    // The lease is renewed four times in its life.
    let drop_ins = tempfile::tempdir()?;
    let lease = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nnodeLeaseDurationSeconds: 4\n";
    std::fs::write(drop_ins.path().join("lease.conf"), lease)?;
    let flags = vec![format!("--config-dir={}", drop_ins.path().display())];
    // Where no node is left the control plane takes itself for cut off, and evicts nobody.
    let other = NodeOptions { flags: flags.clone(), ..NodeOptions::default() };
    // Its guests go on in a process of their own, as they do on a node that is cut off.
    let node = NodeOptions { flags, runtime_apart: true, ..NodeOptions::default() };
    on_own_cluster("silent", cluster, node, async |scene| {
        let witness = WasmNode::own(scene.cluster, "witness", other).await?;
        let name = scene.node.name();
        scene.apply_pod("stays", WEB).await?;
        let leaves = format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: leaves}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {name}}}
  tolerations:
  - {{key: kubernetes.io/arch, operator: Exists}}
  - {{key: wasklet.test/own, operator: Exists}}
  - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}
  terminationGracePeriodSeconds: 2
  containers: [{{name: main, image: 'test.invalid/guests/http-answers:v1', ports: [{{containerPort: 8080}}]}}]
"
        );
        scene.namespace.apply(&leaves).await?;
        let before = scene.namespace.await_condition("stays", "Ready").await?;
        let leaver = scene.namespace.await_condition("leaves", "Ready").await?;
        let ids = [running_id(&before, "main")?, running_id(&before, "ticks")?];
        let address = at(&before, 8080)?;
        assert_eq!(http::await_answer(address, "/").await?, "hello over http\n");

        scene.node.freeze().await?;
        scene.cluster.await_node(name, is_unknown).await?;
        let unready = |pod: &Pod| says_ready(pod, "False");
        scene.namespace.await_pod("stays", PATIENCE, unready).await?;
        let evicted = |pod: &Pod| pod.metadata.deletion_timestamp.is_some() && has_condition(pod, "DisruptionTarget");
        scene.namespace.await_pod("leaves", PATIENCE, evicted).await?;
        // Nobody is there to do anything about it.
        assert_eq!(http::get(at(&leaver, 8080)?, "/").await?.body, "hello over http\n");
        assert_eq!(http::get(address, "/").await?.body, "hello over http\n");

        scene.node.thaw().await?;
        scene.cluster.await_node(name, is_ready).await?;
        scene.namespace.await_gone("leaves").await?;
        http::await_silence(at(&leaver, 8080)?).await?;
        let after = scene.namespace.await_pod("stays", PATIENCE, |pod| says_ready(pod, "True")).await?;
        assert_eq!([running_id(&after, "main")?, running_id(&after, "ticks")?], ids);
        for one in ["main", "ticks"] {
            let status = container(&after, one).context("no status")?;
            ensure!(
                status.restart_count == 0 && status.last_state.as_ref().is_none_or(|last| last.terminated.is_none()),
                "{status:?}"
            );
        }
        assert_eq!(http::get(address, "/").await?.body, "hello over http\n");
        let lines = scene.log("stays", "ticks").await?.lines().count();
        scene.await_log("stays", "ticks", |log| log.lines().count() > lines).await?;
        witness.retire(scene.cluster).await
    })
    .await
}

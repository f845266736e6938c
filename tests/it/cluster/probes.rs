//! Probes: pods are ready when they say so, and what does not live is started again.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;

use crate::bed::node::Caller;
use crate::bed::scene::{Scene, container, on_shared_node};
use crate::bed::{PATIENCE, until};

/// A container that serves HTTP on a port of the name `web`.
fn serving(guest: &str, probes: &str) -> String {
    format!(
        "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/{guest}:v1
  ports: [{{name: web, containerPort: 8080}}]
{probes}"
    )
}

async fn await_event(scene: &Scene<'_>, pod: &str, words: &str) -> Result<()> {
    until(&format!("an event {words:?}"), PATIENCE, async || {
        let events = scene.kubectl(&["events", "--for", &format!("pod/{pod}")]).await?;
        ensure!(events.contains(words), "{events}");
        Ok(())
    })
    .await
}

fn restarts(pod: &Pod) -> i32 {
    container(pod, "main").map_or(0, |status| status.restart_count)
}

#[tokio::test]
async fn a_server_is_ready_when_it_answers_and_its_probes_are_counted() -> Result<()> {
    on_shared_node(async |scene| {
        let probes = "
  startupProbe: {tcpSocket: {port: web}, periodSeconds: 1}
  livenessProbe: {httpGet: {port: web, path: /live}, periodSeconds: 1}
  readinessProbe: {httpGet: {port: 8080, path: /ready}, periodSeconds: 1}
";
        scene.apply_pod("answers", &serving("http-answers", probes)).await?;
        let pod = scene.namespace.await_condition("answers", "Ready").await?;
        let status = container(&pod, "main").cloned().unwrap_or_default();
        assert_eq!((status.ready, status.started, status.restart_count), (true, Some(true), 0));
        let api = scene.node.api(scene.cluster, Caller::Administrator).await?;
        let pod_labels = format!("namespace=\"{}\",pod=\"answers\"", scene.namespace.name());
        until("successful probes of every kind", PATIENCE, async || {
            let page = api.get("/metrics/probes").await?.succeeded()?;
            for kind in ["Startup", "Liveness", "Readiness"] {
                let counts = |line: &str| {
                    line.starts_with("prober_probe_total{container=\"main\"")
                        && line.contains(&pod_labels)
                        && line.contains(&format!("probe_type=\"{kind}\",result=\"successful\""))
                };
                ensure!(page.lines().any(counts), "no {kind} in {page}");
            }
            Ok(())
        })
        .await?;
        // A pod that is gone has no numbers any more.
        scene.kubectl(&["delete", "pod", "answers"]).await?;
        until("the pod's numbers gone", PATIENCE, async || {
            let page = api.get("/metrics/probes").await?.succeeded()?;
            ensure!(!page.contains(&pod_labels), "{page}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_server_that_fails_is_not_ready_and_is_restarted_for_its_liveness_alone() -> Result<()> {
    on_shared_node(async |scene| {
        let probe = "{httpGet: {port: web, path: /}, periodSeconds: 1, failureThreshold: 2}";
        scene.apply_pod("unready", &serving("http-fails", &format!("  readinessProbe: {probe}\n"))).await?;
        scene.apply_pod("dies", &serving("http-fails", &format!("  livenessProbe: {probe}\n"))).await?;
        let dies = scene.namespace.await_pod("dies", PATIENCE, |pod| restarts(pod) >= 1).await?;
        let last = container(&dies, "main").and_then(|status| status.last_state.clone()?.terminated);
        assert!(last.is_some(), "{:?}", dies.status);
        await_event(scene, "dies", "Liveness probe failed: HTTP probe failed with statuscode: 500").await?;
        await_event(scene, "dies", "Container main failed liveness probe, will be restarted").await?;

        await_event(scene, "unready", "Readiness probe failed: HTTP probe failed with statuscode: 500").await?;
        let unready = scene.pod("unready").await?;
        let status = container(&unready, "main").cloned().unwrap_or_default();
        assert_eq!((status.ready, status.started, status.restart_count), (false, Some(true), 0));
        assert!(!testbed::cluster::has_condition(&unready, "Ready"));
        let described = scene.kubectl(&["describe", "pod", "unready"]).await?;
        for words in ["Readiness:", "http-get http://:web/", "Unhealthy", "ContainersReady"] {
            assert!(described.contains(words), "{words:?} is not in {described}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn commands_and_exported_functions_tell_of_a_guest() -> Result<()> {
    on_shared_node(async |scene| {
        let command = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/commands:v1
  command: [park]
  startupProbe: {exec: {command: ['#add', '1', '2']}, periodSeconds: 1}
  readinessProbe: {exec: {command: [show]}, periodSeconds: 1}
";
        scene.apply_pod("shows", command).await?;
        scene
            .apply_pod("fails", &command.replace("readinessProbe", "livenessProbe").replace("[show]", "[fail]"))
            .await?;
        let function = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/health:v1
  livenessProbe: {exec: {command: ['#liveness']}, periodSeconds: 1, failureThreshold: 1}
  readinessProbe: {exec: {command: ['#wasklet:probe/health.readiness']}, periodSeconds: 1}
";
        scene.apply_pod("warms-up", function).await?;
        scene.namespace.await_condition("shows", "Ready").await?;
        await_event(scene, "warms-up", "Readiness probe failed: still warming up").await?;
        await_event(scene, "fails", "Liveness probe failed: this command fails").await?;
        scene.namespace.await_pod("fails", PATIENCE, |pod| restarts(pod) >= 1).await?;
        let warms_up = scene.pod("warms-up").await?;
        let status = container(&warms_up, "main").cloned().unwrap_or_default();
        assert_eq!((status.ready, status.started, status.restart_count), (false, Some(true), 0));
        assert_eq!(restarts(&scene.pod("shows").await?), 0);
        Ok(())
    })
    .await
}

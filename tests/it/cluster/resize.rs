//! Resizes in place through the `resize` subresource, as kubectl asks for them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::Api;

use crate::bed::PATIENCE;
use crate::bed::node::NodeOptions;
use crate::bed::scene::{Scene, container, on_own_node, running_id};

fn spec(policy: &str) -> String {
    format!(
        "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/loops:v1
  resources:
    requests: {{cpu: 20m, memory: 8Mi}}
    limits: {{cpu: 50m, memory: 32Mi}}
  resizePolicy:
  - {{resourceName: memory, restartPolicy: {policy}}}
"
    )
}

async fn resize(scene: &Scene<'_>, pod: &str, resources: &str) -> Result<String> {
    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"main","resources":{resources}}}]}}}}"#);
    scene.kubectl(&["patch", "pod", pod, "--subresource=resize", "--patch", &patch]).await
}

/// The limit in force.
fn limit(pod: &Pod, resource: &str) -> Option<String> {
    let limits = container(pod, "main")?.resources.as_ref()?.limits.as_ref()?;
    limits.get(resource).map(|quantity| quantity.0.clone())
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

#[tokio::test]
async fn a_running_guest_gets_other_limits_and_runs_on() -> Result<()> {
    on_resizable_node("resizes", async |scene| {
        scene.apply_pod("resized", &spec("NotRequired")).await?;
        let before = scene.namespace.await_condition("resized", "Ready").await?;
        ensure!(limit(&before, "cpu").as_deref() == Some("50m"), "{:?}", before.status);

        resize(scene, "resized", r#"{"requests":{"cpu":"30m"},"limits":{"cpu":"150m","memory":"64Mi"}}"#).await?;
        let settled = |pod: &Pod| {
            limit(pod, "cpu").as_deref() == Some("150m")
                && limit(pod, "memory").as_deref() == Some("64Mi")
                && condition(pod, "PodResizeInProgress").is_none()
        };
        let pod = scene.namespace.await_pod("resized", PATIENCE, settled).await?;
        let main = container(&pod, "main").context("no status")?;
        let granted = main.allocated_resources.as_ref().and_then(|amounts| amounts.get("cpu"));
        assert_eq!(granted.map(|quantity| quantity.0.as_str()), Some("30m"));
        assert_eq!((main.restart_count, running_id(&pod, "main")?), (0, running_id(&before, "main")?));
        assert_eq!(pod.status.as_ref().and_then(|status| status.observed_generation), pod.metadata.generation);
        for reason in ["ResizeStarted", "ResizeCompleted"] {
            let selector = format!("--field-selector=involvedObject.name=resized,reason={reason}");
            let told = scene.kubectl(&["get", "events", &selector, "--output=jsonpath={.items[*].message}"]).await?;
            assert!(told.contains(r#""cpu":"150m""#), "{reason}: {told}");
        }

        // A guest's memory is not taken from it: 64 KiB is what the smallest of them has.
        resize(scene, "resized", r#"{"requests":{"memory":"1Ki"},"limits":{"memory":"1Ki"}}"#).await?;
        let failed = |pod: &Pod| condition(pod, "PodResizeInProgress").is_some_and(|one| one.reason.is_some());
        let pod = scene.namespace.await_pod("resized", PATIENCE, failed).await?;
        let in_progress = condition(&pod, "PodResizeInProgress").context("no condition")?;
        assert_eq!(in_progress.reason.as_deref(), Some("Error"));
        let message = in_progress.message.clone().unwrap_or_default();
        assert!(message.contains("memory limit (1024) below current usage ("), "{message}");
        assert_eq!(limit(&pod, "memory").as_deref(), Some("64Mi"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_others_have_is_waited_for_and_a_restart_is_made_where_it_is_asked_for() -> Result<()> {
    on_resizable_node("waits", async |scene| {
        scene.apply_pod("wishes", &spec("RestartContainer")).await?;
        let before = scene.namespace.await_condition("wishes", "Ready").await?;
        let free = allocatable_cpu_millis(scene).await? - 100;
        let other = format!(
            "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
  resources: {{requests: {{cpu: {free}m}}}}
"
        );
        scene.apply_pod("other", &other).await?;
        scene.namespace.await_condition("other", "Ready").await?;
        resize(scene, "wishes", r#"{"requests":{"cpu":"200m"},"limits":{"cpu":"200m"}}"#).await?;
        let deferred = |pod: &Pod| condition(pod, "PodResizePending").is_some();
        let pod = scene.namespace.await_pod("wishes", PATIENCE, deferred).await?;
        let pending = condition(&pod, "PodResizePending").context("no condition")?;
        assert_eq!(pending.reason.as_deref(), Some("Deferred"));
        let message = pending.message.clone().unwrap_or_default();
        let wanted = format!("Node didn't have enough resource: cpu, requested: 200, used: {free}, capacity: ");
        assert!(message.starts_with(&wanted), "{message}");
        assert_eq!(limit(&pod, "cpu").as_deref(), Some("50m"));
        let told = scene.kubectl(&["describe", "pod", "wishes"]).await?;
        assert!(told.contains("ResizeDeferred"), "{told}");

        scene.kubectl(&["delete", "pod", "other"]).await?;
        let granted = |pod: &Pod| limit(pod, "cpu").as_deref() == Some("200m");
        let pod = scene.namespace.await_pod("wishes", PATIENCE, granted).await?;
        assert_eq!(running_id(&pod, "main")?, running_id(&before, "main")?);

        resize(scene, "wishes", r#"{"limits":{"memory":"48Mi"}}"#).await?;
        let restarted = |pod: &Pod| {
            limit(pod, "memory").as_deref() == Some("48Mi")
                && container(pod, "main").is_some_and(|main| main.restart_count == 1)
                && condition(pod, "PodResizeInProgress").is_none()
        };
        scene.namespace.await_pod("wishes", PATIENCE, restarted).await?;
        Ok(())
    })
    .await
}

/// The API server resizes pods only of nodes that say they are Linux.
async fn on_resizable_node(name: &str, test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    let flags = vec!["--node-labels=kubernetes.io/os=linux".into()];
    on_own_node(name, NodeOptions { flags, ..NodeOptions::default() }, test).await
}

async fn allocatable_cpu_millis(scene: &Scene<'_>) -> Result<u64> {
    let node = Api::<Node>::all(scene.cluster.client()).get(scene.node.name()).await?;
    let cpu =
        node.status.and_then(|status| status.allocatable?.get("cpu").cloned()).context("no CPU is allocatable")?.0;
    Ok(match cpu.strip_suffix('m') {
        Some(millis) => millis.parse()?,
        None => cpu.parse::<u64>()? * 1000,
    })
}

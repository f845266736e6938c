//! What a pod's status says while it runs and when it has ended.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use testbed::cluster::has_condition;

use crate::bed::scene::{address, container, exit_code, on_shared_node};
use crate::bed::{PATIENCE, guests};

#[tokio::test]
async fn a_running_pods_status_is_complete() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
  resources:
    requests: {cpu: 10m, memory: 8Mi}
    limits: {cpu: 100m, memory: 16Mi}
";
        scene.apply_pod("runs", spec).await?;
        let pod = scene.namespace.await_condition("runs", "Ready").await?;
        let status = pod.status.clone().context("the pod has no status")?;
        assert_eq!(status.phase.as_deref(), Some("Running"));
        for condition in ["PodScheduled", "Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers"] {
            assert!(has_condition(&pod, condition), "{condition} is not true: {:?}", status.conditions);
        }
        assert_eq!(status.host_ip, Some(scene.node.address().to_string()));
        let pod_ip = address(&pod)?.to_string();
        let pod_ips: Vec<_> = status.pod_ips.iter().flatten().map(|each| each.ip.as_str()).collect();
        assert_eq!(pod_ips, [pod_ip.as_str()]);
        assert_ne!(Some(pod_ip), status.host_ip, "the pod has no address of its own");
        assert!(status.start_time.is_some());
        assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
        assert_eq!(status.observed_generation, pod.metadata.generation);

        let main = container(&pod, "main").context("no status of the container")?;
        assert!(main.ready && main.started == Some(true) && main.restart_count == 0, "{main:?}");
        let running = main.state.as_ref().and_then(|state| state.running.as_ref());
        assert!(running.is_some_and(|running| running.started_at.is_some()), "{main:?}");
        let id = main.container_id.as_deref().unwrap_or_default();
        assert!(id.strip_prefix("wasklet://").is_some_and(|id| !id.is_empty()), "{main:?}");
        assert_eq!(main.image, "test.invalid/guests/sleeps:v1");
        let digest = guests::digest_of(&guests::all().await?, "test.invalid/guests/sleeps:v1")?;
        assert!(main.image_id.ends_with(&digest), "{} is not {digest}", main.image_id);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_is_over_when_its_containers_are() -> Result<()> {
    on_shared_node(async |scene| {
        let both = |first: &str, second: &str| {
            format!(
                "
restartPolicy: Never
containers:
- name: first
  image: test.invalid/guests/{first}:v1
- name: second
  image: test.invalid/guests/{second}:v1
"
            )
        };
        scene.apply_pod("succeeds", &both("prints", "run")).await?;
        scene.apply_pod("fails", &both("prints", "fails")).await?;
        scene.apply_pod("traps", &both("traps", "prints")).await?;

        let pod = scene.namespace.await_phase("succeeds", "Succeeded").await?;
        assert_eq!((exit_code(&pod, "first"), exit_code(&pod, "second")), (Some(0), Some(0)));
        assert_eq!(reason_of(&pod, "Ready").as_deref(), Some("PodCompleted"));
        let status = pod.status.clone().context("the pod has no status")?;
        assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
        let first = container(&pod, "first").context("no status")?.state.clone().and_then(|state| state.terminated);
        let first = first.context("the container has not ended")?;
        assert_eq!(first.reason.as_deref(), Some("Completed"));
        assert!(first.started_at.is_some() && first.finished_at >= first.started_at, "{first:?}");

        let pod = scene.namespace.await_phase("fails", "Failed").await?;
        assert_eq!((exit_code(&pod, "first"), exit_code(&pod, "second")), (Some(0), Some(3)));
        assert_eq!(reason_of(&pod, "Ready").as_deref(), Some("PodFailed"));

        let pod = scene.namespace.await_phase("traps", "Failed").await?;
        assert_eq!(exit_code(&pod, "first"), Some(134));
        let log = scene.log("traps", "first").await?;
        assert!(log.contains("unreachable"), "{log}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_condition_of_somebody_else_stays() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
terminationGracePeriodSeconds: 2
readinessGates: [{conditionType: test.invalid/approved}]
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
";
        scene.apply_pod("gated", spec).await?;
        let waits = |pod: &Pod| has_condition(pod, "ContainersReady") && !has_condition(pod, "Ready");
        let pod = scene.namespace.await_pod("gated", PATIENCE, waits).await?;
        assert_eq!(reason_of(&pod, "Ready").as_deref(), Some("ReadinessGatesNotReady"));

        let patch = r#"{"status":{"conditions":[{"type":"test.invalid/approved","status":"True"}]}}"#;
        scene.kubectl(&["patch", "pod", "gated", "--subresource=status", "--patch", patch]).await?;
        let pod = scene.namespace.await_condition("gated", "Ready").await?;
        assert!(has_condition(&pod, "test.invalid/approved"));
        Ok(())
    })
    .await
}

fn reason_of(pod: &Pod, condition: &str) -> Option<String> {
    let conditions = |status: &PodStatus| status.conditions.clone().unwrap_or_default();
    let all = pod.status.as_ref().map(conditions).unwrap_or_default();
    all.into_iter().find(|each| each.type_ == condition)?.reason
}

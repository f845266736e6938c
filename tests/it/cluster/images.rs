//! Images that cannot be had: what the status and the events say, and what heals.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;

use crate::bed::guests::wat;
use crate::bed::node::NodeOptions;
use crate::bed::registry::Registry;
use crate::bed::scene::{container, on_own_node, on_shared_node, waiting_reason};
use crate::bed::{PATIENCE, ports};

fn never(image: &str, policy: &str) -> String {
    format!(
        "
restartPolicy: Never
containers:
- name: main
  image: {image}
  imagePullPolicy: {policy}
"
    )
}

fn message(pod: &Pod) -> String {
    let waiting = container(pod, "main").and_then(|status| status.state.clone()?.waiting);
    waiting.and_then(|waiting| waiting.message).unwrap_or_default()
}

#[tokio::test]
async fn an_image_that_is_missing_is_told_and_pulled_once_it_is_there() -> Result<()> {
    let registry = Registry::start().await?;
    let flags = vec![format!("--insecure-registry={}", registry.host())];
    on_own_node("pulls", NodeOptions { flags, ..NodeOptions::default() }, async |scene| {
        let image = registry.reference("later");
        scene.apply_pod("later", &never(&image, "IfNotPresent")).await?;
        let failed = |pod: &Pod| waiting_reason(pod, "main") == Some("ErrImagePull");
        let pod = scene.namespace.await_pod("later", PATIENCE, failed).await?;
        assert!(message(&pod).contains(&image), "{}", message(&pod));
        let backs_off = |pod: &Pod| waiting_reason(pod, "main") == Some("ImagePullBackOff");
        let pod = scene.namespace.await_pod("later", PATIENCE, backs_off).await?;
        assert!(message(&pod).starts_with(&format!("Back-off pulling image \"{image}\"")), "{}", message(&pod));
        assert_eq!(pod.status.context("no status")?.phase.as_deref(), Some("Pending"));

        registry.push("later", &wat::prints_and_exits("pulled at last\n", 0))?;
        scene.namespace.await_phase("later", "Succeeded").await?;
        assert_eq!(scene.log("later", "main").await?, "pulled at last\n");
        crate::bed::until("the events of the pull", PATIENCE, async || {
            let events = scene.kubectl(&["events", "--for=pod/later"]).await?;
            for words in ["Pulling image", "Failed to pull image", "Error: ErrImagePull", "Successfully pulled image"] {
                anyhow::ensure!(events.contains(words), "{words:?} is not in {events}");
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_image_that_never_comes_does_not_keep_its_pod_from_going() -> Result<()> {
    on_shared_node(async |scene| {
        // Nobody listens there.
        let image = format!("127.0.0.1:{}/nobody/nothing:v1", ports::free()?);
        scene.apply_pod("unreachable", &never(&image, "Always")).await?;
        scene.apply_pod("forbidden", &never("test.invalid/not/here:v1", "Never")).await?;
        scene.apply_pod("misspelt", &never("\"Not An Image\"", "IfNotPresent")).await?;

        let failed =
            |pod: &Pod| matches!(waiting_reason(pod, "main"), Some("RegistryUnavailable" | "ImagePullBackOff"));
        let pod = scene.namespace.await_pod("unreachable", PATIENCE, failed).await?;
        assert!(message(&pod).contains(&image), "{}", message(&pod));
        let never = |pod: &Pod| waiting_reason(pod, "main") == Some("ErrImageNeverPull");
        let pod = scene.namespace.await_pod("forbidden", PATIENCE, never).await?;
        assert!(message(&pod).contains("test.invalid/not/here:v1"), "{}", message(&pod));
        let invalid = |pod: &Pod| waiting_reason(pod, "main") == Some("InvalidImageName");
        let pod = scene.namespace.await_pod("misspelt", PATIENCE, invalid).await?;
        assert!(message(&pod).contains("Not An Image"), "{}", message(&pod));

        for pod in ["unreachable", "forbidden", "misspelt"] {
            scene.kubectl(&["delete", "pod", pod, "--timeout=20s"]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_guest_that_cannot_be_run_is_told() -> Result<()> {
    on_shared_node(async |scene| {
        scene.apply_pod("foreign", &never("test.invalid/guests/unknown-import:v1", "IfNotPresent")).await?;
        let told = |pod: &Pod| {
            let waits = message(pod);
            let ended = container(pod, "main").and_then(|status| status.state.clone()?.terminated);
            let ended = ended.and_then(|ended| ended.message).unwrap_or_default();
            waits.contains("acme:rockets/engine") || ended.contains("acme:rockets/engine")
        };
        scene.namespace.await_pod("foreign", PATIENCE, told).await?;
        Ok(())
    })
    .await
}

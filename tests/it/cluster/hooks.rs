//! Hooks of containers, as a user of Kubernetes sees them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;

use crate::bed::PATIENCE;
use crate::bed::scene::{Scene, container, on_shared_node, waiting_reason};

/// What two busy cores may add.
const SLACK: Duration = Duration::from_secs(15);

/// The messages of the events of this reason about the pod.
async fn told(scene: &Scene<'_>, pod: &str, reason: &str) -> Result<String> {
    let selector = format!("--field-selector=involvedObject.name={pod},reason={reason}");
    scene.kubectl(&["get", "events", &selector, "--output=jsonpath={.items[*].message}"]).await
}

fn serves(lifecycle: &str) -> String {
    format!(
        "
terminationGracePeriodSeconds: 20
containers:
- name: main
  image: test.invalid/guests/http-answers:v1
  ports: [{{name: web, containerPort: 8080}}]
  lifecycle: {lifecycle}
"
    )
}

#[tokio::test]
async fn a_guest_is_asked_over_http_after_its_start_and_has_time_before_its_stop() -> Result<()> {
    on_shared_node(async |scene| {
        let get = "{httpGet: {port: web, path: /, httpHeaders: [{name: X-Hook, value: started}]}}";
        scene.apply_pod("asked", &serves(&format!("{{postStart: {get}, preStop: {{sleep: {{seconds: 4}}}}}}"))).await?;
        scene.namespace.await_condition("asked", "Ready").await?;
        let asked = Instant::now();
        scene.kubectl(&["delete", "pod", "asked", "--timeout=60s"]).await?;
        let took = asked.elapsed();
        assert!(took >= Duration::from_secs(4), "its hook had no time: {took:?}");
        assert!(took < Duration::from_secs(4) + SLACK, "a sleep of 4 s took {took:?}");
        assert_eq!(told(scene, "asked", "Killing").await?, "Stopping container main");
        assert_eq!(told(scene, "asked", "FailedPostStartHook").await?, "");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn who_serves_in_the_clear_is_asked_in_the_clear() -> Result<()> {
    on_shared_node(async |scene| {
        let get = "{httpGet: {port: 8080, scheme: HTTPS}}";
        scene.apply_pod("clear", &serves(&format!("{{postStart: {get}}}"))).await?;
        scene.namespace.await_condition("clear", "Ready").await?;
        let said = told(scene, "clear", "LifecycleHTTPFallback").await?;
        assert!(said.ends_with(":8080 got HTTP response, retry with HTTP succeeded"), "{said}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_post_start_that_fails_is_a_crash_loop() -> Result<()> {
    on_shared_node(async |scene| {
        // Nobody listens there.
        scene.apply_pod("fails", &serves("{postStart: {httpGet: {port: 9}}}")).await?;
        let loops = |pod: &Pod| {
            waiting_reason(pod, "main") == Some("CrashLoopBackOff")
                && container(pod, "main").is_some_and(|main| main.restart_count > 0 && !main.ready)
        };
        let pod = scene.namespace.await_pod("fails", PATIENCE, loops).await?;
        let last = container(&pod, "main").and_then(|main| main.last_state.clone()?.terminated);
        last.context("no last state")?;
        assert!(told(scene, "fails", "FailedPostStartHook").await?.contains("PostStartHook failed"));
        assert!(told(scene, "fails", "Killing").await?.contains("FailedPostStartHook"));
        Ok(())
    })
    .await
}

//! Containers that end: which are started again, when, and what the status keeps of the last one.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

use crate::bed::PATIENCE;
use crate::bed::scene::{container, exit_code, on_shared_node, waiting_reason};

fn pod(policy: &str, image: &str) -> String {
    format!(
        "
restartPolicy: {policy}
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/{image}:v1
  resources: {{limits: {{memory: 8Mi}}}}
"
    )
}

fn last(pod: &Pod) -> Option<&ContainerStateTerminated> {
    container(pod, "main")?.last_state.as_ref()?.terminated.as_ref()
}

fn restarts(pod: &Pod) -> i32 {
    container(pod, "main").map_or(0, |status| status.restart_count)
}

#[tokio::test]
async fn a_container_that_keeps_failing_backs_off() -> Result<()> {
    on_shared_node(async |scene| {
        scene.apply_pod("crashes", &pod("Always", "fails")).await?;
        let backs_off = |pod: &Pod| restarts(pod) >= 1 && waiting_reason(pod, "main") == Some("CrashLoopBackOff");
        let crashed = scene.namespace.await_pod("crashes", PATIENCE, backs_off).await?;
        let ended = last(&crashed).context("no lastState")?;
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (3, Some("Error")));
        assert!(ended.container_id.is_some() && ended.finished_at.is_some(), "{ended:?}");
        assert_eq!(crashed.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Running"));
        assert!(!testbed::cluster::has_condition(&crashed, "Ready"));

        let message = container(&crashed, "main").and_then(|status| status.state.clone()?.waiting?.message);
        assert!(message.is_some_and(|message| message.starts_with("back-off 10s restarting failed container=main")));
        let previous = scene.kubectl(&["logs", "crashes", "--previous"]).await?;
        assert_eq!(previous, "this guest fails\n");

        let before = restarts(&crashed);
        scene.namespace.await_pod("crashes", PATIENCE, |pod| restarts(pod) > before).await?;
        crate::bed::until("the BackOff event", PATIENCE, async || {
            let events = scene.kubectl(&["events", "--for=pod/crashes"]).await?;
            anyhow::ensure!(events.contains("Back-off restarting failed container main in pod crashes_"), "{events}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn restart_policies_are_kept() -> Result<()> {
    on_shared_node(async |scene| {
        let names = ["never-fails", "on-failure-succeeds", "always-succeeds", "on-failure-fails", "grows"];
        let specs = [
            pod("Never", "fails"),
            pod("OnFailure", "prints"),
            pod("Always", "prints"),
            pod("OnFailure", "fails"),
            pod("Never", "grows"),
        ];
        let manifests: String = names.iter().zip(&specs).map(|(name, spec)| scene.node.pod(name, spec)).collect();
        scene.namespace.apply(&manifests).await?;

        let failed = scene.namespace.await_phase("never-fails", "Failed").await?;
        assert_eq!((exit_code(&failed, "main"), restarts(&failed)), (Some(3), 0));

        let succeeded = scene.namespace.await_phase("on-failure-succeeds", "Succeeded").await?;
        assert_eq!((exit_code(&succeeded, "main"), restarts(&succeeded)), (Some(0), 0));

        let again = scene.namespace.await_pod("always-succeeds", PATIENCE, |pod| restarts(pod) >= 1).await?;
        assert_eq!(last(&again).map(|ended| ended.exit_code), Some(0));

        let again = scene.namespace.await_pod("on-failure-fails", PATIENCE, |pod| restarts(pod) >= 1).await?;
        assert_eq!(last(&again).map(|ended| ended.exit_code), Some(3));

        let grown = scene.namespace.await_phase("grows", "Failed").await?;
        let state = container(&grown, "main").and_then(|status| status.state.clone()?.terminated).context("no end")?;
        assert_eq!((state.exit_code, state.reason.as_deref()), (137, Some("OOMKilled")));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn another_image_is_another_instance() -> Result<()> {
    on_shared_node(async |scene| {
        scene.apply_pod("changes", &pod("Always", "sleeps")).await?;
        scene.namespace.await_condition("changes", "Ready").await?;
        scene.kubectl(&["set", "image", "pod/changes", "main=test.invalid/guests/ticks:v1"]).await?;
        let changed = |pod: &Pod| {
            let ticks = |status: &ContainerStatus| status.image.ends_with("/ticks:v1") && status.ready;
            restarts(pod) == 1 && container(pod, "main").is_some_and(ticks)
        };
        let changed = scene.namespace.await_pod("changes", PATIENCE, changed).await?;
        assert_eq!(last(&changed).map(|ended| ended.exit_code), Some(143));
        let status = changed.status.as_ref().context("no status")?;
        assert_eq!(status.observed_generation, changed.metadata.generation);
        scene.await_log("changes", "main", |log| log.starts_with("tick\n")).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn last_words_are_kept() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
restartPolicy: Never
containers:
- name: writes
  image: test.invalid/guests/files:v1
  args: [write, /dev/termination-log, all is well]
- name: complains
  image: test.invalid/guests/fails:v1
  terminationMessagePolicy: FallbackToLogsOnError
- name: silent
  image: test.invalid/guests/fails:v1
";
        scene.apply_pod("words", spec).await?;
        let over = scene.namespace.await_phase("words", "Failed").await?;
        let said = |name: &str| container(&over, name).and_then(|status| status.state.clone()?.terminated?.message);
        assert_eq!(said("writes").as_deref(), Some("all is well"));
        assert_eq!(said("complains").as_deref(), Some("this guest fails\n"));
        assert_eq!(said("silent"), None);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_past_its_deadline_fails() -> Result<()> {
    on_shared_node(async |scene| {
        scene.apply_pod("late", &format!("activeDeadlineSeconds: 2\n{}", pod("Always", "sleeps").trim_start())).await?;
        let late = scene.namespace.await_phase("late", "Failed").await?;
        let status = late.status.context("no status")?;
        assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
        assert_eq!(status.message.as_deref(), Some("Pod was active on the node longer than the specified deadline"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_exit_code_arrives_as_it_was() -> Result<()> {
    use crate::bed::guests::wat;
    use crate::bed::registry::Registry;

    let registry = Registry::start().await?;
    registry.push("seven", &wat::prints_and_exits("seven\n", 7))?;
    let spec = format!("restartPolicy: Never\ncontainers:\n- name: main\n  image: {}\n", registry.reference("seven"));
    let options = crate::bed::node::NodeOptions {
        flags: vec![format!("--insecure-registry={}", registry.host())],
        ..Default::default()
    };
    crate::bed::scene::on_own_node("seven", options, async |scene| {
        scene.apply_pod("seven", &spec).await?;
        let failed = scene.namespace.await_phase("seven", "Failed").await?;
        assert_eq!(exit_code(&failed, "main"), Some(7));
        let image_id = container(&failed, "main").map(|status| status.image_id.clone()).unwrap_or_default();
        assert!(image_id.starts_with(&format!("{}/test/guest@sha256:", registry.host())), "{image_id:?}");
        Ok(())
    })
    .await
}

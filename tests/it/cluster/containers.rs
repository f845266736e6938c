//! Containers of every kind in one pod, as kubectl shows them: an init container, a sidecar, a main one, an ephemeral one.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::bed::PATIENCE;
use crate::bed::scene::on_shared_node;

const POD: &str = "
restartPolicy: Never
terminationGracePeriodSeconds: 5
initContainers:
- name: first
  image: test.invalid/guests/prints:v1
- name: beside
  image: test.invalid/guests/sleeps:v1
  restartPolicy: Always
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
";

fn init<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

fn ephemeral(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?.first()
}

fn ended_with(status: Option<&ContainerStatus>) -> Option<i32> {
    Some(status?.state.as_ref()?.terminated.as_ref()?.exit_code)
}

#[tokio::test]
async fn containers_of_every_kind_live_in_one_pod() -> Result<()> {
    on_shared_node(async |scene| {
        scene.apply_pod("kinds", POD).await?;
        let ready = scene.namespace.await_condition("kinds", "Ready").await?;
        assert_eq!(ended_with(init(&ready, "first")), Some(0));
        let beside = init(&ready, "beside").and_then(|status| status.started);
        assert_eq!(beside, Some(true), "the sidecar has started");
        let row = scene.kubectl(&["get", "pod", "kinds", "--no-headers"]).await?;
        ensure!(row.contains("2/2") && row.contains("Running"), "{row}");
        assert_eq!(scene.kubectl(&["logs", "kinds", "--container=first"]).await?, "hello from wasm\n");
        let events = scene.kubectl(&["get", "events", "--output=jsonpath={..involvedObject.fieldPath}"]).await?;
        ensure!(events.contains("spec.initContainers{first}"), "{events}");

        let image = "--image=test.invalid/guests/prints:v1";
        scene.kubectl(&["debug", "kinds", image, "--container=debugger"]).await?;
        let debugged =
            scene.namespace.await_pod("kinds", PATIENCE, |pod| ended_with(ephemeral(pod)) == Some(0)).await?;
        assert_eq!(debugged.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Running"));
        assert_eq!(ephemeral(&debugged).map(|status| status.restart_count), Some(0));
        assert_eq!(scene.kubectl(&["logs", "kinds", "--container=debugger"]).await?, "hello from wasm\n");
        scene.kubectl(&["delete", "pod", "kinds"]).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn an_init_container_that_fails_holds_the_pod_up() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = POD.replace("guests/prints", "guests/fails");
        let again = spec.replace("restartPolicy: Never", "restartPolicy: OnFailure");
        scene.namespace.apply(&(scene.node.pod("gives-up", &spec) + &scene.node.pod("tries-again", &again))).await?;
        let failed = scene.namespace.await_phase("gives-up", "Failed").await?;
        assert_eq!(ended_with(init(&failed, "first")), Some(3));
        let row = scene.kubectl(&["get", "pod", "gives-up", "--no-headers"]).await?;
        ensure!(row.contains("Init:Error"), "{row}");

        let backs_off = |pod: &Pod| {
            let waiting = init(pod, "first").and_then(|status| status.state.clone()?.waiting?.reason);
            waiting.as_deref() == Some("CrashLoopBackOff")
        };
        scene.namespace.await_pod("tries-again", PATIENCE, backs_off).await?;
        let row = scene.kubectl(&["get", "pod", "tries-again", "--no-headers"]).await?;
        ensure!(row.contains("Init:CrashLoopBackOff"), "{row}");
        Ok(())
    })
    .await
}

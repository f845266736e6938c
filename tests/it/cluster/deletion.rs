//! Pods that are deleted: in their grace period, by force, and whatever the guest does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event, watcher};

use crate::bed::node::Caller;
use crate::bed::scene::{at, container, on_shared_node};
use crate::bed::{PATIENCE, http, until_true};

/// What two busy cores may add to a grace period.
const SLACK: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_guest_that_never_yields_is_gone_within_its_grace_period() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
terminationGracePeriodSeconds: 4
containers:
- name: main
  image: test.invalid/guests/loops:v1
  resources: {limits: {cpu: 50m}}
";
        scene.apply_pod("spins", spec).await?;
        scene.namespace.await_condition("spins", "Ready").await?;
        let asked = Instant::now();
        scene.kubectl(&["delete", "pod", "spins", "--timeout=60s"]).await?;
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(4) + SLACK, "a spinning guest took {took:?} to end");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_pod_ends_before_it_goes() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
terminationGracePeriodSeconds: 4
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
";
        scene.apply_pod("sleeps", spec).await?;
        scene.namespace.await_condition("sleeps", "Ready").await?;
        let pods = scene.namespace.api::<Pod>();
        let mut events = std::pin::pin!(watcher(pods, watcher::Config::default().fields("metadata.name=sleeps")));
        let deleted = async {
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::InitDone) => drop(scene.kubectl(&["delete", "pod", "sleeps", "--wait=false"]).await?),
                    Ok(Event::Delete(pod)) => return Ok::<_, anyhow::Error>(Some(pod)),
                    _ => {}
                }
            }
            Ok(None)
        };
        let last = tokio::time::timeout(PATIENCE, deleted).await.context("the pod does not go")??;
        let last = last.context("the watch ended")?;
        let phase = last.status.as_ref().and_then(|status| status.phase.clone());
        assert!(matches!(phase.as_deref(), Some("Failed" | "Succeeded")), "the last phase was {phase:?}");
        let ended = container(&last, "main").and_then(|status| status.state.clone()?.terminated).context("no end")?;
        assert_eq!(ended.exit_code, 143, "{ended:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_deleted_by_force_stops_all_the_same() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
containers:
- name: main
  image: test.invalid/guests/http-answers:v1
  ports: [{containerPort: 8080}]
";
        scene.apply_pod("forced", spec).await?;
        let pod = scene.namespace.await_condition("forced", "Ready").await?;
        let (address, uid) = (at(&pod, 8080)?, pod.metadata.uid.clone().context("no uid")?);
        let logs = scene.node.logs().join(format!("{}_forced_{uid}", scene.namespace.name()));
        assert!(logs.is_dir(), "no logs at {}", logs.display());
        assert_eq!(http::await_answer(address, "/").await?, "hello over http\n");
        scene.kubectl(&["delete", "pod", "forced", "--grace-period=0", "--force"]).await?;
        http::await_silence(address).await?;
        let api = scene.node.api(scene.cluster, Caller::Administrator).await?;
        let forgotten = async || api.get("/pods").await.is_ok_and(|reply| !reply.body.contains(&uid));
        until_true("the kubelet to forget the pod", PATIENCE, forgotten).await?;
        let root = scene.node.root().join("pods").join(&uid);
        until_true("the pod's directory to be gone", PATIENCE, async || !root.exists()).await?;
        until_true("the pod's logs to be gone", PATIENCE, async || !logs.exists()).await
    })
    .await
}

#[tokio::test]
async fn a_pod_of_the_same_name_is_another_pod() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
";
        scene.apply_pod("again", spec).await?;
        let first = scene.namespace.await_condition("again", "Ready").await?;
        scene.kubectl(&["delete", "pod", "again"]).await?;
        scene.apply_pod("again", spec).await?;
        let second = scene.namespace.await_condition("again", "Ready").await?;
        ensure!(first.metadata.uid != second.metadata.uid, "it is the same pod");
        let id = |pod: &Pod| container(pod, "main").and_then(|status| status.container_id.clone());
        assert_ne!(id(&first), id(&second));
        assert_eq!(container(&second, "main").map(|status| status.restart_count), Some(0));
        Ok(())
    })
    .await
}

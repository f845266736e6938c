//! Pods that the node refuses: never silently, and for good.

use anyhow::{Context, Result, ensure};

use crate::bed::scene::on_shared_node;
use crate::bed::{PATIENCE, until};

#[tokio::test]
async fn what_is_not_supported_is_refused_with_a_reason() -> Result<()> {
    on_shared_node(async |scene| {
        let main = "containers: [{name: main, image: 'test.invalid/guests/sleeps:v1'}]\n";
        let processes = format!("hostPID: true\n{main}");
        let privileged = main.replace("v1'", "v1', securityContext: {privileged: true}");
        for (name, spec, field) in [
            ("processes", processes.as_str(), "spec.hostPID"),
            ("privileged", &privileged, "spec.containers[0].securityContext.privileged"),
        ] {
            scene.apply_pod(name, spec).await?;
            let pod = scene.namespace.await_phase(name, "Failed").await?;
            let status = pod.status.context("no status")?;
            assert_eq!(status.reason.as_deref(), Some("PodFeatureUnsupported"));
            let message = status.message.unwrap_or_default();
            assert!(message.starts_with("Pod was rejected: ") && message.contains(field), "{message:?}");
            until("an event that says so", PATIENCE, async || {
                let events = scene.kubectl(&["events", &format!("--for=pod/{name}"), "--types=Warning"]).await?;
                ensure!(events.contains("PodFeatureUnsupported") && events.contains(field), "{events}");
                Ok(())
            })
            .await?;
            scene.kubectl(&["delete", "pod", name, "--timeout=20s"]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_has_no_meaning_is_said_to_be_ignored() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
restartPolicy: Never
securityContext: {runAsUser: 1000}
containers:
- name: main
  image: test.invalid/guests/prints:v1
";
        scene.apply_pod("ignored", spec).await?;
        scene.namespace.await_phase("ignored", "Succeeded").await?;
        until("an event that says so", PATIENCE, async || {
            let events = scene.kubectl(&["events", "--for=pod/ignored"]).await?;
            ensure!(events.contains("spec.securityContext.runAsUser"), "{events}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_pod_that_does_not_fit_is_refused_by_the_node_itself() -> Result<()> {
    on_shared_node(async |scene| {
        // Past the scheduler: what it would have kept away, the node keeps away.
        let manifest = format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: huge}}
spec:
  nodeName: {}
  containers:
  - name: main
    image: test.invalid/guests/sleeps:v1
    resources: {{requests: {{memory: 900Ti}}}}
",
            scene.node.name()
        );
        scene.namespace.apply(&manifest).await?;
        let pod = scene.namespace.await_phase("huge", "Failed").await?;
        assert_eq!(pod.status.and_then(|status| status.reason).as_deref(), Some("OutOfmemory"));
        Ok(())
    })
    .await
}

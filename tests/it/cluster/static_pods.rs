//! Pods of a node's own manifests, as the cluster sees them: a mirror each, which is only a picture.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use testbed::cluster::has_condition;

use crate::bed::node::NodeOptions;
use crate::bed::scene::{at, on_own_node, running_id};
use crate::bed::{PATIENCE, http};

#[tokio::test]
async fn a_static_pod_has_a_mirror_whose_deletion_it_does_not_notice() -> Result<()> {
    let manifests = tempfile::tempdir()?;
    let flags =
        vec![format!("--pod-manifest-path={}", manifests.path().display()), "--file-check-frequency=1s".to_owned()];
    on_own_node("static", NodeOptions { flags, ..NodeOptions::default() }, async |scene| {
        let namespace = scene.namespace.name();
        let manifest = format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: {namespace}}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - {{name: main, image: 'test.invalid/guests/http-answers:v1', ports: [{{containerPort: 8080}}]}}
  - {{name: says, image: 'test.invalid/guests/prints:v1'}}
"
        );
        let file = manifests.path().join("web.yaml");
        std::fs::write(&file, manifest)?;
        let name = format!("web-{}", scene.node.name());
        let runs = |pod: &Pod| running_id(pod, "main").is_ok();
        let mirror = scene.namespace.await_pod(&name, PATIENCE, runs).await?;
        let (address, id) = (at(&mirror, 8080)?, running_id(&mirror, "main")?);
        let owner = mirror.metadata.owner_references.iter().flatten().next().context("the mirror has no owner")?;
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", scene.node.name()));
        assert_eq!(http::await_answer(address, "/").await?, "hello over http\n");
        scene.await_log(&name, "says", |log| log.contains("hello from wasm")).await?;
        ensure!(scene.kubectl(&["logs", &name, "-c", "says"]).await?.contains("hello from wasm"));
        ensure!(scene.kubectl(&["get", "pods"]).await?.contains(&name));

        scene.kubectl(&["delete", "pod", &name, "--wait=false"]).await?;
        let again =
            |pod: &Pod| pod.metadata.uid != mirror.metadata.uid && has_condition(pod, "Initialized") && runs(pod);
        let second = scene.namespace.await_pod(&name, PATIENCE, again).await?;
        assert_eq!(running_id(&second, "main")?, id, "the pod noticed");
        assert_eq!(http::get(address, "/").await?.body, "hello over http\n");

        std::fs::remove_file(&file)?;
        scene.namespace.await_gone(&name).await?;
        http::await_silence(address).await
    })
    .await
}

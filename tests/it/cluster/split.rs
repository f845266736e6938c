//! The two halves in two processes: the kubelet may come and go, the pods do not notice.

use anyhow::Result;

use crate::bed::http;
use crate::bed::node::NodeOptions;
use crate::bed::scene::{at, container, on_own_node, running_id};

#[tokio::test]
async fn pods_outlive_the_kubelet_that_started_them() -> Result<()> {
    let options = NodeOptions { runtime_apart: true, ..NodeOptions::default() };
    on_own_node("split", options, async |scene| {
        let spec = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/http-answers:v1
  ports: [{containerPort: 8080}]
";
        scene.apply_pod("web", spec).await?;
        scene.apply_pod("ticks", &spec.replace("http-answers", "ticks")).await?;
        let before = scene.namespace.await_condition("web", "Ready").await?;
        scene.namespace.await_condition("ticks", "Ready").await?;
        let (address, id) = (at(&before, 8080)?, running_id(&before, "main")?);
        assert_eq!(http::await_answer(address, "/").await?, "hello over http\n");

        scene.node.kill().await?;
        assert_eq!(http::get(address, "/").await?.body, "hello over http\n");
        scene.node.start(scene.cluster).await?;

        // Whatever the new kubelet says of a pod, it says after this one has run.
        scene.apply_pod("new", &spec.replace("http-answers", "sleeps")).await?;
        scene.namespace.await_condition("new", "Ready").await?;
        for name in ["web", "ticks"] {
            let after = scene.namespace.await_condition(name, "Ready").await?;
            assert_eq!(container(&after, "main").map(|status| status.restart_count), Some(0), "{name}");
        }
        assert_eq!(running_id(&scene.pod("web").await?, "main")?, id);
        assert_eq!(http::get(address, "/").await?.body, "hello over http\n");
        let lines = scene.log("ticks", "main").await?.lines().count();
        scene.await_log("ticks", "main", |log| log.lines().count() > lines).await?;

        scene.kubectl(&["delete", "pod", "web", "--timeout=30s"]).await?;
        http::await_silence(address).await
    })
    .await
}

//! The kubelet's own HTTPS API: who is let in, and what answers there.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bed::node::Caller;
use crate::bed::scene::on_shared_node;

#[tokio::test]
async fn only_those_who_may_are_answered() -> Result<()> {
    on_shared_node(async |scene| {
        let api = scene.node.api(scene.cluster, Caller::Anonymous).await?;
        for path in ["/pods", "/metrics", "/configz", "/healthz", "/containerLogs/a/b/c", "/nowhere"] {
            let reply = api.get(path).await?;
            assert_eq!((reply.status, reply.body.trim_end()), (401, "Unauthorized"), "{path}");
        }
        let stranger = scene.node.api(scene.cluster, Caller::Bearer("no.such.token".into())).await?;
        assert_eq!(stranger.get("/pods").await?.status, 401);

        // A ServiceAccount is known to the API server and may nothing…
        let token = scene.kubectl(&["create", "token", "default"]).await?.trim().to_owned();
        let account = scene.node.api(scene.cluster, Caller::Bearer(token.clone())).await?;
        let reply = account.get("/metrics").await?;
        assert_eq!(reply.status, 403, "{}", reply.body);
        let user = format!("system:serviceaccount:{}:default", scene.namespace.name());
        for word in ["Forbidden (user=", &user, "verb=get", "resource=nodes"] {
            assert!(reply.body.contains(word), "{word:?} is not in {}", reply.body);
        }
        // …until somebody lets it.
        let name = scene.namespace.name();
        let role = ["create", "clusterrole", name, "--verb=get", "--resource=nodes/metrics"];
        scene.kubectl(&role).await?;
        let account = format!("--serviceaccount={name}:default");
        scene.kubectl(&["create", "clusterrolebinding", name, &format!("--clusterrole={name}"), &account]).await?;
        let api = scene.node.api(scene.cluster, Caller::Bearer(token)).await?;
        let allowed = crate::bed::until("a yes", crate::bed::PATIENCE, async || api.get("/metrics").await?.succeeded());
        let allowed = allowed.await;
        let refused = api.get("/pods").await;
        scene.kubectl(&["delete", "clusterrolebinding", name]).await?;
        scene.kubectl(&["delete", "clusterrole", name]).await?;
        allowed?;
        assert_eq!(refused?.status, 403);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_administrator_sees_pods_metrics_and_configuration() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
";
        scene.apply_pod("seen", spec).await?;
        let pod = scene.namespace.await_condition("seen", "Ready").await?;
        let api = scene.node.api(scene.cluster, Caller::Administrator).await?;
        assert_eq!(api.get("/healthz").await?.succeeded()?, "ok");

        let pods: Value = serde_json::from_str(&api.get("/pods").await?.succeeded()?)?;
        assert_eq!((&pods["kind"], &pods["apiVersion"]), (&Value::from("PodList"), &Value::from("v1")));
        let uid = pod.metadata.uid.context("the pod has no uid")?;
        let items = pods["items"].as_array().context("no items")?;
        let seen = items.iter().find(|item| item["metadata"]["uid"] == uid.as_str()).context("the pod is missing")?;
        assert_eq!(seen["status"]["phase"], "Running");

        let metrics = api.get("/metrics").await?.succeeded()?;
        for name in ["kubelet_running_pods", "kubelet_running_containers", "kubelet_node_name"] {
            let sample = |line: &str| line.starts_with(name);
            assert!(metrics.lines().any(sample), "{name} is not in {metrics}");
        }
        let configz: Value = serde_json::from_str(&api.get("/configz").await?.succeeded()?)?;
        assert_eq!(configz["kubeletconfig"]["kind"], "KubeletConfiguration");
        assert_eq!(configz["kubeletconfig"]["port"], scene.node.port());

        let log = format!("/containerLogs/{}/seen/other", scene.namespace.name());
        assert_eq!(api.get(&log).await?.status, 404);
        assert_eq!(api.get("/nowhere").await?.status, 404);
        Ok(())
    })
    .await
}

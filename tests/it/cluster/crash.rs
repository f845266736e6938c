//! Crashes of either side: the API server's, which pods must not notice, and the kubelet's, after which the truth is told.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use testbed::cluster::{await_object, has_condition};
use testbed::control_plane::Options;

use crate::bed::node::NodeOptions;
use crate::bed::scene::{at, container, exit_code, on_own_cluster, on_own_node, running_id};
use crate::bed::{PATIENCE, http, until_true};

const WEB: &str = "
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/http-answers:v1
  ports: [{containerPort: 8080}]
";

fn sleeper(policy: &str) -> String {
    format!(
        "
restartPolicy: {policy}
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
"
    )
}

#[tokio::test]
async fn pods_do_not_notice_that_the_api_server_is_away() -> Result<()> {
    on_own_cluster("steady", Options::default(), NodeOptions::default(), async |scene| {
        let control_plane = scene.cluster.control_plane().context("a cluster of our own")?;
        scene.apply_pod("web", WEB).await?;
        let before = scene.namespace.await_condition("web", "Ready").await?;
        let (address, id) = (at(&before, 8080)?, running_id(&before, "main")?);

        control_plane.stop_api_server();
        assert_eq!(http::await_answer(address, "/").await?, "hello over http\n");
        control_plane.start_api_server().await?;

        // Status flows again, both of new pods and of old ones.
        scene
            .apply_pod(
                "new",
                "restartPolicy: Never\ncontainers: [{name: main, image: 'test.invalid/guests/prints:v1'}]",
            )
            .await?;
        scene.namespace.await_phase("new", "Succeeded").await?;
        let after = scene.namespace.await_condition("web", "Ready").await?;
        assert_eq!(running_id(&after, "main")?, id);
        assert_eq!(container(&after, "main").map(|status| status.restart_count), Some(0));
        assert_eq!(http::get(address, "/").await?.body, "hello over http\n");
        scene.kubectl(&["delete", "pod", "web", "--timeout=30s"]).await?;
        http::await_silence(address).await
    })
    .await
}

#[tokio::test]
async fn a_killed_kubelet_comes_back_and_tells_the_truth() -> Result<()> {
    on_own_node("phoenix", NodeOptions::default(), async |scene| {
        let node = scene.node;
        let done = "restartPolicy: Never\ncontainers: [{name: main, image: 'test.invalid/guests/prints:v1'}]";
        for (name, spec) in [
            ("always", WEB),
            ("never", &sleeper("Never")),
            ("deleted", &sleeper("Always")),
            ("forced", &sleeper("Always")),
            ("done", done),
        ] {
            scene.apply_pod(name, spec).await?;
        }
        for name in ["always", "never", "deleted", "forced"] {
            scene.namespace.await_condition(name, "Ready").await?;
        }
        let gone = [scene.pod("deleted").await?, scene.pod("forced").await?];
        let done = scene.namespace.await_phase("done", "Succeeded").await?;
        let before = scene.pod("always").await?;
        let id = running_id(&before, "main")?;
        let leases: Api<Lease> = Api::namespaced(scene.cluster.client(), "kube-node-lease");
        let lease = leases.get(node.name()).await?.spec.context("the lease has no spec")?;

        node.kill().await?;
        http::await_silence(at(&before, 8080)?).await?;
        scene.kubectl(&["delete", "pod", "deleted", "--wait=false"]).await?;
        scene.kubectl(&["delete", "pod", "forced", "--grace-period=0", "--force"]).await?;
        node.start(scene.cluster).await?;

        let renewed = |now: Option<&Lease>| {
            now.and_then(|now| now.spec.as_ref()).is_some_and(|now| now.renew_time > lease.renew_time)
        };
        await_object(&leases, scene.namespace.kubectl_itself(), node.name(), PATIENCE, renewed).await?;

        let again = |pod: &Pod| {
            let restarted = container(pod, "main").is_some_and(|status| status.restart_count == 1);
            restarted && has_condition(pod, "Ready")
        };
        let after = scene.namespace.await_pod("always", PATIENCE, again).await?;
        assert_ne!(running_id(&after, "main")?, id);
        let last = container(&after, "main").and_then(|status| status.last_state.clone()?.terminated);
        let last = last.context("no lastState")?;
        assert_eq!(last.container_id.as_ref(), Some(&id), "{last:?}");
        assert_ne!(last.exit_code, 0, "{last:?}");
        assert_eq!(http::await_answer(at(&after, 8080)?, "/").await?, "hello over http\n");

        let never = scene.namespace.await_phase("never", "Failed").await?;
        ensure!(exit_code(&never, "main").is_some_and(|code| code != 0), "{:?}", never.status);
        scene.namespace.await_gone("deleted").await?;
        for pod in gone {
            let (name, uid) = (pod.metadata.name.unwrap_or_default(), pod.metadata.uid.unwrap_or_default());
            let logs = node.logs().join(format!("{}_{name}_{uid}", scene.namespace.name()));
            for place in [node.root().join("pods").join(&uid), logs] {
                until_true(&format!("{} to be gone", place.display()), PATIENCE, async || !place.exists()).await?;
            }
        }
        let still = scene.pod("done").await?;
        assert_eq!(still.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded"));
        assert_eq!(exit_code(&still, "main"), Some(0));
        assert_eq!(container(&still, "main"), container(&done, "main"), "what is over has changed");
        assert_eq!(scene.log("done", "main").await?, "hello from wasm\n");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_kubelet_that_stops_in_order_leaves_its_pods_to_its_successor() -> Result<()> {
    on_own_node("orderly", NodeOptions::default(), async |scene| {
        scene.apply_pod("web", WEB).await?;
        let before = scene.namespace.await_condition("web", "Ready").await?;
        scene.node.stop().await?;
        scene.node.start(scene.cluster).await?;
        let again = |pod: &Pod| {
            let other = running_id(pod, "main").is_ok_and(|id| Some(id) != running_id(&before, "main").ok());
            other && has_condition(pod, "Ready")
        };
        let after = scene.namespace.await_pod("web", PATIENCE, again).await?;
        assert_eq!(after.metadata.uid, before.metadata.uid);
        assert_eq!(http::await_answer(at(&after, 8080)?, "/").await?, "hello over http\n");
        Ok(())
    })
    .await
}

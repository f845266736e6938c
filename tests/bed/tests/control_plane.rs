//! The control plane that the other cluster tests trust: the right version, a scheduler and controllers at work,
//! a store that outlives the API server, nodes with a node's rights.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use testbed::cluster::{Cluster, PATIENCE};
use testbed::control_plane::{ControlPlane, Options, VERSION};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: patient
spec:
  containers:
  - name: main
    image: nowhere.invalid/patient:1
";

#[tokio::test]
async fn a_control_plane_keeps_its_pods_over_a_restart_of_the_api_server() -> Result<()> {
    let cluster = Cluster::alone(Options::default()).await?;
    let control_plane = cluster.control_plane().context("a cluster of our own")?;
    assert_eq!(cluster.client().apiserver_version().await?.git_version, VERSION);
    let version = cluster.kubectl(&["version"]).await?.succeeded()?.stdout;
    assert!(version.contains(&format!("Client Version: {VERSION}")), "{version}");
    assert!(version.contains(&format!("Server Version: {VERSION}")), "{version}");

    cluster
        .with_namespace(async |namespace| {
            namespace.apply(POD).await?;
            let unschedulable = |pod: &k8s_openapi::api::core::v1::Pod| {
                pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| {
                    condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
                })
            };
            let before = namespace.await_pod("patient", PATIENCE, unschedulable).await?;

            control_plane.stop_api_server();
            let refused = namespace.kubectl(&["get", "pod", "patient"]).await?;
            assert_ne!(refused.code, 0, "{}", refused.stdout);
            control_plane.start_api_server().await?;

            let after = namespace.await_phase("patient", "Pending").await?;
            assert_eq!(after.metadata.uid, before.metadata.uid);
            ensure!(after.spec == before.spec, "the pod changed");
            Ok(())
        })
        .await?;

    nodes_have_a_nodes_rights(control_plane).await
}

/// Both ways to credentials of a node: the authority of our own, and the signing API of a cluster that is not.
async fn nodes_have_a_nodes_rights(control_plane: &ControlPlane) -> Result<()> {
    let foreign = Cluster::connect(control_plane.kubeconfig()).await?;
    assert_eq!(
        std::fs::read_to_string(foreign.client_ca().await?)?,
        std::fs::read_to_string(control_plane.client_ca())?
    );
    let kubeconfigs =
        [("own", control_plane.node_kubeconfig("own")?), ("foreign", foreign.node_kubeconfig("foreign").await?)];
    for (name, kubeconfig) in kubeconfigs {
        let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let nodes: Api<Node> = Api::all(Client::try_from(config)?);
        let node = |name: &str| Node {
            metadata: kube::api::ObjectMeta { name: Some(name.into()), ..Default::default() },
            ..Node::default()
        };
        nodes.create(&Default::default(), &node(name)).await?;
        let refused = nodes.create(&Default::default(), &node("somebody-else")).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
        // The controller manager gives each node its pod addresses.
        let cidr = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
        let named = foreign.await_node(name, cidr).await?;
        let cidr = named.spec.and_then(|spec| spec.pod_cidr).unwrap_or_default();
        assert!(cidr.starts_with("10.20") && cidr.ends_with("/24"), "{cidr}");
    }
    Ok(())
}

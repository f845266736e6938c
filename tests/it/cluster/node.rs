//! The Node object, its lease, and what the node's user may not do.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use testbed::cluster::await_object;

use crate::bed::PATIENCE;
use crate::bed::node::is_ready;
use crate::bed::scene::on_shared_node;

#[tokio::test]
async fn the_node_says_what_it_is() -> Result<()> {
    on_shared_node(async |scene| {
        let name = scene.node.name();
        let has_pod_cidr = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
        let node = scene.cluster.await_node(name, |node| is_ready(node) && has_pod_cidr(node)).await?;

        let labels = node.labels();
        for (label, value) in
            [("kubernetes.io/hostname", name), ("kubernetes.io/os", "wasi"), ("kubernetes.io/arch", "wasm32-wasi")]
        {
            assert_eq!(labels.get(label).map(String::as_str), Some(value), "{label}");
        }
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let own = taints.filter(|taint| taint.key == "kubernetes.io/arch").collect::<Vec<_>>();
        assert_eq!(own.len(), 1, "{own:?}");
        assert_eq!((own[0].value.as_deref(), own[0].effect.as_str()), (Some("wasm32-wasi"), "NoSchedule"));

        let status = node.status.context("the node has no status")?;
        let (capacity, allocatable) = (status.capacity.unwrap_or_default(), status.allocatable.unwrap_or_default());
        for resource in ["cpu", "memory", "pods", "ephemeral-storage"] {
            let (all, left) = (plain(capacity.get(resource), resource)?, plain(allocatable.get(resource), resource)?);
            assert!(0.0 < left && left <= all, "{resource}: {left} of {all}");
        }
        let conditions = status.conditions.unwrap_or_default();
        for (kind, holds, reason) in [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID"),
            ("Ready", "True", "KubeletReady"),
        ] {
            let found = conditions.iter().find(|condition| condition.type_ == kind).context(kind)?;
            assert_eq!((found.status.as_str(), found.reason.as_deref()), (holds, Some(reason)), "{kind}");
        }
        let addresses = status.addresses.unwrap_or_default();
        let of = |kind: &str| addresses.iter().find(|each| each.type_ == kind).map(|each| each.address.clone());
        assert_eq!(of("InternalIP"), Some(scene.node.address().to_string()));
        assert_eq!(of("Hostname").as_deref(), Some(name));

        let info = status.node_info.context("the node has no nodeInfo")?;
        assert!(info.kubelet_version.starts_with('v'), "{info:?}");
        assert!(info.container_runtime_version.starts_with("wasklet://"), "{info:?}");
        for text in [info.kernel_version, info.os_image, info.machine_id, info.boot_id, info.system_uuid] {
            assert!(!text.is_empty(), "a field of nodeInfo is empty");
        }
        assert_eq!((info.operating_system.as_str(), info.architecture.as_str()), ("wasi", "wasm32-wasi"));
        let endpoint = status.daemon_endpoints.and_then(|endpoints| endpoints.kubelet_endpoint);
        assert_eq!(endpoint.map(|endpoint| endpoint.port), Some(i32::from(scene.node.port())));
        Ok(())
    })
    .await
}

/// A quantity without a suffix, or with one of the two that nodes use.
fn plain(quantity: Option<&Quantity>, resource: &str) -> Result<f64> {
    let text = &quantity.with_context(|| format!("{resource} is missing"))?.0;
    let (number, factor) = match (text.strip_suffix("Ki"), text.strip_suffix('m')) {
        (Some(number), _) => (number, 1024.0),
        (_, Some(number)) => (number, 0.001),
        _ => (text.as_str(), 1.0),
    };
    Ok(number.parse::<f64>().with_context(|| format!("{resource} is {text}"))? * factor)
}

#[tokio::test]
async fn the_lease_is_the_nodes_and_is_renewed() -> Result<()> {
    on_shared_node(async |scene| {
        let name = scene.node.name();
        let leases: Api<Lease> = Api::namespaced(scene.cluster.client(), "kube-node-lease");
        let kubectl = scene.namespace.kubectl_itself();
        let first = await_object(&leases, kubectl, name, PATIENCE, |lease| lease.is_some()).await?;
        let first = first.context("the lease is gone")?;
        let spec = first.spec.clone().context("the lease has no spec")?;
        assert_eq!(spec.holder_identity.as_deref(), Some(name));
        assert_eq!(spec.lease_duration_seconds, Some(40));
        let owners = first.owner_references();
        assert_eq!(owners.len(), 1, "{owners:?}");
        assert_eq!((owners[0].kind.as_str(), owners[0].name.as_str()), ("Node", name));

        let later = |lease: Option<&Lease>| {
            lease.and_then(|lease| lease.spec.as_ref()).is_some_and(|now| now.renew_time > spec.renew_time)
        };
        await_object(&leases, kubectl, name, PATIENCE, later).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_nodes_user_reads_no_secret_that_no_pod_of_its_needs() -> Result<()> {
    on_shared_node(async |scene| {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: foreign}\nstringData: {key: value}\n";
        scene.namespace.apply(secret).await?;
        let kubeconfig = Kubeconfig::read_from(scene.cluster.node_kubeconfig(scene.node.name()).await?)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let secrets: Api<Secret> = Api::namespaced(Client::try_from(config)?, scene.namespace.name());
        let refused = secrets.get("foreign").await;
        ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
        Ok(())
    })
    .await
}

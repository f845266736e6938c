//! Pods and their addresses, seen by clients outside of them.

use std::net::{IpAddr, Ipv4Addr};

use cri::v1;
use wasm::PodAddressMode;

use crate::bed::{Node, eventually, free_port, get, serves_on};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn publish(host_port: u16, container_port: u16) -> impl FnOnce(&mut v1::PodSandboxConfig) {
    move |config| {
        config.port_mappings = vec![v1::PortMapping {
            protocol: v1::Protocol::Tcp as i32,
            container_port: container_port.into(),
            host_port: host_port.into(),
            host_ip: String::new(),
        }];
    }
}

#[tokio::test]
async fn in_host_mode_a_port_is_one_pods_and_published_ports_tell_pods_apart() {
    let node = Node::new().await;
    let port = free_port().await;
    let serve = |config: &mut v1::ContainerConfig| config.annotations = serves_on(port);
    let first = node.pod("first").await;
    let id = first.start("main", "http", serve).await;
    assert_eq!(first.address().await, LOCALHOST);
    assert!(get(LOCALHOST, port).await.unwrap().contains("hello over http\n"));

    let clash = node.pod("clash").await;
    let loser = clash.create("main", "http", serve).await;
    let error = node.client().start_container(&loser).await.unwrap_err();
    let message = error.message();
    assert!(message.contains(&port.to_string()) && message.contains("in use"), "{message}");
    let status = clash.exit_of(&loser).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{status:?}");

    let host_port = free_port().await;
    let second = node.pod_with("second", publish(host_port, port)).await;
    second.start("main", "http", serve).await;
    assert!(get(LOCALHOST, host_port).await.unwrap().contains("hello over http\n"));
    first.remove().await;
    assert!(node.client().container_status(&id).await.unwrap_err().is_not_found());
    assert!(get(LOCALHOST, port).await.is_err());
}

/// Where the machine lets a route be added; elsewhere host mode is what there is.
#[tokio::test]
async fn pods_with_addresses_of_their_own_serve_on_the_same_port() {
    if !wasm::route::is_permitted() {
        return;
    }
    let node = Node::with_mode(PodAddressMode::Auto).await;
    let network_ready = async || {
        let status = node.client().status(false).await.unwrap().status.unwrap();
        status.conditions.into_iter().find(|condition| condition.r#type == "NetworkReady").unwrap()
    };
    let waiting = network_ready().await;
    assert!(!waiting.status && waiting.reason == "NetworkPluginNotReady", "{waiting:?}");
    let early = node.client().run_pod_sandbox(node.sandbox_config("early", |_| {}), "").await.unwrap_err();
    assert!(early.message().contains("podCIDR"), "{}", early.message());
    node.client().update_runtime_config("198.18.50.0/28").await.unwrap();
    assert!(network_ready().await.status);

    let serve = |config: &mut v1::ContainerConfig| config.annotations = serves_on(8080);
    let host_port = free_port().await;
    let a = node.pod_with("a", publish(host_port, 8080)).await;
    let b = node.pod("b").await;
    for pod in [&a, &b] {
        pod.start("main", "http", serve).await;
        let address = pod.address().await;
        assert!(address.to_string().starts_with("198.18.50."), "{address}");
        assert!(get(address, 8080).await.unwrap().contains("hello over http\n"));
    }
    assert_ne!(a.address().await, b.address().await);
    assert!(get(LOCALHOST, host_port).await.unwrap().contains("hello over http\n"));

    let clash = node.client().run_pod_sandbox(node.sandbox_config("c", publish(host_port, 80)), "").await.unwrap_err();
    assert!(clash.message().contains(&host_port.to_string()), "{}", clash.message());

    a.remove().await;
    eventually("the host port is closed", async || get(LOCALHOST, host_port).await.is_err().then_some(())).await;
    node.runtime.as_ref().unwrap().shutdown(std::time::Duration::from_secs(1)).await;
    assert!(std::net::UdpSocket::bind("198.18.50.2:0").is_err(), "the route is still there");
}

#[tokio::test]
async fn a_pod_on_the_hosts_network_has_the_nodes_address() {
    let node = Node::new().await;
    let on_host = |config: &mut v1::PodSandboxConfig| {
        let options = v1::NamespaceOption { network: v1::NamespaceMode::Node as i32, ..Default::default() };
        let security = v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        config.linux = Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
    };
    let pod = node.pod_with("host", on_host).await;
    let status = node.client().pod_sandbox_status(&pod.id).await.unwrap().status.unwrap();
    let network = status.linux.unwrap().namespaces.unwrap().options.unwrap().network;
    assert_eq!(network, v1::NamespaceMode::Node as i32);
    assert_eq!(pod.address().await, LOCALHOST);
}

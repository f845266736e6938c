//! Tests of `names`.

use super::*;

fn web() -> PodIdentity {
    PodIdentity { name: "web-0".into(), namespace: "shop".into(), uid: "12-34".into() }
}

#[test]
fn a_sandbox_carries_the_pods_labels_and_its_identity_over_them() {
    let own = Map::from([("app".into(), "web".into()), (POD_UID.into(), "forged".into())]);
    let labels = web().sandbox_labels(&own);
    assert_eq!(labels["app"], "web");
    assert_eq!(labels["io.kubernetes.pod.name"], "web-0");
    assert_eq!(labels["io.kubernetes.pod.namespace"], "shop");
    assert_eq!(labels["io.kubernetes.pod.uid"], "12-34");
    assert_eq!(labels.len(), 4);
}

#[test]
fn a_containers_labels_say_whose_it_is() {
    let labels = web().container_labels("nginx");
    assert_eq!(container_name(&labels), Some("nginx"));
    assert_eq!(PodIdentity::of(&labels), Some(web()));
}

#[test]
fn labels_of_no_kubelet_name_no_pod() {
    let mut labels = web().container_labels("nginx");
    labels.remove(POD_UID);
    assert_eq!(PodIdentity::of(&labels), None);
}

#[test]
fn annotations_come_back_as_they_went() {
    let annotations = ContainerAnnotations {
        hash: "5f2a".into(),
        restart_count: 3,
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: "File".into(),
        ports: vec![
            ContainerPort {
                name: "http".into(),
                host_port: Some(8080),
                container_port: 80,
                protocol: PortProtocol::Tcp,
                host_ip: "127.0.0.1".into(),
            },
            ContainerPort {
                name: String::new(),
                host_port: None,
                container_port: 53,
                protocol: PortProtocol::Udp,
                host_ip: String::new(),
            },
        ],
        termination_grace_period: Some(Duration::from_secs(30)),
    };
    let map = annotations.to_map().unwrap();
    assert_eq!(map[CONTAINER_RESTART_COUNT], "3");
    assert_eq!(map[POD_TERMINATION_GRACE_PERIOD], "30");
    assert_eq!(
        map[CONTAINER_PORTS],
        r#"[{"name":"http","hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":"127.0.0.1"},{"containerPort":53,"protocol":"UDP"}]"#
    );
    assert_eq!(ContainerAnnotations::of(&map).unwrap(), annotations);
}

#[test]
fn a_stock_kubelets_ports_are_read() {
    let map = Map::from([(
        CONTAINER_PORTS.to_owned(),
        r#"[{"name":"http","containerPort":80,"protocol":"TCP"},{"containerPort":81}]"#.to_owned(),
    )]);
    let ports = ContainerAnnotations::of(&map).unwrap().ports;
    assert_eq!(ports[1].container_port, 81);
    assert_eq!(ports[1].protocol, PortProtocol::Tcp);
}

#[test]
fn a_container_without_annotations_is_a_first_one() {
    let none = ContainerAnnotations::of(&Map::new()).unwrap();
    assert_eq!(none, ContainerAnnotations::default());
}

#[test]
fn an_unreadable_annotation_is_named() {
    let map = Map::from([(CONTAINER_RESTART_COUNT.to_owned(), "many".to_owned())]);
    let error = ContainerAnnotations::of(&map).unwrap_err();
    assert_eq!(error.to_string(), "annotation io.kubernetes.container.restartCount: \"many\" is no number");
    let map = Map::from([(CONTAINER_PORTS.to_owned(), "80".to_owned())]);
    assert!(matches!(ContainerAnnotations::of(&map), Err(AnnotationError::Ports(_))));
}

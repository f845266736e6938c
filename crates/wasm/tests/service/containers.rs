//! Containers: how they end, what they see, and what is refused.

use std::time::Duration;

use cri::names::ContainerAnnotations;
use cri::{Code, v1};

use crate::bed::{Node, reference};

#[tokio::test]
async fn ends_are_told_as_kubernetes_has_them() {
    let node = Node::new().await;
    let pod = node.pod("ends").await;
    let traps = pod.start("traps", "traps", |_| {}).await;
    let limited = |config: &mut v1::ContainerConfig| {
        let resources = v1::LinuxContainerResources { memory_limit_in_bytes: 4 << 20, ..Default::default() };
        config.linux = Some(v1::LinuxContainerConfig { resources: Some(resources), security_context: None });
    };
    let grows = pod.start("grows", "grows", limited).await;
    let parked = pod.start("parked", "parked", |_| {}).await;
    let status = pod.exit_of(&traps).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (134, "Error"), "{status:?}");
    assert!(status.message.contains("unreachable"), "{status:?}");
    let status = pod.exit_of(&grows).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{status:?}");
    node.client().stop_container(&parked, Duration::from_secs(30)).await.unwrap();
    let status = pod.exit_of(&parked).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (143, "Error"), "{status:?}");
}

#[tokio::test]
async fn code_that_cannot_run_is_refused_when_its_container_is_made() {
    let node = Node::new().await;
    let pod = node.pod("refused").await;
    let error = pod.try_create("main", "unknown-import", |_| {}).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let message = error.message();
    assert!(
        message.contains("imports what this node does not provide") && message.contains("unknown-import"),
        "{message}"
    );
    let left = std::fs::read_dir(node.state_dir().join("containers")).unwrap().count();
    assert_eq!(left, 0, "a container that was not made has left files");
}

#[tokio::test]
async fn a_name_is_used_once() {
    let node = Node::new().await;
    let pod = node.pod("twice").await;
    let again = node.client().run_pod_sandbox(pod.config.clone(), "").await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists, "{again:?}");
    pod.create("main", "prints", |_| {}).await;
    let again = pod.try_create("main", "prints", |_| {}).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists, "{again:?}");
    pod.create("main", "prints", |config| config.metadata.as_mut().unwrap().attempt = 1).await;
}

#[tokio::test]
async fn volumes_are_seen_and_single_files_are_refused() {
    let node = Node::new().await;
    let volume = node.directory("volume");
    std::fs::write(volume.join("greeting"), "from the volume\n").unwrap();
    let mount = |container_path: &str, host_path: &std::path::Path| v1::Mount {
        container_path: container_path.into(),
        host_path: host_path.display().to_string(),
        readonly: true,
        ..Default::default()
    };
    let pod = node.pod("volumes").await;
    let reads = pod
        .start("reads", "reads", |config| {
            config.mounts = vec![mount("/data", &volume)];
            config.args = vec!["/data/greeting".into()];
        })
        .await;
    let status = pod.exit_of(&reads).await;
    assert_eq!((status.exit_code, status.mounts.len()), (0, 1), "{status:?}");
    assert_eq!(pod.log("reads"), ["stdout F from the volume"]);

    let hostname = pod.start("hostname", "reads", |config| config.args = vec!["/etc/hostname".into()]).await;
    assert_eq!(pod.exit_of(&hostname).await.exit_code, 0);
    assert_eq!(pod.log("hostname"), ["stdout F volumes"]);

    let file = |config: &mut v1::ContainerConfig| config.mounts = vec![mount("/greeting", &volume.join("greeting"))];
    let refused = pod.try_create("file", "reads", file).await.unwrap_err();
    assert!(refused.message().contains("mounting a single file"), "{}", refused.message());
}

#[tokio::test]
async fn last_words_reach_the_file_the_kubelet_reads() {
    let node = Node::new().await;
    let host = node.directory("kubelet").join("last-words");
    std::fs::write(&host, "").unwrap();
    let pod = node.pod("last-words").await;
    let id = pod
        .start("main", "leaves-a-message", |config| {
            let path = "/dev/termination-log".to_owned();
            config.annotations =
                ContainerAnnotations { termination_message_path: path.clone(), ..Default::default() }.to_map().unwrap();
            config.mounts =
                vec![v1::Mount { container_path: path, host_path: host.display().to_string(), ..Default::default() }];
        })
        .await;
    assert_eq!(pod.exit_of(&id).await.exit_code, 1);
    assert_eq!(std::fs::read_to_string(&host).unwrap(), "last words");
}

#[tokio::test]
async fn a_log_is_complete_when_its_container_has_ended_and_stays_when_it_is_removed() {
    let node = Node::new().await;
    let pod = node.pod("flood").await;
    let id = pod.start("main", "floods", |_| {}).await;
    assert_eq!(pod.exit_of(&id).await.exit_code, 0);
    let log = pod.log("main");
    assert_eq!(log.len(), 65536);
    assert!(log.iter().all(|line| line == "stdout F 0123456789abcde"));
    node.client().remove_container(&id).await.unwrap();
    assert_eq!(std::fs::read_dir(node.state_dir().join("containers")).unwrap().count(), 0);
    assert_eq!(pod.log("main").len(), 65536);
}

#[tokio::test]
async fn an_image_in_use_is_not_removed() {
    let node = Node::new().await;
    let pod = node.pod("in-use").await;
    let spec = || v1::ImageSpec { image: reference("parked"), ..Default::default() };
    let id = pod.start("main", "parked", |_| {}).await;
    let refused = node.client().remove_image(spec()).await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains(&id), "{refused:?}");
    node.client().remove_container(&id).await.unwrap();
    node.client().remove_image(spec()).await.unwrap();
    assert!(node.client().image_status(spec()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_stop_that_is_shortened_ends_sooner() {
    let node = Node::new().await;
    let pod = node.pod("shortened").await;
    // An HTTP guest finishes its requests first: this client never lets go of its own.
    let port = crate::bed::free_port().await;
    let id = pod.start("main", "http", |config| config.annotations = crate::bed::serves_on(port)).await;
    let mut held = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut held, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        .await
        .unwrap();
    let patient = node.client().stop_container(&id, Duration::from_secs(3600));
    let hasty = node.client().stop_container(&id, Duration::from_secs(1));
    let both = async { tokio::join!(patient, hasty) };
    let (patient, hasty) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    patient.unwrap();
    hasty.unwrap();
    pod.exit_of(&id).await;
}

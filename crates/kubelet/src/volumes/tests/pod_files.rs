//! Tests of the files that the kubelet adds to each container.

use decide::names::ContainerName;

use super::*;
use crate::volumes::{Hosts, is_termination_message};

fn uid() -> PodUid {
    PodUid::from("u")
}

async fn prepared(root: &Root) -> Volumes {
    let volumes = volumes(root);
    volumes.prepare(&pod("[]")).await.unwrap();
    volumes
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn a_hosts_file_is_written_anew_for_each_container() {
    let root = Root::new();
    let volumes = prepared(&root).await;
    let path = root.pod("u").join("etc-hosts");
    for content in ["first", "second"] {
        let mount = volumes.hosts_file(&uid(), Hosts::OfPod(content.to_owned())).await.unwrap();
        assert_eq!(
            (mount.container_path.as_str(), Path::new(&mount.host_path), mount.readonly),
            ("/etc/hosts", &*path, false)
        );
        assert_eq!((text(&path).as_str(), mode(&path)), (content, 0o644));
    }
    volumes.hosts_file(&uid(), Hosts::OfNode(Arc::new(pod("[]")))).await.unwrap();
    let of_node = fs::read_to_string("/etc/hosts").unwrap_or_default();
    assert_eq!(text(&path), format!("# Kubernetes-managed hosts file (host network).\n{of_node}"));
}

#[tokio::test]
async fn each_instance_has_a_message_of_its_own_empty_at_first() {
    let root = Root::new();
    let volumes = prepared(&root).await;
    let (uid, main) = (uid(), ContainerName::from("main"));
    let make = async |attempt| {
        let mount = volumes.termination_message(&uid, &main, attempt, "/dev/termination-log").await.unwrap();
        assert_eq!((mount.container_path.as_str(), mount.readonly), ("/dev/termination-log", false));
        PathBuf::from(mount.host_path)
    };
    let (first, second) = (make(0).await, make(26).await);
    assert_eq!(first, root.pod("u").join("containers/main/00000000"));
    assert_eq!(second, root.pod("u").join("containers/main/0000001a"));
    assert!(is_termination_message(&first, "u", "main") && is_termination_message(&second, "u", "main"));
    fs::write(&first, "old").unwrap();
    assert_eq!(make(0).await, first);
    assert_eq!((text(&first).as_str(), mode(&first)), ("", 0o666));
}

#[tokio::test]
async fn they_go_with_the_pod_and_do_not_come_back() {
    let root = Root::new();
    let volumes = prepared(&root).await;
    let (main, text) = (ContainerName::from("main"), || Hosts::OfPod("text".to_owned()));
    volumes.hosts_file(&uid(), text()).await.unwrap();
    volumes.termination_message(&uid(), &main, 0, "/m").await.unwrap();
    volumes.release(&uid()).await.unwrap();
    assert!(!root.pod("u").exists());
    let refused = |what| {
        Failure::new("CreateContainerConfigError", format!("{what} of pod u: the pod's volumes are not prepared"))
    };
    assert_eq!(volumes.hosts_file(&uid(), text()).await, Err(refused("hosts file")));
    assert_eq!(volumes.termination_message(&uid(), &main, 0, "/m").await, Err(refused("termination message")));
    assert!(!root.pod("u").exists());
}

#[test]
fn a_message_is_known_by_its_place() {
    let cases = [
        ("/r/pods/u/containers/main/0000001a", true),
        ("/r/pods/u/containers/main/0000001", false),
        ("/r/pods/u/containers/main/0000001g", false),
        ("/r/pods/u/containers/other/0000001a", false),
        ("/r/pods/v/containers/main/0000001a", false),
        ("/r/pods/u/volumes/kubernetes.io~secret/0000001a", false),
        ("/etc/shadow", false),
        ("", false),
    ];
    for (path, expected) in cases {
        assert_eq!(is_termination_message(Path::new(path), "u", "main"), expected, "{path}");
    }
}

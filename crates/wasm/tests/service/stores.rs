//! `wasi:keyvalue` and `wasi:config`: what a pod's guests share, what a volume keeps, and what a guest is not given.

use std::time::Duration;

use cri::v1;

use crate::bed::{Node, Pod};

/// What a function of the guest returned: the exit code and the text.
async fn call(node: &Node, id: &str, words: &[&str]) -> (i32, String) {
    let words: Vec<_> = words.iter().copied().map(str::to_owned).collect();
    let answer = node.client().exec_sync(id, &words, Duration::from_secs(30)).await.unwrap();
    let text = if answer.exit_code == 0 { answer.stdout } else { answer.stderr };
    (answer.exit_code, String::from_utf8(text).unwrap().trim_end().to_owned())
}

fn fine(text: &str) -> (i32, String) {
    (0, text.to_owned())
}

fn wrong(text: &str) -> (i32, String) {
    (1, text.to_owned())
}

fn volume(host: &std::path::Path, guest: &str, readonly: bool) -> v1::Mount {
    v1::Mount { container_path: guest.into(), host_path: host.display().to_string(), readonly, ..Default::default() }
}

/// All that a bucket can do, of which another call is a new instance.
async fn keeps_pairs(node: &Node, id: &str, bucket: &str) {
    assert_eq!(call(node, id, &["#get", bucket, "a"]).await, fine("ok(none)"), "{bucket}");
    assert_eq!(call(node, id, &["#set", bucket, "a", "[104, 105]"]).await, fine("ok"));
    assert_eq!(call(node, id, &["#get", bucket, "a"]).await, fine("ok(some([104, 105]))"));
    assert_eq!(call(node, id, &["#exists", bucket, "a"]).await, fine("ok(true)"));
    assert_eq!(call(node, id, &["#increment", bucket, "n", "2"]).await, fine("ok(2)"));
    assert_eq!(call(node, id, &["#increment", bucket, "n", "40"]).await, fine("ok(42)"));
    assert_eq!(call(node, id, &["#set-many", bucket, r#"[("b", [1]), ("../c", [])]"#]).await, fine("ok"));
    let listed = call(node, id, &["#list-keys", bucket]).await;
    assert!(listed.1.starts_with(r#"ok({keys: ["../c", "a", "b", "n"]"#), "{listed:?}");
    let many = call(node, id, &["#get-many", bucket, r#"["b", "nothing"]"#]).await;
    assert_eq!(many, fine(r#"ok([some(("b", [1])), none])"#));
    assert_eq!(call(node, id, &["#delete", bucket, "a"]).await, fine("ok"));
    assert_eq!(call(node, id, &["#exists", bucket, "a"]).await, fine("ok(false)"));
}

#[tokio::test]
async fn a_pods_containers_share_its_pairs_and_no_other_pod_does() {
    let node = Node::new().await;
    let (pod, other) = (node.pod("shares").await, node.pod("other").await);
    let one = pod.start("one", "stores", |_| {}).await;
    let two = pod.start("two", "stores", |_| {}).await;
    let elsewhere = other.start("one", "stores", |_| {}).await;
    keeps_pairs(&node, &one, "").await;
    assert_eq!(call(&node, &two, &["#get", "default", "b"]).await, fine("ok(some([1]))"));
    assert_eq!(call(&node, &elsewhere, &["#get", "", "b"]).await, fine("ok(none)"));
    assert_eq!(call(&node, &one, &["#get", "sessions", "b"]).await, wrong("no-such-store"));
}

#[tokio::test]
async fn a_volume_keeps_its_pairs_as_files_for_whoever_mounts_it() {
    let node = Node::new().await;
    let (data, settings) = (node.directory("data"), node.directory("settings"));
    std::fs::write(settings.join("colour"), "red").unwrap();
    let pod: Pod<'_> = node.pod("volume").await;
    let id = pod
        .start("main", "stores", |config| {
            config.mounts = vec![volume(&data, "/data", false), volume(&settings, "/settings", true)];
        })
        .await;
    keeps_pairs(&node, &id, "/data").await;
    assert_eq!(std::fs::read_to_string(data.join("n")).unwrap(), "42");
    assert!(data.join("%2E.%2Fc").exists());
    assert_eq!(call(&node, &id, &["#get", "/settings", "colour"]).await, fine("ok(some([114, 101, 100]))"));
    assert_eq!(call(&node, &id, &["#set", "/settings", "colour", "[]"]).await, wrong("access-denied"));
    for nobodys in ["/", "/etc", "/data/..", "data"] {
        assert_eq!(call(&node, &id, &["#get", nobodys, "passwd"]).await, wrong("no-such-store"), "{nobodys}");
    }
}

#[tokio::test]
async fn configuration_is_the_environment() {
    let node = Node::new().await;
    let pod = node.pod("configured").await;
    let id = pod
        .start("main", "stores", |config| {
            config.envs = vec![v1::KeyValue { key: "COLOUR".into(), value: b"green".to_vec() }];
        })
        .await;
    assert_eq!(call(&node, &id, &["#configured", "COLOUR"]).await, fine(r#"some("green")"#));
    assert_eq!(call(&node, &id, &["#configured", "SHAPE"]).await, fine("none"));
    assert_eq!(call(&node, &id, &["#configured", "HOSTNAME"]).await, fine(r#"some("configured")"#));
}

#[tokio::test]
async fn the_second_draft_has_signed_sums_and_exchanges_what_was_seen() {
    let node = Node::new().await;
    let (pod, host) = (node.pod("second").await, node.directory("volume"));
    let id = pod.start("main", "stores-2", |config| config.mounts = vec![volume(&host, "/data", false)]).await;
    for bucket in ["", "/data"] {
        assert_eq!(call(&node, &id, &["#increment", bucket, "n", "-3"]).await, fine("ok(-3)"), "{bucket}");
        assert_eq!(call(&node, &id, &["#contend", bucket, "k", "[1, 2]"]).await, fine("ok(2)"));
        let many = call(&node, &id, &["#get-many", bucket, r#"["k", "nothing"]"#]).await;
        assert_eq!(many, fine(r#"ok([("k", some([1, 2])), ("nothing", none)])"#));
        let listed = call(&node, &id, &["#list-keys", bucket, "none"]).await;
        assert!(listed.1.starts_with(r#"ok({keys: ["k", "n"]"#), "{listed:?}");
        assert_eq!(
            call(&node, &id, &["#list-keys", bucket, r#"some("x")"#]).await,
            wrong(r#"other("there is no such cursor")"#)
        );
    }
    assert_eq!(call(&node, &id, &["#list-keys", "sessions", "none"]).await, wrong("no-such-store"));
}

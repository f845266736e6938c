//! What a keeper does, with an API server in memory. Time is paused: it moves when everybody waits.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{Root, pod_of, volumes_of};
use crate::objects::Objects;
use crate::objects::mock_api::MockApi;

/// Longer than any of this may take, in the tests' own time.
const PATIENCE: Duration = Duration::from_secs(3600 * 24);

fn objects(server: &MockApi) -> Objects {
    Objects::of_api_at(server.client(), server.clock())
}

/// Waits until a file says this; absent, until it is gone.
async fn until(path: PathBuf, wanted: Option<&str>) {
    let now_says = || fs::read_to_string(&path).ok();
    let waiting = async {
        while now_says().as_deref() != wanted {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{} says {:?} and not {wanted:?}", path.display(), now_says());
}

#[tokio::test(start_paused = true)]
async fn files_follow_their_objects() {
    let (root, server) = (Root::new(), MockApi::new());
    server.put("configmaps", "ns", "m", json!({"data": {"k": "one"}}));
    let (objects, pod) = (objects(&server), pod_of("u", "{}", "[{name: v, configMap: {name: m}}]", "[]"));
    let volumes = volumes_of(&root, objects.clone());
    objects.register(&pod);
    volumes.prepare(&pod).await.unwrap();
    let file = |name: &str| root.volume("configmap", "v").join(name);
    until(file("k"), Some("one")).await;

    let before = Instant::now();
    server.put("configmaps", "ns", "m", json!({"data": {"k": "two", "more": "x"}}));
    until(file("k"), Some("two")).await;
    until(file("more"), Some("x")).await;
    assert!(before.elapsed() < Duration::from_secs(2), "it did not wait for the period: {:?}", before.elapsed());
    server.put("configmaps", "ns", "m", json!({"data": {"more": "x"}}));
    until(file("k"), None).await;

    // What is gone but must be there leaves the files as they are, until it is back.
    server.delete("configmaps", "ns", "m");
    sleep(Duration::from_secs(300)).await;
    until(file("more"), Some("x")).await;
    server.put("configmaps", "ns", "m", json!({"data": {"more": "y"}}));
    until(file("more"), Some("y")).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_there_at_the_next_try() {
    let (root, server) = (Root::new(), MockApi::new());
    let (objects, pod) = (objects(&server), pod_of("u", "{}", "[{name: v, secret: {secretName: s}}]", "[]"));
    let volumes = volumes_of(&root, objects.clone());
    objects.register(&pod);
    let mut changed = objects.changed();
    let failure = volumes.prepare(&pod).await.unwrap_err();
    assert_eq!(failure.message, "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found");
    changed.borrow_and_update();
    server.put("secrets", "ns", "s", json!({"data": {"k": "b25l"}}));
    timeout(PATIENCE, changed.changed()).await.unwrap().unwrap();
    volumes.prepare(&pod).await.unwrap();
    until(root.volume("secret", "v").join("k"), Some("one")).await;
}

#[tokio::test(start_paused = true)]
async fn files_follow_the_pods_labels() {
    let (root, server) = (Root::new(), MockApi::new());
    let of = "[{name: v, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]";
    let volumes = volumes_of(&root, objects(&server));
    let file = root.volume("downward-api", "v").join("l");
    // Not prepared yet: nothing happens.
    volumes.update(&pod_of("u", "{a: early}", of, "[]"));
    assert!(!root.pod("u").exists());
    volumes.prepare(&pod_of("u", "{a: one}", of, "[]")).await.unwrap();
    until(file.clone(), Some("a=\"one\"")).await;
    volumes.update(&pod_of("u", "{a: two}", of, "[]"));
    until(file.clone(), Some("a=\"two\"")).await;
    // Other volumes are not taken up.
    volumes.update(&pod_of("u", "{a: three}", "[{name: w, emptyDir: {}}]", "[]"));
    sleep(Duration::from_secs(300)).await;
    until(file, Some("a=\"two\"")).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_ends() {
    let (root, server) = (Root::new(), MockApi::new());
    let of = "[{name: v, projected: {sources: [{serviceAccountToken: {path: token, audience: vault}}]}}]";
    let volumes = volumes_of(&root, objects(&server));
    volumes.prepare(&pod_of("u", "{}", of, "[]")).await.unwrap();
    let file = root.volume("projected", "v").join("token");
    until(file.clone(), Some("token-1")).await;
    let begun = Instant::now();
    until(file.clone(), Some("token-2")).await;
    let (took, life) = (begun.elapsed(), Duration::from_secs(3600));
    assert!(took > life.mul_f64(0.74) && took < life.mul_f64(0.82), "{took:?}");
    assert_eq!(server.token_requests().len(), 2);

    // The API server is away for longer than the token is due: renewed as soon as it is back.
    server.set_away(true);
    sleep(life).await;
    until(file.clone(), Some("token-2")).await;
    server.set_away(false);
    let back = Instant::now();
    until(file, Some("token-3")).await;
    assert!(back.elapsed() <= Duration::from_secs(60), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn damage_on_the_disk_is_mended_within_the_period() {
    let (root, server) = (Root::new(), MockApi::new());
    server.put("configmaps", "ns", "m", json!({"data": {"k": "one"}}));
    let volumes = volumes_of(&root, objects(&server));
    volumes.prepare(&pod_of("u", "{}", "[{name: v, configMap: {name: m}}]", "[]")).await.unwrap();
    let file = root.volume("configmap", "v").join("k");
    fs::write(&file, "broken").unwrap();
    let begun = Instant::now();
    until(file, Some("one")).await;
    assert!(begun.elapsed() <= Duration::from_secs(61), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_released_pod_is_kept_no_more() {
    let (root, server) = (Root::new(), MockApi::new());
    server.put("configmaps", "ns", "m", json!({"data": {"k": "one"}}));
    let (objects, pod) = (objects(&server), pod_of("u", "{}", "[{name: v, configMap: {name: m}}]", "[]"));
    let volumes = volumes_of(&root, objects.clone());
    objects.register(&pod);
    volumes.prepare(&pod).await.unwrap();
    volumes.release(&pod.uid).await.unwrap();
    server.put("configmaps", "ns", "m", json!({"data": {"k": "two"}}));
    sleep(Duration::from_secs(300)).await;
    assert!(!root.pod("u").exists());
}

//! Pulls: who may have which image, with which login it is tried, and what the events say.

use cri::Status;
use decide::pulled::VerificationPolicy;
use k8s_openapi::api::core::v1::Secret;
use kubelet::pulls::{PullOptions, PullRate};
use serde_json::{Value, json};

use crate::bed::{Bed, main_container, pod, waits_for, with};

const IMAGE: &str = "registry.example/team/app:v1";

/// A Secret of this namespace with one login.
fn secret(name: &str, place: &str, username: &str, password: &str) -> Secret {
    let config = json!({ "auths": { place: { "username": username, "password": password } } }).to_string();
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}") },
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": config },
    }))
    .unwrap()
}

fn using(pod: Value, secrets: &[&str]) -> Value {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({ "name": name })).collect();
    with(pod, "/spec/imagePullSecrets", secrets)
}

fn never(pod: Value) -> Value {
    with(pod, "/spec/containers/0/imagePullPolicy", "Never")
}

fn secrets() -> Vec<Secret> {
    vec![
        secret("wrong", "registry.example/team", "eve", "gu3ss"),
        secret("right", "registry.example", "alice", "s3cret"),
        secret("same", "registry.example", "alice", "s3cret"),
    ]
}

/// A node with a private image, and the Secrets of `secrets`.
fn bed(change: impl FnOnce(&mut PullOptions)) -> Bed {
    let bed = Bed::with_pulls(secrets(), change);
    bed.fake.script().private_image(IMAGE, "alice", "s3cret");
    bed
}

fn message(row: &kubelet::tables::ObservedPod) -> String {
    main_container(row).state.and_then(|state| state.waiting?.message).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn one_login_after_the_other_is_tried_best_first() {
    let bed = bed(|_| ());
    let web = using(pod("web", IMAGE), &["wrong", "missing", "right"]);
    bed.want(std::slice::from_ref(&web)).await;
    bed.until_running(&web).await;
    assert_eq!(bed.count("PullImage"), 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_let_in_reads_why() {
    let bed = bed(|_| ());
    let web = using(pod("web", IMAGE), &["wrong", "missing"]);
    bed.want(std::slice::from_ref(&web)).await;
    let row = bed.until(&web, "refused", |row| waits_for(row).as_deref() == Some("ErrImagePull")).await;
    assert!(message(&row).contains("access denied"), "{}", message(&row));
    assert!(message(&row).contains("imagePullSecret missing was not used: it does not exist"), "{}", message(&row));
    let row = bed.until(&web, "backing off", |row| waits_for(row).as_deref() == Some("ImagePullBackOff")).await;
    assert!(message(&row).starts_with(&format!("Back-off pulling image \"{IMAGE}\": ErrImagePull: ")));
    assert!(!format!("{row:?}").contains("gu3ss"));
}

#[tokio::test(start_paused = true)]
async fn a_private_image_is_not_for_who_cannot_show_its_secret() {
    let bed = bed(|_| ());
    let owner = using(pod("owner", IMAGE), &["right"]);
    let (stranger, prying) = (pod("stranger", IMAGE), never(pod("prying", IMAGE)));
    let friend = using(never(pod("friend", IMAGE)), &["same"]);
    let again = using(never(pod("again", IMAGE)), &["right"]);
    bed.want(std::slice::from_ref(&owner)).await;
    bed.until_running(&owner).await;
    assert_eq!(bed.count("PullImage"), 1);

    bed.want(&[owner.clone(), stranger.clone(), prying.clone(), friend.clone(), again.clone()]).await;
    bed.until(&stranger, "refused", |row| waits_for(row).as_deref() == Some("ErrImagePull")).await;
    bed.until(&prying, "refused", |row| waits_for(row).as_deref() == Some("ErrImageNeverPull")).await;
    // The same login in another Secret, and the same Secret: nobody is asked.
    bed.until_running(&friend).await;
    bed.until_running(&again).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_given_what_outlives_a_restart() {
    let mut bed = bed(|_| ());
    let owner = using(pod("owner", IMAGE), &["right"]);
    bed.want(std::slice::from_ref(&owner)).await;
    bed.until_running(&owner).await;
    bed.kill();
    bed.start();
    let (stranger, again) = (never(pod("stranger", IMAGE)), using(never(pod("again", IMAGE)), &["right"]));
    bed.want(&[owner, stranger.clone(), again.clone()]).await;
    bed.until(&stranger, "refused", |row| waits_for(row).as_deref() == Some("ErrImageNeverPull")).await;
    bed.until_running(&again).await;
}

#[tokio::test(start_paused = true)]
async fn policies_decide_about_images_that_came_another_way() {
    for (policy, may) in [
        (VerificationPolicy::NeverVerifyPreloadedImages, true),
        (VerificationPolicy::AlwaysVerify, false),
        (VerificationPolicy::NeverVerifyAllowlistedImages(Vec::new()), false),
    ] {
        let bed = bed(|options| options.verification = policy.clone());
        bed.fake.script().image_on_node(IMAGE);
        let web = never(pod("web", IMAGE));
        bed.want(std::slice::from_ref(&web)).await;
        if may {
            bed.until_running(&web).await;
        } else {
            bed.until(&web, "refused", |row| waits_for(row).as_deref() == Some("ErrImageNeverPull")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_node_logs_in_for_all_its_pods() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({ "auths": { "registry.example": { "username": "alice", "password": "s3cret" } } });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let bed = bed(|options| options.login_directories.push(folder.path().to_owned()));
    let (first, second) = (pod("first", IMAGE), never(pod("second", IMAGE)));
    bed.want(std::slice::from_ref(&first)).await;
    bed.until_running(&first).await;
    bed.want(&[first, second.clone()]).await;
    bed.until_running(&second).await;
}

#[tokio::test(start_paused = true)]
async fn registries_are_asked_at_a_pace() {
    let bed = bed(|options| options.rate = PullRate { per_second: 1, burst: 2 });
    bed.fake.script().image("a:v1").image("b:v1").image("c:v1");
    let pods: Vec<Value> = ["a", "b", "c"].iter().map(|name| pod(name, &format!("{name}:v1"))).collect();
    bed.want(&pods).await;
    let mut exceeded = 0;
    for pod in &pods {
        let known = bed
            .until(pod, "judged", |row| crate::bed::is_ready(row) || waits_for(row).as_deref() == Some("ErrImagePull"));
        let row = known.await;
        exceeded += usize::from(message(&row) == "pull QPS exceeded");
    }
    assert_eq!(exceeded, 1);
    for pod in &pods {
        bed.until_running(pod).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_here_and_not_trusted_has_the_reason_of_a_pull() {
    let bed = bed(|_| ());
    let said = "SignatureValidationFailed: it was pulled under another policy";
    bed.fake.script().image_on_node(IMAGE).fail_next("CreateContainer", Status::failed_precondition(said));
    let pod = pod("web", IMAGE);
    bed.change(&pod).await;
    let reason = "SignatureValidationFailed";
    let row = bed.until(&pod, reason, |row| waits_for(row).as_deref() == Some(reason)).await;
    assert!(message(&row).contains("the signature validation failed: it was pulled under"), "{}", message(&row));
    bed.until_running(&pod).await;
}

#[tokio::test(start_paused = true)]
async fn causes_with_reasons_of_their_own_are_told_in_the_kubelets_words() {
    let bed = bed(|_| ());
    for (name, said, reason, words) in [
        (
            "away",
            "RegistryUnavailable: connection refused",
            "RegistryUnavailable",
            "the registry is unavailable: connection refused",
        ),
        (
            "forged",
            "SignatureValidationFailed: no signature",
            "SignatureValidationFailed",
            "the signature validation failed: no signature",
        ),
    ] {
        let image = format!("{name}:v1");
        bed.fake.script().image(&image).fail_next("PullImage", Status::unknown(said));
        let pod = pod(name, &image);
        bed.change(&pod).await;
        let row = bed.until(&pod, reason, |row| waits_for(row).as_deref() == Some(reason)).await;
        assert_eq!(message(&row), format!("image pull failed for {image} because {words}"));
        bed.until_running(&pod).await;
    }
}

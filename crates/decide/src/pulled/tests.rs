//! Who gets an image that is there, and who must ask the registry.

use super::*;

const IMAGE: &str = "registry.example/team/app:v1";

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn proof(name: &str, hash: &str) -> SecretProof {
    SecretProof { uid: format!("uid-{name}"), namespace: "a".into(), name: name.into(), credential_hash: hash.into() }
}

fn pulled_with(proof: Option<&SecretProof>) -> History {
    let mut record = PulledRecord::new("sha256:1", now());
    record.add(IMAGE, proof, now());
    History::Pulled(record)
}

fn check(policy: &VerificationPolicy, history: &History, proofs: &[SecretProof], wanted: &Verdict) {
    assert_eq!(verdict(policy, IMAGE, history, proofs), *wanted, "{policy:?} {history:?} {proofs:?}");
}

#[test]
fn a_secrets_image_is_for_those_with_the_secret() {
    let policy = VerificationPolicy::default();
    let alice = proof("alice", "h1");
    let history = pulled_with(Some(&alice));
    check(&policy, &history, &[], &Verdict::Ask);
    check(&policy, &history, &[proof("bob", "h2")], &Verdict::Ask);
    check(&policy, &history, &[proof("bob", "h2"), alice.clone()], &Verdict::Granted);
    // The same login in another Secret, and a login that was changed in the same Secret.
    check(&policy, &history, &[proof("bob", "h1")], &Verdict::GrantedBy(proof("bob", "h1")));
    check(&policy, &history, &[proof("alice", "h2")], &Verdict::GrantedBy(proof("alice", "h2")));
    // A login that could not be hashed is like no other.
    let unhashed = pulled_with(Some(&proof("alice", "")));
    check(&policy, &unhashed, &[proof("bob", "")], &Verdict::Ask);
}

#[test]
fn what_anybody_was_given_is_for_everybody() {
    let policy = VerificationPolicy::AlwaysVerify;
    check(&policy, &pulled_with(None), &[], &Verdict::Granted);
    // Of another repository nothing is known, though it is the same image.
    let verdict = verdict(&policy, "registry.example/other/app:v1", &pulled_with(None), &[]);
    assert_eq!(verdict, Verdict::Ask);
}

#[test]
fn policies_differ_in_what_needs_no_proof() {
    let allowed =
        |text: &str| VerificationPolicy::NeverVerifyAllowlistedImages(vec![AllowedImages::parse(text).unwrap()]);
    let secret = pulled_with(Some(&proof("alice", "h1")));
    let all = [History::Preloaded, History::Begun, secret, History::Unreadable];
    for (policy, granted) in [
        (VerificationPolicy::NeverVerify, [true, true, true, false]),
        (VerificationPolicy::NeverVerifyPreloadedImages, [true, false, false, false]),
        (allowed("registry.example/team/*"), [true, true, true, false]),
        (allowed("registry.example/team/app"), [true, true, true, false]),
        (allowed("registry.example/team"), [false, false, false, false]),
        (VerificationPolicy::AlwaysVerify, [false, false, false, false]),
    ] {
        for (history, granted) in all.iter().zip(granted) {
            let wanted = if granted { Verdict::Granted } else { Verdict::Ask };
            check(&policy, history, &[], &wanted);
        }
    }
}

#[test]
fn records_grow_by_what_is_new_and_not_without_bound() {
    let mut record = PulledRecord::new("sha256:1", now());
    assert!(record.add(IMAGE, Some(&proof("a", "h")), now()));
    assert!(!record.add(IMAGE, Some(&proof("a", "h")), now()));
    assert!(record.add(IMAGE, Some(&proof("a", "h2")), now()), "another login");
    for number in 0..500 {
        record.add(IMAGE, Some(&proof(&format!("s{number}"), "h")), now());
    }
    let known = |record: &PulledRecord| record.credential_mapping["registry.example/team/app"].clone();
    assert_eq!(known(&record).kubernetes_secrets.len(), SECRETS_MAX);
    assert!(record.add(IMAGE, None, now()));
    assert_eq!(known(&record), PullCredentials { node_pods_accessible: true, ..PullCredentials::default() });
    assert!(!record.add(IMAGE, Some(&proof("a", "h")), now()));
}

#[test]
fn records_are_the_kubelets_json() {
    let History::Pulled(record) = pulled_with(Some(&proof("alice", "h1"))) else { panic!() };
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "kind": "ImagePulledRecord", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "lastUpdatedTime": "1970-01-01T00:00:00Z", "imageRef": "sha256:1",
            "credentialMapping": {"registry.example/team/app": {"kubernetesSecrets": [
                {"uid": "uid-alice", "namespace": "a", "name": "alice", "credentialHash": "h1"}]}}
        })
    );
    assert_eq!(serde_json::from_value::<PulledRecord>(json).unwrap(), record);
}

#[test]
fn patterns_are_checked() {
    for bad in ["", " a", "*", "/*", "a.example/*/b", "a.example/b*", "a.example/b:v1", "nginx"] {
        assert!(AllowedImages::parse(bad).is_err(), "{bad}");
    }
}

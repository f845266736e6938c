//! A trust policy at pulls: what is fetched, what is refused, and in which words.

use std::fs;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Digest, PullErrorKind, Puller, PullerOptions, Signer, TrustPolicy, Verdict};
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::bench::{Bench, bench, bench_with, module, packed};
use crate::registry::{ALWAYS, Fault, Registry, Route};

/// Puts a signature beside an image, as `cosign sign --key` does.
fn sign(registry: &Registry, digest: Digest, key: &KeyPair) {
    let critical = json!({"identity": {"docker-reference": ""}, "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature"});
    let payload = json!({ "critical": critical, "optional": null }).to_string();
    let mut layer = registry.blob("application/vnd.dev.cosign.simplesigning.v1+json", payload.clone());
    let signature = STANDARD.encode(key.sign(payload.as_bytes()).unwrap());
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    let config = registry.blob("application/vnd.oci.image.config.v1+json", "{}");
    registry.image(&format!("sha256-{}.sig", digest.hex()), &config, &[layer]);
}

/// A layer with a Sigstore bundle, as `cosign sign --key` makes it since version 3.
fn bundle(registry: &Registry, digest: Digest, key: &KeyPair) -> Value {
    let statement = json!({"_type": "https://in-toto.io/Statement/v1", "predicate": {},
        "subject": [{"digest": {"sha256": digest.hex()}}], "predicateType": "https://sigstore.dev/cosign/sign/v1"})
    .to_string();
    let signed = format!("DSSEv1 28 application/vnd.in-toto+json {} {statement}", statement.len());
    let signature = STANDARD.encode(key.sign(signed.as_bytes()).unwrap());
    let envelope = json!({"payload": STANDARD.encode(&statement), "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": signature}]});
    let bundle = json!({"mediaType": BUNDLE, "verificationMaterial": {"publicKey": {}}, "dsseEnvelope": envelope});
    registry.blob(BUNDLE, bundle.to_string())
}

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn policy_of(key: &KeyPair) -> (Arc<TrustPolicy>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("team.pub"), key.public_key_pem()).unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, "images:\n- pattern: '**'\n  keys: [team.pub]\n").unwrap();
    (Arc::new(TrustPolicy::read(&path).unwrap()), folder)
}

fn bench_that_trusts(key: &KeyPair) -> (Bench, tempfile::TempDir) {
    let (policy, folder) = policy_of(key);
    (bench_with(|options| options.trust = Some(policy)), folder)
}

/// A puller over the same store, with a policy.
fn judge(bench: &Bench, key: &KeyPair) -> Puller {
    let trust = Some(policy_of(key).0);
    Puller::new(PullerOptions { trust, ..PullerOptions::new(bench.store.clone()) })
}

#[tokio::test]
async fn a_signed_image_is_taken_and_an_unsigned_one_is_not() {
    let registry = Registry::start().await;
    let (key, stranger) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (bench, _folder) = bench_that_trusts(&key);
    let digest = registry.artifact("v1", &packed(&module("a")));
    let reference = registry.reference("app:v1");

    let error = bench.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Untrusted);
    let place = format!("{}/test/app:sha256-{}.sig", registry.host(), digest.hex());
    for words in ["policy.yaml, images \"**\"", "there is no signature", &place, "cosign sign", "or change the policy"]
    {
        assert!(error.message().contains(words), "{words}: {}", error.message());
    }
    sign(&registry, digest, &stranger);
    let error = bench.pull(&reference).await.unwrap_err();
    assert!(error.message().contains("none of its 1 signatures"), "{}", error.message());
    assert!(error.message().contains("the signature is not of the key"), "{}", error.message());
    // Layers of what is not trusted are not fetched.
    assert!(
        registry
            .log()
            .iter()
            .filter(|asked| asked.route == Route::Blobs)
            .all(|asked| { asked.what != Digest::of(packed(&module("a")).layer()).to_string() })
    );
    assert_eq!(bench.store.list().unwrap(), []);

    sign(&registry, digest, &key);
    bench.pull(&reference).await.unwrap();
    bench.pull(&reference.at(digest)).await.unwrap();
}

#[tokio::test]
async fn a_signature_that_cannot_be_had_is_no_signature() {
    let registry = Registry::start().await;
    let key = KeyPair::generate().unwrap();
    let (bench, _folder) = bench_that_trusts(&key);
    let digest = registry.artifact("v1", &packed(&module("a")));
    sign(&registry, digest, &key);
    registry.fail(Route::Blobs, Fault::Lie, ALWAYS);
    let error = bench.pull(&registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Corrupt, "{error}");
    registry.fail(Route::Blobs, Fault::Status(500, None), ALWAYS);
    let error = bench.pull(&registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
    assert!(error.message().contains("cannot get the signature sha256:"), "{}", error.message());
}

#[tokio::test]
async fn an_image_of_a_layout_needs_its_signature_too() {
    let key = KeyPair::generate().unwrap();
    let (bench, _folder) = bench_that_trusts(&key);
    let reference = image::Reference::parse("test.invalid/guests/app:v1").unwrap();
    image::pack::add_to_layout(&bench.layout, &reference, &packed(&module("a"))).unwrap();
    let error = bench.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Untrusted, "{error}");
}

#[tokio::test]
async fn signatures_are_found_among_the_referrers_of_an_image() {
    for counts in [true, false] {
        let registry = Registry::start().await;
        let key = KeyPair::generate().unwrap();
        let (bench, _folder) = bench_that_trusts(&key);
        if counts {
            registry.count_referrers();
        }
        let digest = registry.artifact("v1", &packed(&module("a")));
        let reference = registry.reference("app:v1");
        let error = bench.pull(&reference).await.unwrap_err();
        let place = format!("referrers of {}/test/app@{digest}", registry.host());
        assert!(error.message().contains(&place), "{}", error.message());
        // What else is said of an image is no signature, and nobody reads it.
        let sbom = registry.blob("application/spdx+json", "{}");
        registry.refer(digest, "application/spdx+json", &[sbom]);
        if counts {
            let stranger = KeyPair::generate().unwrap();
            registry.refer(digest, BUNDLE, &[bundle(&registry, digest, &stranger)]);
            let error = bench.pull(&reference).await.unwrap_err();
            assert!(error.message().contains("none of its 1 signatures"), "{}", error.message());
        }
        registry.refer(digest, BUNDLE, &[bundle(&registry, digest, &key)]);
        let image = bench.pull(&reference).await.unwrap();
        assert!(matches!(&image.verified[0].signer, Signer::Key { file, .. } if file == "team.pub"), "{image:?}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_know_the_question_is_asked_in_the_old_way() {
    let registry = Registry::start().await;
    let key = KeyPair::generate().unwrap();
    let (bench, _folder) = bench_that_trusts(&key);
    let digest = registry.artifact("v1", &packed(&module("a")));
    registry.refer(digest, BUNDLE, &[bundle(&registry, digest, &key)]);
    registry.fail(Route::Referrers, Fault::Status(405, None), ALWAYS);
    bench.pull(&registry.reference("app:v1")).await.unwrap();
    // One that fails has not said that there are none.
    registry.fail(Route::Referrers, Fault::Status(500, None), ALWAYS);
    let error = bench.pull(&registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn an_image_that_was_here_before_its_policy_is_judged_before_it_is_used() {
    let registry = Registry::start().await;
    let (key, stranger) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let bench = bench();
    let digest = registry.artifact("v1", &packed(&module("a")));
    let (reference, name) = (registry.reference("app:v1"), registry.reference("app:v1").to_string());
    let image = bench.pull(&reference).await.unwrap();
    bench.puller.judge(&image, &name).await.unwrap();

    let judged = judge(&bench, &key);
    for name in [name.clone(), image.id.to_string(), "other.example/app".to_owned()] {
        let error = judged.judge(&image, &name).await.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Untrusted, "{error}");
        assert!(error.message().contains("pull it again"), "{}", error.message());
    }
    // A signature that came later is found and remembered, so that nobody is asked again.
    sign(&registry, digest, &key);
    judged.judge(&image, &name).await.unwrap();
    registry.fail(Route::Manifests, Fault::Status(500, None), ALWAYS);
    let image = bench.store.find(&reference).unwrap().unwrap();
    judged.judge(&image, &name).await.unwrap();
    judged.judge(&image, &image.id.to_string()).await.unwrap();
    // What was found for one policy is nothing to another.
    let error = judge(&bench, &stranger).judge(&image, &name).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Untrusted, "{error}");
    assert!(error.message().contains("cannot be looked for"), "{}", error.message());
}

#[tokio::test]
async fn to_look_at_an_image_lists_all_its_signatures() {
    let registry = Registry::start().await;
    registry.count_referrers();
    let (key, stranger) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (bench, _folder) = bench_that_trusts(&key);
    let digest = registry.artifact("v1", &packed(&module("a")));
    sign(&registry, digest, &stranger);
    registry.refer(digest, BUNDLE, &[bundle(&registry, digest, &key)]);
    let looked = bench.puller.look(&registry.reference("app:v1"), None).await.unwrap();
    assert_eq!((looked.target, looked.manifest.layers.len(), looked.signatures.len()), (digest, 1, 2));
    assert!(matches!(looked.signatures[0].verdict, Verdict::Refused(_)), "{looked:?}");
    assert!(matches!(looked.signatures[1].verdict, Verdict::Verified { .. }), "{looked:?}");
    assert_eq!(bench.store.list().unwrap(), []);
}

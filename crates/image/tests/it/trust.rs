//! A trust policy at pulls: what is fetched, what is refused, and in which words.

use std::fs;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Digest, PullErrorKind, TrustPolicy};
use rcgen::{KeyPair, SigningKey};
use serde_json::json;

use crate::bench::{Bench, bench_with, module, packed};
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

fn bench_that_trusts(key: &KeyPair) -> (Bench, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("team.pub"), key.public_key_pem()).unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, "images:\n- pattern: '**'\n  keys: [team.pub]\n").unwrap();
    let policy = Arc::new(TrustPolicy::read(&path).unwrap());
    (bench_with(|options| options.trust = Some(policy)), folder)
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

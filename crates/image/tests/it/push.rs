//! Pushes: what is sent, what is not, and what comes of a registry that refuses.

use std::sync::Mutex;

use axum::http::Method;
use bytes::Bytes;
use image::pack::Artifact;
use image::{Credentials, Digest, Push, PushBlob, PushContent, PushProgress, Registries, RegistryOptions};

use crate::bench::{bench, module, packed};
use crate::registry::{ALWAYS, Fault, OCI_MANIFEST, PASSWORD, Registry, Route, TOKEN, USER};

fn push_of(artifact: &Artifact) -> Push {
    let blob = |content: &[u8]| PushBlob {
        digest: Digest::of(content),
        size_bytes: content.len() as u64,
        content: PushContent::Bytes(Bytes::copy_from_slice(content)),
    };
    Push {
        blobs: vec![blob(artifact.config()), blob(artifact.layer())],
        manifest: Bytes::copy_from_slice(artifact.manifest()),
        media_type: OCI_MANIFEST.to_owned(),
    }
}

fn registries() -> Registries {
    let mut options = RegistryOptions::default();
    options.limits.pause = std::time::Duration::from_millis(1);
    Registries::new(options)
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled_and_is_not_sent_again() {
    let registry = Registry::start().await;
    registry.require_login(TOKEN);
    let artifact = packed(&module(&"x".repeat(300_000)));
    let mut push = push_of(&artifact);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("layer.wasm");
    std::fs::write(&file, artifact.layer()).unwrap();
    push.blobs[1].content = PushContent::File(file);
    let alice = Credentials::Basic { username: USER.into(), password: PASSWORD.into() };
    let reference = registry.reference("pushed:v1");
    let told = Mutex::new(Vec::new());
    let tell = |progress| told.lock().unwrap().push(progress);
    let digest = registries().push(&reference, Some(&alice), &push, &tell).await.unwrap();
    assert_eq!(digest, Digest::of(artifact.manifest()));
    let layer = Digest::of(artifact.layer());
    let size = artifact.layer().len() as u64;
    let (moved, mut steps): (Vec<_>, Vec<_>) =
        told.lock().unwrap().drain(..).partition(|it| matches!(it, PushProgress::SentBytes(..)));
    assert_eq!(steps.drain(2..4).as_slice(), [PushProgress::Sending(layer, size), PushProgress::Sent(layer)]);
    let of_layer = moved.iter().filter_map(|it| match it {
        PushProgress::SentBytes(blob, bytes) if *blob == layer => Some(*bytes),
        _ => None,
    });
    assert_eq!(of_layer.clone().next_back(), Some(size));
    assert!(of_layer.is_sorted());
    let pulled = bench().puller.pull(&reference, Some(alice.clone())).await.unwrap();
    assert_eq!(pulled.digests, [reference.at(digest)]);
    let scopes: Vec<String> =
        registry.log().into_iter().filter(|it| it.route == Route::Token).map(|it| it.query).collect();
    assert!(scopes.iter().any(|query| query.contains("pull%2Cpush")), "{scopes:?}");

    told.lock().unwrap().clear();
    let uploads = registry.asked(Route::Uploads);
    registries().push(&registry.reference("pushed:v2"), Some(&alice), &push, &tell).await.unwrap();
    assert_eq!(registry.asked(Route::Uploads), uploads);
    let present = push.blobs.iter().map(|blob| PushProgress::Present(blob.digest));
    assert_eq!(*told.lock().unwrap(), present.chain([PushProgress::Done(digest)]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_push_that_fails_moves_no_tag() {
    let registry = Registry::start().await;
    let push = push_of(&packed(&module("a")));
    let reference = registry.reference("pushed:v1");
    registry.fail(Route::Uploads, Fault::Status(403, Some("DENIED")), ALWAYS);
    let error = registries().push(&reference, None, &push, &|_| ()).await.unwrap_err().to_string();
    assert!(error.contains("does not let us push: no credentials were given"), "{error}");
    registry.fail(Route::Uploads, Fault::Status(500, None), ALWAYS);
    let error = registries().push(&reference, None, &push, &|_| ()).await.unwrap_err().to_string();
    assert!(error.contains("cannot push the blob sha256:") && error.contains("HTTP 500 (tried 3 times)"), "{error}");
    for secret in [USER, PASSWORD, TOKEN, "http://"] {
        assert!(!error.contains(secret), "{error}");
    }
    assert!(!registry.has("v1"));
    registry.fail(Route::Uploads, Fault::Status(503, None), 2);
    registries().push(&reference, None, &push, &|_| ()).await.unwrap();
    assert!(registry.has("v1"));
    let puts = registry.log().iter().filter(|it| it.method == Method::PUT && it.route == Route::Manifests).count();
    assert_eq!(puts, 1);
}

#[tokio::test]
async fn an_image_is_not_pushed_under_the_digest_of_another() {
    let registry = Registry::start().await;
    let push = push_of(&packed(&module("a")));
    let other = registry.reference("pushed").at(Digest::of(b"other"));
    let error = registries().push(&other, None, &push, &|_| ()).await.unwrap_err().to_string();
    assert!(error.contains("under another digest"), "{error}");
    let own = registry.reference("pushed").at(Digest::of(&push.manifest));
    registries().push(&own, None, &push, &|_| ()).await.unwrap();
    assert!(registry.has(&Digest::of(&push.manifest).to_string()));
}

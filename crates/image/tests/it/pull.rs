//! Pulls from a registry that serves well: what is stored, what is fetched how often, which images are taken.

use std::time::Duration;

use crate::bench::{bench, component, module, packed, wasm};
use crate::registry::{OCI_INDEX, OCI_MANIFEST, PASSWORD, Registry, Route, TOKEN, USER};
use image::{Credentials, Digest, PullErrorKind, Reference};
use serde_json::json;

fn alice() -> Credentials {
    Credentials::Basic { username: USER.into(), password: PASSWORD.into() }
}

#[tokio::test]
async fn an_artifact_lands_verified_in_the_store() {
    let (registry, bench) = (Registry::start().await, bench());
    let artifact = packed(&component());
    let digest = registry.artifact("v1", &artifact);
    let reference = registry.reference("hello:v1");
    let image = bench.puller.pull(&reference, None).await.unwrap();

    assert_eq!(std::fs::read(&wasm(&image).path).unwrap(), component());
    assert_eq!((wasm(&image).digest, wasm(&image).media_type.as_str()), (Digest::of(&component()), "application/wasm"));
    assert_eq!(image.id.to_string(), Digest::of(artifact.config()).to_string());
    assert_eq!(image.references, std::slice::from_ref(&reference));
    assert_eq!(image.digests, [reference.at(digest)]);
    let size = artifact.config().len() + artifact.layer().len() + artifact.manifest().len();
    assert_eq!(image.size_bytes, size as u64);
    assert_eq!(bench.store.list().unwrap(), [image]);
}

#[tokio::test]
async fn a_second_pull_asks_for_the_manifest_only() {
    let (registry, bench) = (Registry::start().await, bench());
    let digest = registry.artifact("v1", &packed(&module("a")));
    bench.pull(&registry.reference("hello:v1")).await.unwrap();
    let blobs = registry.asked(Route::Blobs);
    assert_eq!(blobs, 2);
    bench.pull(&registry.reference("hello:v1")).await.unwrap();
    let by_digest = bench.pull(&registry.reference("other").at(digest)).await.unwrap();
    assert_eq!((registry.asked(Route::Blobs), registry.asked(Route::Manifests)), (blobs, 3));
    assert_eq!(by_digest.digests.len(), 2);
    // A digest says nothing of a tag.
    assert_eq!(by_digest.references, [registry.reference("hello:v1")]);
}

#[tokio::test]
async fn a_tag_that_moved_is_pulled_anew() {
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("latest", &packed(&module("old")));
    let old = bench.pull(&registry.reference("hello")).await.unwrap();
    registry.artifact("latest", &packed(&module("new")));
    let new = bench.pull(&registry.reference("hello")).await.unwrap();
    assert_ne!(old.id, new.id);
    assert_eq!(bench.store.find(&registry.reference("hello")).unwrap(), Some(new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pulls_at_once_are_one_download() {
    let (registry, bench) = (Registry::start().await, bench());
    let artifact = packed(&module(&"x".repeat(2_000_000)));
    registry.artifact("v1", &artifact);
    let free = registry.hold_blobs();
    let mut pulls = tokio::task::JoinSet::new();
    for number in 0..100 {
        // Every tenth asks with credentials of its own, and so for itself.
        let credentials =
            (number % 10 == 0).then(|| Credentials::Basic { username: number.to_string(), password: String::new() });
        let (puller, reference) = (bench.puller.clone(), registry.reference("hello:v1"));
        pulls.spawn(async move { puller.pull(&reference, credentials).await.unwrap() });
    }
    crate::bench::until("a blob is asked for", || registry.asked(Route::Blobs) > 0).await;
    free.send(true).unwrap();
    let images = pulls.join_all().await;
    assert_eq!(images.len(), 100);
    assert!(images.iter().all(|image| image.id == images[0].id));
    assert_eq!(registry.asked_for(Digest::of(artifact.layer())), 1);
    assert_eq!(registry.asked_for(Digest::of(artifact.config())), 1);
    assert!(registry.asked(Route::Manifests) <= 11, "{}", registry.asked(Route::Manifests));
}

#[tokio::test]
async fn a_pull_goes_on_when_its_caller_stops_waiting() {
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("v1", &packed(&module("a")));
    let free = registry.hold_blobs();
    let reference = registry.reference("hello:v1");
    let given_up = tokio::time::timeout(Duration::from_millis(1), bench.pull(&reference)).await;
    assert!(given_up.is_err());
    free.send(true).unwrap();
    crate::bench::until("the image is in the store", || bench.store.find(&reference).unwrap().is_some()).await;
}

#[tokio::test]
async fn a_private_image_is_for_those_with_credentials() {
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("v1", &packed(&module("a")));
    registry.require_login(TOKEN);
    let free = registry.hold_blobs();
    let reference = registry.reference("private:v1");
    let (puller, private) = (bench.puller.clone(), reference.clone());
    let owner = tokio::spawn(async move { puller.pull(&private, Some(alice())).await });
    crate::bench::until("the owner's pull is under way", || registry.asked(Route::Blobs) > 0).await;

    let anonymous = bench.pull(&reference).await.unwrap_err();
    assert_eq!(anonymous.kind(), PullErrorKind::Unauthorized);
    assert!(anonymous.message().contains("no credentials were given (see imagePullSecrets)"), "{anonymous}");
    free.send(true).unwrap();
    owner.await.unwrap().unwrap();

    // Nor do credentials of an earlier pull serve a later one.
    let anonymous = bench.pull(&reference).await.unwrap_err();
    assert_eq!(anonymous.kind(), PullErrorKind::Unauthorized);
    let wrong = Credentials::Basic { username: USER.into(), password: "wr0ng".into() };
    let refused = bench.puller.pull(&reference, Some(wrong)).await.unwrap_err();
    assert!(refused.message().contains("the credentials given for it are not accepted"), "{refused}");
    assert!(!format!("{refused:?} {}", refused.message()).contains("wr0ng"));
    let token = Credentials::Bearer(TOKEN.into());
    bench.puller.pull(&reference, Some(token)).await.unwrap();
}

#[tokio::test]
async fn older_wasm_layers_are_taken_and_keep_apart_under_one_configuration() {
    let (registry, bench) = (Registry::start().await, bench());
    let config = registry.blob("application/vnd.wasm.config.v1+json", "{}");
    let mut ids = Vec::new();
    for (tag, media_type) in [
        ("krustlet", "application/vnd.wasm.content.layer.v1+wasm"),
        ("runwasi", "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"),
    ] {
        let layer = registry.blob(media_type, module(tag));
        registry.image(tag, &config, &[layer]);
        let image = bench.pull(&registry.reference(&format!("old:{tag}"))).await.unwrap();
        assert_eq!(wasm(&image).media_type, media_type);
        assert_eq!(std::fs::read(&wasm(&image).path).unwrap(), module(tag));
        ids.push(image.id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn the_configuration_of_a_runwasi_image_says_how_to_run() {
    let (registry, bench) = (Registry::start().await, bench());
    let layer = registry.blob("application/vnd.bytecodealliance.wasm.component.layer.v0+wasm", module("a"));
    let config = json!({"architecture": "wasm", "os": "wasip1", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        "config": {"Entrypoint": ["/app.wasm"], "Cmd": ["serve"], "Env": ["A=1"], "WorkingDir": "/data", "User": "1000"}});
    let config = registry.blob("application/vnd.oci.image.config.v1+json", config.to_string());
    registry.image("v1", &config, &[layer]);
    let image = bench.pull(&registry.reference("app:v1")).await.unwrap();
    assert_eq!(image.id.to_string(), config["digest"].as_str().unwrap());
    assert_eq!((image.config.entrypoint, image.config.cmd), (vec!["/app.wasm".to_owned()], vec!["serve".to_owned()]));
    assert_eq!((image.config.env, image.config.user), (vec!["A=1".to_owned()], Some("1000".to_owned())));
    assert_eq!(image.config.working_dir.as_deref(), Some("/data"));
}

#[tokio::test]
async fn an_index_gives_its_wasm_platform() {
    let (registry, bench) = (Registry::start().await, bench());
    let artifact = packed(&module("a"));
    let manifest = registry.artifact("unused", &artifact);
    let entry = |digest: Digest, os: &str, architecture: &str| {
        json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": artifact.manifest().len(),
            "platform": {"os": os, "architecture": architecture}})
    };
    let index = |entries: &[serde_json::Value]| {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string()
    };
    let mixed = index(&[entry(Digest::of(b""), "linux", "amd64"), entry(manifest, "wasip1", "wasm")]);
    let digest = registry.manifest("mixed", OCI_INDEX, mixed.as_bytes());
    let image = bench.pull(&registry.reference("app:mixed")).await.unwrap();
    assert_eq!(wasm(&image).digest, Digest::of(artifact.layer()));
    // What was asked for is the index, so that is what a later pull by digest asks for too.
    assert_eq!(image.digests, [registry.reference("app").at(digest)]);

    let linux = index(&[entry(manifest, "linux", "amd64"), entry(manifest, "linux", "arm64")]);
    registry.manifest("linux", OCI_INDEX, linux.as_bytes());
    let error = bench.pull(&registry.reference("app:linux")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unsupported);
    let message = error.message();
    assert!(
        message.contains("app:linux: unsupported image: it has no wasm platform, only linux/amd64, linux/arm64;"),
        "{message}"
    );

    let nested = index(&[entry(digest, "wasi", "wasm")]);
    registry.manifest("nested", OCI_INDEX, nested.as_bytes());
    let error = bench.pull(&registry.reference("app:nested")).await.unwrap_err();
    assert!(error.message().contains("an index inside an index"), "{error}");
}

#[tokio::test]
async fn artifacts_of_other_kinds_are_refused_before_their_layers_are_fetched() {
    let (registry, bench) = (Registry::start().await, bench());
    let config = registry.blob("application/vnd.cncf.helm.config.v1+json", "{}");
    let tar = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    registry.image("chart", &config, &[registry.blob(tar, "layer")]);
    let error = bench.pull(&registry.reference("nginx:chart")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unsupported);
    let message = error.message();
    for words in [tar, "is not known", "application/wasm", "wkg oci push", "Linux node"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    registry.manifest(
        "v1",
        "application/vnd.docker.distribution.manifest.v1+json",
        b"{\"schemaVersion\":1,\"fsLayers\":[]}",
    );
    let error = bench.pull(&registry.reference("nginx:v1")).await.unwrap_err();
    assert!(error.message().contains("Docker schema 1"), "{error}");
    assert_eq!(registry.asked(Route::Blobs), 0);
}

#[tokio::test]
async fn a_wasm_layer_that_is_not_wasm_is_refused() {
    let (registry, bench) = (Registry::start().await, bench());
    let config = registry.blob("any/config", "{}");
    registry.image("elf", &config, &[registry.blob("application/wasm", "\x7fELF....")]);
    let error = bench.pull(&registry.reference("a:elf")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unsupported);
    assert!(error.message().contains("does not begin with \\0asm"), "{error}");
    assert_eq!(bench.store.list().unwrap(), []);
}

#[tokio::test]
async fn a_layer_over_the_limit_is_not_fetched() {
    let (registry, bench) = (Registry::start().await, bench());
    let config = registry.blob("any/config", "{}");
    let huge = json!({"mediaType": "application/wasm", "digest": Digest::of(b"huge"), "size": 600 << 20});
    registry.image("huge", &config, &[huge]);
    let error = bench.pull(&registry.reference("a:huge")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::TooLarge);
    assert!(error.message().contains("has 629145600 bytes, over the limit of 536870912"), "{error}");
    assert_eq!(registry.asked(Route::Blobs), 0);
}

#[tokio::test]
async fn a_configured_host_is_spoken_to_in_plain_http() {
    let registry = Registry::start().await;
    registry.artifact("v1", &packed(&module("a")));
    // A name of this host that is not known as loopback by its spelling.
    let port = registry.host().split_once(':').unwrap().1.to_owned();
    let reference = Reference::parse(&format!("localhost.:{port}/test/a:v1"));
    assert!(reference.is_err(), "a trailing dot is no registry host");
    let reference = Reference::parse(&format!("0.0.0.0:{port}/test/a:v1")).unwrap();
    let bench = crate::bench::bench_with(|options| options.plain_http.push("0.0.0.0".into()));
    bench.pull(&reference).await.unwrap();
    let strict = crate::bench::bench();
    let error = strict.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
}

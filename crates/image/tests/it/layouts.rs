//! Pulls from local OCI layout directories, with a registry behind them that must or must not be asked.

use std::fs;

use crate::bench::{bench, bench_with, module, packed, wasm};
use crate::registry::{Registry, Route};
use image::pack::add_to_layout;
use image::{Digest, PullErrorKind, Reference};

#[tokio::test]
async fn a_layout_is_asked_before_the_registry_and_by_the_full_name() {
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("v1", &packed(&module("remote")));
    let reference = registry.reference("app:v1");
    let local = packed(&module("local"));
    add_to_layout(&bench.layout, &reference, &local).unwrap();
    let image = bench.pull(&reference).await.unwrap();
    assert_eq!(fs::read(&wasm(&image).path).unwrap(), module("local"));
    assert_eq!(image.digests, [reference.at(local.digest())]);
    assert_eq!(registry.asked(Route::Manifests), 0);

    // The same tag of another repository is another image.
    let image = bench.pull(&registry.reference("other:v1")).await.unwrap();
    assert_eq!(fs::read(&wasm(&image).path).unwrap(), module("remote"));
}

#[tokio::test]
async fn short_names_find_full_ones() {
    let bench = bench();
    add_to_layout(&bench.layout, &Reference::parse("hello").unwrap(), &packed(&module("a"))).unwrap();
    for name in ["hello", "library/hello:latest", "docker.io/hello"] {
        bench.pull(&Reference::parse(name).unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_digest_finds_its_image_whatever_the_tag() {
    let bench = bench();
    let artifact = packed(&module("a"));
    add_to_layout(&bench.layout, &Reference::parse("hello:v1").unwrap(), &artifact).unwrap();
    let pinned = Reference::parse("hello").unwrap().at(artifact.digest());
    let image = bench.pull(&pinned).await.unwrap();
    assert_eq!((image.references.len(), image.digests), (0, vec![pinned]));
}

#[tokio::test]
async fn a_repacked_image_is_the_one_that_runs() {
    let bench = bench();
    let reference = Reference::parse("hello").unwrap();
    for name in ["first", "second"] {
        add_to_layout(&bench.layout, &reference, &packed(&module(name))).unwrap();
        let image = bench.pull(&reference).await.unwrap();
        assert_eq!(fs::read(&wasm(&image).path).unwrap(), module(name));
    }
}

#[tokio::test]
async fn layouts_are_asked_in_order_and_need_not_exist() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bench = bench_with(|options| {
        options.layouts = vec!["/nonexistent/layout".into(), first.path().into(), second.path().into()];
    });
    let reference = Reference::parse("hello").unwrap();
    add_to_layout(second.path(), &reference, &packed(&module("second"))).unwrap();
    let image = bench.pull(&reference).await.unwrap();
    assert_eq!(fs::read(&wasm(&image).path).unwrap(), module("second"));
    add_to_layout(first.path(), &reference, &packed(&module("first"))).unwrap();
    let image = bench.pull(&reference).await.unwrap();
    assert_eq!(fs::read(&wasm(&image).path).unwrap(), module("first"));
}

#[tokio::test]
async fn tampered_and_missing_blobs_are_refused_and_not_stored() {
    let artifact = packed(&module("a"));
    let reference = Reference::parse("hello").unwrap();
    for (blob, part) in [
        (artifact.manifest(), "the manifest is corrupt"),
        (artifact.config(), "the configuration sha256:"),
        (artifact.layer(), "the layer sha256:"),
    ] {
        let bench = bench();
        add_to_layout(&bench.layout, &reference, &artifact).unwrap();
        let path = bench.layout.join("blobs/sha256").join(Digest::of(blob).hex());
        let mut tampered = blob.to_vec();
        *tampered.last_mut().unwrap() ^= 1;
        for content in [tampered, [blob, b"more"].concat(), blob[1..].to_vec()] {
            fs::write(&path, content).unwrap();
            let error = bench.pull(&reference).await.unwrap_err();
            assert_eq!(error.kind(), PullErrorKind::Corrupt, "{error}");
            assert!(error.message().contains(part), "{part}: {error}");
        }
        fs::remove_file(&path).unwrap();
        let error = bench.pull(&reference).await.unwrap_err();
        assert!(error.message().contains(&path.display().to_string()), "{error}");
        assert_eq!((bench.store.list().unwrap(), bench.unfinished()), (vec![], 0));
    }
}

#[tokio::test]
async fn a_malformed_index_is_named() {
    let bench = bench();
    fs::create_dir_all(&bench.layout).unwrap();
    fs::write(bench.layout.join("index.json"), "{").unwrap();
    let error = bench.pull(&Reference::parse("hello").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Corrupt);
    assert!(error.message().contains("layout/index.json of the image layout is malformed"), "{error}");
}

#[tokio::test]
async fn layouts_of_other_tools_are_read_by_containerds_annotation_too() {
    let bench = bench();
    let artifact = packed(&module("a"));
    add_to_layout(&bench.layout, &Reference::parse("hello").unwrap(), &artifact).unwrap();
    let path = bench.layout.join("index.json");
    let index = fs::read_to_string(&path).unwrap();
    let renamed = index.replace(
        r#""org.opencontainers.image.ref.name":"docker.io/library/hello:latest""#,
        r#""org.opencontainers.image.ref.name":"v2","io.containerd.image.name":"ghcr.io/a/b:v2""#,
    );
    assert_ne!(index, renamed);
    fs::write(&path, renamed).unwrap();
    bench.pull(&Reference::parse("ghcr.io/a/b:v2").unwrap()).await.unwrap();
}

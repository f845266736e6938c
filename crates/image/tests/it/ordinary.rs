//! Ordinary images, Spin applications and tarballs: what is kept of them, once, and what goes when they go.

use std::path::Path;

use crate::bench::{Bench, bench, bench_with, module};
use crate::registry::{OCI_INDEX, OCI_MANIFEST, Registry, Route};
use image::{Content, Digest, Image, PullErrorKind, Reference, Rootfs, StoreError};
use serde_json::{Value, json};
use tar::{Builder, Header};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LOCKED_APP: &str = "application/vnd.fermyon.spin.application.v1+config";

/// A layer's tar stream.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A configuration that runs `/app.wasm`; `extra` tells two apart that have the same layers.
pub(crate) fn config(layers: &[&[u8]], extra: &str) -> String {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    json!({"architecture": "wasm", "os": "wasi", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {"Entrypoint": ["/app.wasm"], "Labels": {"extra": extra}}})
    .to_string()
}

fn rootfs(image: &Image) -> &Rootfs {
    let Content::Rootfs(rootfs) = &image.content else { panic!("{:?}", image.content) };
    rootfs
}

fn read(image: &Image, path: &str) -> Option<String> {
    std::fs::read_to_string(rootfs(image).path().join(path)).ok()
}

/// What is unpacked in the store.
fn unpacked(bench: &Bench) -> usize {
    std::fs::read_dir(bench.store.root().join("rootfs/sha256")).unwrap().count()
}

#[tokio::test]
async fn the_layers_of_an_image_become_its_files() {
    let (registry, bench) = (Registry::start().await, bench());
    let base = tar(&[("app.wasm", &module("app")), ("etc/a", b"a"), ("etc/b", b"b")]);
    let upper = tar(&[("etc/a", b"changed"), ("etc/.wh.b", b"")]);
    let config = registry.blob(DOCKER_CONFIG, config(&[&base, &upper], ""));
    let layers = [
        registry.blob("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip(&base)),
        registry.blob("application/vnd.oci.image.layer.v1.tar+zstd", zstd(&upper)),
    ];
    let manifest = registry.image("inner", &config, &layers);
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": manifest, "size": 1,
        "platform": {"os": "wasi", "architecture": "wasm"}});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).to_string();
    registry.manifest("v1", OCI_INDEX, index.as_bytes());

    let image = bench.pull(&registry.reference("app:v1")).await.unwrap();
    assert_eq!(image.id.to_string(), config["digest"].as_str().unwrap());
    assert_eq!((read(&image, "etc/a").as_deref(), read(&image, "etc/b")), (Some("changed"), None));
    assert_eq!((image.config.os.as_deref(), image.config.entrypoint.len()), (Some("wasi"), 1));
    let program = rootfs(&image).program(&image.config.entrypoint, None, None).unwrap();
    assert_eq!(program.wasm.digest, Digest::of(&module("app")));
    let blobs: u64 = [index.len() as u64, size(&config), size(&layers[0]), size(&layers[1])].iter().sum();
    assert!(image.size_bytes > blobs + rootfs(&image).unpacked_bytes(), "{image:?}");
    assert!(rootfs(&image).unpacked_bytes() > 0);

    let asked = registry.asked(Route::Blobs);
    assert_eq!(bench.pull(&registry.reference("app:v1")).await.unwrap().content, image.content);
    assert_eq!(registry.asked(Route::Blobs), asked);
}

fn size(blob: &Value) -> u64 {
    blob["size"].as_u64().unwrap()
}

#[tokio::test]
async fn images_of_the_same_layers_share_their_files_until_the_last_goes() {
    let (registry, bench) = (Registry::start().await, bench());
    let layer = tar(&[("app.wasm", &module("app"))]);
    let other = tar(&[("app.wasm", &module("other"))]);
    let push = |tag: &str, layer: &[u8]| {
        let config = registry.blob(OCI_CONFIG, config(&[layer], tag));
        registry.image(tag, &config, &[registry.blob("application/vnd.oci.image.layer.v1.tar", layer.to_vec())]);
    };
    push("one", &layer);
    push("two", &layer);
    push("three", &other);
    let mut images = Vec::new();
    for tag in ["one", "two", "three"] {
        images.push(bench.pull(&registry.reference(&format!("app:{tag}"))).await.unwrap());
    }
    assert_eq!(rootfs(&images[0]), rootfs(&images[1]));
    assert_eq!(unpacked(&bench), 2);
    let used = bench.store.usage().unwrap();
    for (image, left) in images.iter().zip([2, 1, 0]) {
        assert!(bench.store.remove(image.id).unwrap());
        assert_eq!(unpacked(&bench), left);
    }
    assert_eq!((bench.blobs(), bench.unfinished()), (0, 0));
    assert!(bench.store.usage().unwrap().bytes + rootfs(&images[0]).unpacked_bytes() < used.bytes);
}

#[tokio::test]
async fn an_image_in_use_is_not_removed_by_any_process() {
    let (registry, bench) = (Registry::start().await, bench());
    let layer = tar(&[("app.wasm", &module("app"))]);
    let config = registry.blob(OCI_CONFIG, config(&[&layer], ""));
    registry.image("v1", &config, &[registry.blob("application/vnd.oci.image.layer.v1.tar", layer)]);
    let image = bench.pull(&registry.reference("app:v1")).await.unwrap();
    // Another handle is as good as another process: the locks are those of open files.
    let other = image::Store::open(bench.store.root()).unwrap();
    let (first, second) = (other.lease(&image).unwrap().unwrap(), bench.store.lease(&image).unwrap().unwrap());
    drop(second);
    assert!(matches!(bench.store.remove(image.id), Err(StoreError::InUse(id)) if id == image.id));
    assert_eq!(bench.store.list().unwrap(), std::slice::from_ref(&image));
    let clone = first.clone();
    drop(first);
    assert!(matches!(other.remove(image.id), Err(StoreError::InUse(_))));
    drop(clone);
    assert!(other.remove(image.id).unwrap());
    assert!(bench.store.lease(&image).unwrap().is_none());
    assert_eq!(std::fs::read_dir(bench.store.root().join("uses")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pulls_of_an_image_unpack_it_once() {
    let (registry, bench) = (Registry::start().await, bench());
    let layer = tar(&[("app.wasm", &module("app")), ("data", &vec![7; 2_000_000])]);
    for tag in 0..10 {
        let config = registry.blob(OCI_CONFIG, config(&[&layer], &tag.to_string()));
        let layer = registry.blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&layer));
        registry.image(&format!("v{tag}"), &config, &[layer]);
    }
    let mut pulls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (puller, reference) = (bench.puller.clone(), registry.reference(&format!("app:v{}", number % 10)));
        pulls.spawn(async move { puller.pull(&reference, None).await.unwrap() });
    }
    let images = pulls.join_all().await;
    assert!(images.iter().all(|image| rootfs(image) == rootfs(&images[0])));
    assert_eq!((unpacked(&bench), bench.unfinished()), (1, 0));
    assert_eq!(registry.asked_for(Digest::of(&gzip(&layer))), 1);
}

#[tokio::test]
async fn an_image_that_unfolds_too_far_or_wrongly_leaves_nothing() {
    let registry = Registry::start().await;
    let bench = bench_with(|options| options.limits.unpacked_bytes_max = 100_000);
    let push = |tag: &str, layer: &[u8], config: String| {
        let config = registry.blob(OCI_CONFIG, config);
        let layer = registry.blob("application/vnd.oci.image.layer.v1.tar+gzip", layer.to_vec());
        registry.image(tag, &config, &[layer]);
    };
    let bomb = tar(&[("zeros", &vec![0; 10_000_000])]);
    let small = tar(&[("a", b"a")]);
    push("bomb", &gzip(&bomb), config(&[&bomb], ""));
    push("lie", &gzip(&small), config(&[&bomb], ""));
    push("count", &gzip(&small), config(&[&small, &small], ""));
    push("up", &gzip(&evil()), config(&[&evil()], ""));
    for (tag, kind, words) in [
        ("bomb", PullErrorKind::TooLarge, "its layers unfold to more than 100000 bytes"),
        ("lie", PullErrorKind::Corrupt, "its content has the digest"),
        ("count", PullErrorKind::Corrupt, "not the digests of the image's 1 layers"),
        ("up", PullErrorKind::Corrupt, "leads out of the image by \"..\""),
    ] {
        let error = bench.pull(&registry.reference(&format!("app:{tag}"))).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains(words), "{}", error.message());
        assert_eq!((bench.store.list().unwrap(), unpacked(&bench), bench.unfinished()), (vec![], 0, 0));
    }
}

/// An archive with a path that goes up, which tools do not write.
fn evil() -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.as_gnu_mut().unwrap().name[..10].copy_from_slice(b"../../evil");
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, &b"x"[..]).unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn a_spin_application_is_kept_with_all_its_layers() {
    let (registry, bench) = (Registry::start().await, bench());
    let locked = r#"{"spin_lock_version":1,"metadata":{"name":"shop"},"components":[]}"#;
    let layers = [
        registry.blob("application/vnd.wasm.content.layer.v1+wasm", module("component")),
        registry.blob("application/vnd.wasm.content.layer.v1+data", "body"),
        registry.blob(LOCKED_APP, locked),
    ];
    registry.image("v1", &registry.blob(OCI_CONFIG, r#"{"architecture":"wasm","os":"Wasip1"}"#), &layers);
    let old = registry.blob(LOCKED_APP, r#"{"spin_lock_version":0,"metadata":{"name":"old"}}"#);
    registry.image("old", &old, &layers[..1]);
    for (tag, name, count) in [("v1", "shop", 2), ("old", "old", 1)] {
        let image = bench.pull(&registry.reference(&format!("app:{tag}"))).await.unwrap();
        let Content::Spin(spin) = &image.content else { panic!("{image:?}") };
        assert_eq!((spin.name.as_str(), spin.layers.len()), (name, count));
        for blob in spin.layers.iter().chain([&spin.locked_app]) {
            assert_eq!(Digest::of(&std::fs::read(&blob.path).unwrap()), blob.digest);
        }
    }
    registry.image("bad", &registry.blob(OCI_CONFIG, "{}"), &[registry.blob(LOCKED_APP, "{}")]);
    let error = bench.pull(&registry.reference("app:bad")).await.unwrap_err();
    assert!(error.message().contains("no locked Spin application"), "{}", error.message());
}

/// Packs a directory's files, as `tar` would.
fn archive_of(directory: &Path, to: &Path) {
    let mut builder = Builder::new(std::fs::File::create(to).unwrap());
    builder.append_dir_all(".", directory).unwrap();
    builder.finish().unwrap();
}

#[tokio::test]
async fn tarballs_of_layouts_and_of_docker_are_sources() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let reference = Reference::parse("example.org/hello:v1").unwrap();
    let artifact = crate::bench::packed(&module("a"));
    image::pack::add_to_layout(&layout, &reference, &artifact).unwrap();
    let oci = directory.path().join("oci.tar");
    archive_of(&layout, &oci);

    let layer = tar(&[("app.wasm", &module("saved"))]);
    let config = config(&[&layer, &layer], "");
    let saved = directory.path().join("saved");
    std::fs::create_dir_all(saved.join("first")).unwrap();
    std::fs::create_dir_all(saved.join("second")).unwrap();
    std::fs::write(saved.join("first/layer.tar"), &layer).unwrap();
    std::os::unix::fs::symlink("../first/layer.tar", saved.join("second/layer.tar")).unwrap();
    std::fs::write(saved.join("config.json"), &config).unwrap();
    let listed = json!([{"Config": "config.json", "RepoTags": ["example.org/saved:v1"],
        "Layers": ["first/layer.tar", "second/layer.tar"]}]);
    std::fs::write(saved.join("manifest.json"), listed.to_string()).unwrap();
    let docker = directory.path().join("docker.tar");
    let mut builder = Builder::new(std::fs::File::create(&docker).unwrap());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &saved).unwrap();
    builder.finish().unwrap();

    let bench = bench_with(|options| options.layouts = vec![oci, docker.clone()]);
    let image = bench.pull(&reference).await.unwrap();
    assert_eq!(image.content.wasm().unwrap().digest, Digest::of(&module("a")));
    let image = bench.pull(&Reference::parse("example.org/saved:v1").unwrap()).await.unwrap();
    assert_eq!(image.id.to_string(), Digest::of(config.as_bytes()).to_string());
    assert_eq!(std::fs::read(rootfs(&image).path().join("app.wasm")).unwrap(), module("saved"));

    let broken = bench_with(|options| options.layouts = vec![docker.clone()]);
    std::fs::write(&docker, [0x1f, 0x8b, 8, 0].repeat(200)).unwrap();
    let error = broken.pull(&Reference::parse("example.org/saved:v1").unwrap()).await.unwrap_err();
    assert!(error.message().contains("docker.tar of the image layout"), "{}", error.message());
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    /// JSON that looks like what is expected, to get past the first checks.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            Just(json!("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")),
            prop_oneof![Just(OCI_CONFIG), Just(OCI_MANIFEST), Just("application/wasm"), Just(LOCKED_APP)]
                .prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("schemaVersion"),
            Just("config"),
            Just("layers"),
            Just("manifests"),
            Just("digest"),
            Just("size"),
            Just("mediaType"),
            Just("rootfs"),
            Just("diff_ids"),
            Just("platform"),
            Just("architecture"),
        ];
        leaf.prop_recursive(4, 64, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn manifests_configurations_and_layers_never_panic(
            manifest in prop_oneof![document().prop_map(|it| it.to_string().into_bytes()), any::<Vec<u8>>()],
            config in prop_oneof![document().prop_map(|it| it.to_string().into_bytes()), any::<Vec<u8>>()],
            layer in any::<Vec<u8>>(),
            kind in 0..4_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (first, second): (Result<Image, _>, Result<Image, _>) = runtime.block_on(async {
                let bench = bench();
                let reference = Reference::parse("example.org/a:v1").unwrap();
                let entries = |document: &[u8]| json!({"manifests": [{"mediaType": OCI_MANIFEST,
                    "digest": Digest::of(document), "size": document.len(),
                    "annotations": {"org.opencontainers.image.ref.name": "example.org/a:v1"}}]}).to_string();
                let blobs = bench.layout.join("blobs/sha256");
                std::fs::create_dir_all(&blobs).unwrap();
                let put = |content: &[u8]| {
                    std::fs::write(blobs.join(Digest::of(content).hex()), content).unwrap();
                };
                put(&manifest);
                std::fs::write(bench.layout.join("index.json"), entries(&manifest)).unwrap();
                let first = bench.pull(&reference).await;
                // A good manifest around arbitrary content.
                let layer_type = ["application/wasm", LOCKED_APP, "application/vnd.oci.image.layer.v1.tar", "x"][kind];
                let blob = |media_type: &str, content: &[u8]| {
                    put(content);
                    json!({"mediaType": media_type, "digest": Digest::of(content), "size": content.len()})
                };
                let good = json!({"schemaVersion": 2, "config": blob(OCI_CONFIG, &config),
                    "layers": [blob(layer_type, &layer)]}).to_string();
                put(good.as_bytes());
                std::fs::write(bench.layout.join("index.json"), entries(good.as_bytes())).unwrap();
                (first, bench.pull(&reference).await)
            });
            let panicked = |result: &Result<Image, image::PullError>| {
                matches!(result, Err(image::PullError::Aborted { .. }))
            };
            prop_assert!(!panicked(&first) && !panicked(&second), "{first:?} {second:?}");
        }
    }
}

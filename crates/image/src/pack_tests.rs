//! What an artifact says, and what a layout holds after one, two and many of them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::durable;
use crate::manifest::REF_NAME;

fn module() -> Vec<u8> {
    wat::parse_str(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (func (export "_start")))"#,
    )
    .unwrap()
}

fn component() -> Vec<u8> {
    wat::parse_str(
        r#"(component
            (import "wasi:cli/environment@0.2.6" (instance))
            (import "wasi:clocks/monotonic-clock@0.2.6" (instance))
            (component (import "inner" (func)) (export "inner-too" (func 0)))
            (core module (import "core" "f" (func)) (func (export "g")))
            (instance $run)
            (export "wasi:cli/run@0.2.6" (instance $run)))"#,
    )
    .unwrap()
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

fn index_of(layout: &Path) -> Value {
    parsed(&fs::read(layout.join("index.json")).unwrap())
}

#[test]
fn a_module_becomes_a_wasip1_artifact_without_a_component() {
    let wasm = module();
    let artifact = artifact(&wasm).unwrap();
    assert_eq!(
        parsed(artifact.config()),
        json!({"created": CREATED, "architecture": "wasm", "os": "wasip1", "layerDigests": [Digest::of(&wasm)]})
    );
    let manifest = parsed(artifact.manifest());
    assert_eq!(manifest["mediaType"], OCI_MANIFEST);
    assert_eq!(manifest["config"]["mediaType"], WASM_CONFIG);
    assert_eq!(manifest["layers"], json!([{"mediaType": WASM_LAYER, "digest": Digest::of(&wasm), "size": wasm.len()}]));
}

#[test]
fn a_component_states_its_outermost_world_only() {
    let config = parsed(artifact(&component()).unwrap().config());
    assert_eq!(config["os"], "wasip2");
    assert_eq!(
        config["component"],
        json!({
            "exports": ["wasi:cli/run@0.2.6"],
            "imports": ["wasi:cli/environment@0.2.6", "wasi:clocks/monotonic-clock@0.2.6"],
            "target": "wasi:cli/command@0.2.6",
        })
    );
}

#[test]
fn equal_binaries_have_equal_digests_and_others_are_refused() {
    assert_eq!(artifact(&module()).unwrap(), artifact(&module()).unwrap());
    assert_ne!(artifact(&module()).unwrap().digest(), artifact(&component()).unwrap().digest());
    let whole = component();
    for bad in [&b""[..], b"\x7fELF....", b"(module)", &whole[..whole.len() - 3]] {
        assert!(matches!(artifact(bad), Err(PackError::Wasm(_))));
    }
}

#[test]
fn a_layout_holds_the_blobs_by_digest_and_the_entry_by_full_name() {
    let layout = tempfile::tempdir().unwrap();
    let artifact = artifact(&module()).unwrap();
    let reference = Reference::parse("hello:v1").unwrap();
    let digest = add_to_layout(layout.path(), &reference, &artifact).unwrap();
    assert_eq!(digest, artifact.digest());
    for content in [artifact.layer(), artifact.config(), artifact.manifest()] {
        assert_eq!(fs::read(layout.path().join("blobs/sha256").join(Digest::of(content).hex())).unwrap(), content);
    }
    assert_eq!(parsed(&fs::read(layout.path().join("oci-layout")).unwrap()), json!({"imageLayoutVersion": "1.0.0"}));
    let index = index_of(layout.path());
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(
        index["manifests"],
        json!([{
            "mediaType": OCI_MANIFEST, "digest": digest, "size": artifact.manifest().len(),
            "annotations": {REF_NAME: "docker.io/library/hello:v1"},
        }])
    );
    let unfinished = walk(layout.path()).into_iter().filter(|name| name.contains(durable::UNFINISHED)).count();
    assert_eq!(unfinished, 0);
}

fn walk(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.display().to_string());
        if path.is_dir() {
            names.extend(walk(&path));
        }
    }
    names
}

#[test]
fn the_same_reference_is_replaced_and_other_entries_are_kept_as_they_are() {
    let layout = tempfile::tempdir().unwrap();
    let foreign = json!({"mediaType": "x/y", "digest": Digest::of(b"x"), "size": 1, "artifactType": "of/another",
        "annotations": {REF_NAME: "latest"}});
    fs::write(
        layout.path().join("index.json"),
        json!({"schemaVersion": 2, "manifests": [foreign], "annotations": {"kept": "yes"}}).to_string(),
    )
    .unwrap();
    let reference = Reference::parse("hello").unwrap();
    add_to_layout(layout.path(), &reference, &artifact(&module()).unwrap()).unwrap();
    let digest = add_to_layout(layout.path(), &reference, &artifact(&component()).unwrap()).unwrap();
    let index = index_of(layout.path());
    assert_eq!(index["annotations"]["kept"], "yes");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(index["manifests"][0], foreign);
    assert_eq!(index["manifests"][1]["digest"], json!(digest));
}

#[test]
fn the_same_artifact_again_touches_nothing() {
    let layout = tempfile::tempdir().unwrap();
    let reference = Reference::parse("hello").unwrap();
    let artifact = artifact(&module()).unwrap();
    let times = || -> Vec<_> {
        let mut names = walk(layout.path());
        names.sort();
        names.into_iter().map(|name| (fs::metadata(&name).unwrap().modified().unwrap(), name)).collect()
    };
    add_to_layout(layout.path(), &reference, &artifact).unwrap();
    let before = times();
    add_to_layout(layout.path(), &reference, &artifact).unwrap();
    assert_eq!(times(), before);
}

#[test]
fn concurrent_writers_lose_no_entry() {
    let layout = tempfile::tempdir().unwrap();
    let artifact = artifact(&module()).unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (layout, artifact) = (layout.path(), &artifact);
            scope.spawn(move || {
                let reference = Reference::parse(&format!("hello:{number}")).unwrap();
                add_to_layout(layout, &reference, artifact).unwrap();
            });
        }
    });
    assert_eq!(index_of(layout.path())["manifests"].as_array().unwrap().len(), 8);
}

#[test]
fn a_pinned_reference_takes_only_its_own_artifact() {
    let layout = tempfile::tempdir().unwrap();
    let artifact = artifact(&module()).unwrap();
    let reference = Reference::parse("hello").unwrap();
    add_to_layout(layout.path(), &reference.at(artifact.digest()), &artifact).unwrap();
    let other = add_to_layout(layout.path(), &reference.at(Digest::of(b"")), &artifact);
    assert!(matches!(other, Err(PackError::OtherDigest { .. })));
}

#[test]
fn a_damaged_index_is_named_and_left_alone() {
    let layout = tempfile::tempdir().unwrap();
    let path = layout.path().join("index.json");
    fs::write(&path, "{").unwrap();
    let error = add_to_layout(layout.path(), &Reference::parse("a").unwrap(), &artifact(&module()).unwrap());
    assert!(error.unwrap_err().to_string().contains("index.json"));
    assert_eq!(fs::read(&path).unwrap(), b"{");
}

#[test]
fn annotations_say_what_the_binary_says_under_the_keys_others_know() {
    let wasm =
        wat::parse_str(r#"(component (@custom "description" "says hello") (@custom "homepage" "https://a.example"))"#);
    let wasm = wasm.unwrap();
    let annotations = Annotations::of(&inspect::inspect(&wasm).unwrap(), "hello.wasm");
    let manifest = parsed(annotated_artifact(&wasm, &annotations).unwrap().manifest());
    assert_eq!(
        manifest["annotations"],
        json!({"org.opencontainers.image.description": "says hello", "org.opencontainers.image.url": "https://a.example"})
    );
    assert_eq!(manifest["layers"][0]["annotations"], json!({TITLE: "hello.wasm"}));
    assert_eq!(parsed(artifact(&wasm).unwrap().manifest()).get("annotations"), None);
}

#[test]
fn an_archive_is_a_layout_and_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let (file, artifact) = (directory.path().join("hello.tar"), artifact(&module()).unwrap());
    let reference = Reference::parse("hello:v1").unwrap();
    let digest = write_archive(&file, &reference, &artifact).unwrap();
    assert_eq!(digest, artifact.digest());
    let once = fs::read(&file).unwrap();
    write_archive(&file, &reference, &artifact).unwrap();
    assert_eq!(fs::read(&file).unwrap(), once);

    let unpacked = directory.path().join("unpacked");
    tar::Archive::new(once.as_slice()).unpack(&unpacked).unwrap();
    assert_eq!(index_of(&unpacked)["manifests"][0]["annotations"][REF_NAME], "docker.io/library/hello:v1");
    for content in [artifact.layer(), artifact.config(), artifact.manifest()] {
        assert_eq!(fs::read(unpacked.join("blobs/sha256").join(Digest::of(content).hex())).unwrap(), content);
    }
    let other = write_archive(&file, &reference.at(Digest::of(b"")), &artifact);
    assert!(matches!(other, Err(PackError::OtherDigest { .. })));
}

//! The compile cache: once per digest, kept between runs, and nothing run that we did not write.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use testbed::guests::wat;
use wasm::code::{CodeError, Kind, Unfit};
use wasm::engine::{EngineOptions, Engines};

use crate::node::{ENGINES, compile, compiler, digest, file};

fn engines(dir: &Path) -> Arc<Engines> {
    let mut options = EngineOptions::new(dir, compiler());
    options.http_instances = 2;
    options.worker_threads = Some(1);
    Engines::new(options).unwrap()
}

/// The compiled files in a cache.
fn compiled(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm")).collect()
}

#[tokio::test]
async fn a_hundred_callers_compile_once() {
    let cache = tempfile::tempdir().unwrap();
    let engines = engines(cache.path());
    let wasm = wat::sleeps();
    let (_dir, path) = file(&wasm);
    let digest = digest(&wasm);
    let all = futures::future::join_all((0..100).map(|_| engines.code(&path, &digest))).await;
    let first = all[0].as_ref().unwrap();
    assert!(all.iter().all(|code| Arc::ptr_eq(code.as_ref().unwrap(), first)));
    assert_eq!(engines.compilations(), 1);
    assert_eq!(compiled(cache.path()).len(), 1);
}

#[tokio::test]
async fn the_next_run_finds_it_and_needs_the_wasm_no_more() {
    let cache = tempfile::tempdir().unwrap();
    let guests = [
        (wat::sleeps(), Kind::CommandP1),
        (wat::component_of(&wat::sleeps()), Kind::CommandP2),
        (wat::http_traps(), Kind::HttpP2),
    ];
    for (wasm, kind) in &guests {
        let (_dir, path) = file(wasm);
        assert_eq!(engines(cache.path()).code(&path, &digest(wasm)).await.unwrap().kind(), *kind);
    }
    let next = engines(cache.path());
    for (wasm, kind) in &guests {
        let code = next.code(Path::new("/nowhere"), &digest(wasm)).await.unwrap();
        assert_eq!((code.kind(), code.digest()), (*kind, digest(wasm).as_str()));
    }
    assert_eq!(next.compilations(), 0);
}

#[tokio::test]
async fn a_tampered_file_is_refused_and_compiled_again() {
    let cache = tempfile::tempdir().unwrap();
    let wasm = wat::prints_and_exits("cached\n", 0);
    let (_dir, path) = file(&wasm);
    engines(cache.path()).code(&path, &digest(&wasm)).await.unwrap();
    let [kept] = compiled(cache.path()).try_into().unwrap();
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&kept).unwrap();
    fs::write(&kept, &bytes).unwrap();

    let next = engines(cache.path());
    assert!(matches!(next.code(Path::new("/nowhere"), &digest(&wasm)).await, Err(CodeError::Read { .. })));
    next.code(&path, &digest(&wasm)).await.unwrap();
    assert_eq!(next.compilations(), 1);
    assert_ne!(fs::read(&kept).unwrap(), bytes);
}

#[tokio::test]
async fn code_of_another_node_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wasm = wat::sleeps();
    let (_dir, path) = file(&wasm);
    engines(theirs.path()).code(&path, &digest(&wasm)).await.unwrap();
    let engines = engines(ours.path());
    for file in fs::read_dir(theirs.path()).unwrap().map(|entry| entry.unwrap()) {
        if file.file_name() != "key" {
            fs::copy(file.path(), ours.path().join(file.file_name())).unwrap();
        }
    }
    engines.code(&path, &digest(&wasm)).await.unwrap();
    assert_eq!(engines.compilations(), 1);
}

#[tokio::test]
async fn files_that_cannot_run_are_refused_with_the_reason() {
    assert!(matches!(compile(b"#!/bin/sh\n").await, Err(CodeError::Unfit(Unfit::NotWasm))));
    assert!(matches!(compile(&wat::truncated()).await, Err(CodeError::Unfit(Unfit::Malformed { .. }))));
    let invalid = ::wat::parse_str(r#"(module (func (export "_start") i32.add drop))"#).unwrap();
    assert!(matches!(compile(&invalid).await, Err(CodeError::Unfit(Unfit::Invalid { .. }))));

    let wasm = wat::sleeps();
    let (_dir, path) = file(&wasm);
    let other = digest(b"something else");
    assert!(matches!(ENGINES.code(&path, &other).await, Err(CodeError::DigestMismatch { .. })));
    for no_digest in ["", "sha256:", "sha256:../../etc/passwd", "sha512:00"] {
        assert!(matches!(ENGINES.code(&path, no_digest).await, Err(CodeError::Digest { .. })), "{no_digest}");
    }

    // Sparse: it takes no room on the disk.
    fs::File::create(&path).unwrap().set_len((512 << 20) + 1).unwrap();
    assert!(matches!(ENGINES.code(&path, &other).await, Err(CodeError::Unfit(Unfit::TooLarge { .. }))));
    assert!(matches!(ENGINES.code(Path::new("/nowhere"), &other).await, Err(CodeError::Read { .. })));
}

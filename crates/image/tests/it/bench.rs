//! A store and a puller of a test's own, with limits that let a test of failures end soon, and small wasm binaries.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use image::pack::{self, Artifact};
use image::{Image, Limits, PullError, Puller, PullerOptions, Reference, Store, Wasm};

pub(crate) struct Bench {
    pub(crate) puller: Puller,
    pub(crate) store: Store,
    pub(crate) layout: PathBuf,
    _directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn pull(&self, reference: &Reference) -> Result<Image, PullError> {
        self.puller.pull(reference, None).await
    }

    /// Blobs that have a name in the store.
    pub(crate) fn blobs(&self) -> usize {
        std::fs::read_dir(self.store.root().join("blobs/sha256")).unwrap().count()
    }

    /// Blobs on their way in.
    pub(crate) fn unfinished(&self) -> usize {
        std::fs::read_dir(self.store.root().join("ingest")).unwrap().count()
    }
}

pub(crate) fn bench() -> Bench {
    bench_with(|_| ())
}

pub(crate) fn bench_with(change: impl FnOnce(&mut PullerOptions)) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let layout = directory.path().join("layout");
    let mut options = PullerOptions::new(store.clone());
    options.layouts.push(layout.clone());
    options.limits = Limits {
        stall_timeout: Duration::from_millis(500),
        manifest_timeout: Duration::from_secs(5),
        layer_timeout: Duration::from_secs(10),
        pause: Duration::from_millis(1),
        ..Limits::default()
    };
    change(&mut options);
    Bench { puller: Puller::new(options), store, layout, _directory: directory }
}

/// The binary of an image that is one.
pub(crate) fn wasm(image: &Image) -> &Wasm {
    image.content.wasm().unwrap_or_else(|| panic!("{:?}", image.content))
}

/// A core module that differs by its name.
pub(crate) fn module(name: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(module (memory 100) (data (i32.const 0) "{name}"))"#)).unwrap()
}

pub(crate) fn component() -> Vec<u8> {
    wat::parse_str(r#"(component (import "wasi:cli/environment@0.2.6" (instance)))"#).unwrap()
}

pub(crate) fn packed(wasm: &[u8]) -> Artifact {
    pack::artifact(wasm).unwrap()
}

/// Waits for a condition, and fails with its name when it does not come.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

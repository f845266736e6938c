//! Guests as the tests name them: images in an OCI layout, and files.
//!
//! Goes out: a layout of the guests that need no compiler, in milliseconds; one with the examples and the guests written
//! in Rust, built once per process. Never here: a registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use testbed::guests;
use tokio::sync::OnceCell;

pub(crate) use testbed::guests::wat;

/// A layout with the guests that need no compiler. Cargo keeps this directory for us and removes it with its own.
pub(crate) async fn without_compiler() -> Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        let layout = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("oci");
        let out = layout.clone();
        tokio::task::spawn_blocking(move || guests::build_wat(&out)).await.context("packing guests")??;
        Ok::<_, anyhow::Error>(layout)
    };
    BUILT.get_or_try_init(build).await.cloned()
}

/// A layout with all guests, the examples among them.
pub(crate) async fn all() -> Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        let layout = guests::layout();
        let out = layout.clone();
        tokio::task::spawn_blocking(move || guests::build_all(&out)).await.context("building guests")??;
        Ok::<_, anyhow::Error>(layout)
    };
    BUILT.get_or_try_init(build).await.cloned()
}

/// The digest of the image that a layout has under this reference.
pub(crate) fn digest_of(layout: &Path, reference: &str) -> Result<String> {
    let path = layout.join("index.json");
    let index = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let index: Value = serde_json::from_slice(&index).with_context(|| format!("reading {}", path.display()))?;
    let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == reference;
    let entry = index["manifests"].as_array().into_iter().flatten().find(named);
    let digest = entry.and_then(|entry| entry["digest"].as_str());
    digest.map(str::to_owned).with_context(|| format!("{} has no {reference}", path.display()))
}

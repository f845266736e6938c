//! What stands in the manifest of an image that is in the store.
//!
//! Comes in: a store and one of its images. Goes out: its manifest's layers and annotations. Never here: a registry.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::digest::Digest;
use crate::manifest::{Document, Manifest};
use crate::pull::wasm_platform;
use crate::reference::Reference;
use crate::store::{Image, Store};

/// A manifest, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The manifest's digest; with an index, not the one it was pulled by.
    pub manifest: Digest,
    /// The media type of the configuration.
    pub config_media_type: String,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Bytes, as they were transferred.
    pub size_bytes: u64,
    /// Its annotations, its file's name (`org.opencontainers.image.title`) among them.
    pub annotations: BTreeMap<String, String>,
}

impl Description {
    pub(crate) fn of(digest: Digest, manifest: Manifest) -> Self {
        let layers = manifest.layers.into_iter().map(|layer| Layer {
            media_type: layer.media_type,
            digest: layer.digest,
            size_bytes: layer.size,
            annotations: layer.annotations.unwrap_or_default(),
        });
        Self {
            manifest: digest,
            config_media_type: manifest.config.media_type,
            layers: layers.collect(),
            annotations: manifest.annotations.unwrap_or_default(),
        }
    }
}

/// Reads the manifest of an image; `None` when it is not in the store any more.
#[must_use]
pub fn describe(store: &Store, image: &Image) -> Option<Description> {
    let of_index = |target| manifest_of(store, target);
    let (digest, manifest) = image.digests.iter().filter_map(Reference::digest).find_map(of_index)?;
    Some(Description::of(digest, *manifest))
}

/// The manifest that a manifest or index of the store leads to, with its digest.
pub(crate) fn manifest_of(store: &Store, target: Digest) -> Option<(Digest, Box<Manifest>)> {
    let read = |digest: &Digest| Document::parse(&fs::read(store.blob_path(digest)).ok()?).ok();
    match read(&target)? {
        Document::Manifest(manifest) => Some((target, manifest)),
        Document::Index(index) => {
            let digest = wasm_platform(&index).ok()?.digest;
            match read(&digest)? {
                Document::Manifest(manifest) => Some((digest, manifest)),
                Document::Index(_) => None,
            }
        }
    }
}

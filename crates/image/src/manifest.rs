//! The JSON of OCI and Docker images, as far as it is read or written here: descriptors, manifests, indexes, layouts.
//!
//! Only shapes and media types; what is accepted as a wasm image is decided in `select`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Configuration of an ordinary image, in OCI's and in Docker's words.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A layer of files of an ordinary image; `+gzip` and `+zstd` may follow.
pub(crate) const OCI_TAR_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Configuration of a CNCF wasm artifact.
pub(crate) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The layer of a CNCF wasm artifact.
pub(crate) const WASM_LAYER: &str = "application/wasm";

/// A locked Spin application: which components, triggers and files it has.
pub(crate) const LOCKED_APP: &str = "application/vnd.fermyon.spin.application.v1+config";

/// The annotation of an index entry that holds its name.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same, from containerd, where `REF_NAME` holds a bare tag.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A blob by media type, digest and size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    /// What an entry of an index is, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
}

impl Descriptor {
    pub(crate) fn of(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
            annotations: None,
            platform: None,
            artifact_type: None,
        }
    }
}

/// What an entry of an index is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// One image: a configuration and layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// Manifests by platform, or the contents of a layout.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// What the bytes behind a reference turn out to be.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Manifest(Box<Manifest>),
    Index(Index),
}

/// Why bytes are neither a manifest nor an index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("it is a Docker schema 1 manifest, a format registries gave up in 2017")]
    Schema1,
    #[error("it is neither an image manifest nor an image index")]
    Neither,
    #[error("it is malformed ({0})")]
    Json(#[from] serde_json::Error),
}

impl Document {
    /// Reads a manifest or an index by its content: what has layers is the one, what has manifests is the other.
    ///
    /// A document with both is refused, as two readers could take it for two different images.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, DocumentError> {
        let value: serde_json::Value = serde_json::from_slice(content)?;
        if value["schemaVersion"] == 1 {
            return Err(DocumentError::Schema1);
        }
        match (value.get("layers").is_some(), value.get("manifests").is_some()) {
            (true, false) => Ok(Self::Manifest(serde_json::from_value(value)?)),
            (false, true) => Ok(Self::Index(serde_json::from_value(value)?)),
            _ => Err(DocumentError::Neither),
        }
    }
}

//! What is to be published comes in, a CNCF wasm OCI artifact or an ordinary OCI image goes out, and from there into an
//! OCI image layout.
//!
//! Equal input gives equal bytes and so equal digests: nothing of the time or the machine goes into an artifact. A
//! binary is read for its imports and exports only; it is not validated, that is the engine's part.

mod layout;
mod rootfs;
mod tarball;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;

pub use self::layout::{add_to_layout, write_archive};
pub use self::rootfs::{Entry, Files, FilesError, Rootfs, image};
use crate::digest::Digest;
use crate::inspect::{self, Format, InspectError, Inspection};
use crate::manifest::{Descriptor, Manifest, OCI_MANIFEST, WASM_CONFIG, WASM_LAYER};
use crate::reference::Reference;
use crate::registry::{Push, PushBlob, PushContent};

/// The creation time of every artifact: with a real one, packing twice would give two digests.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The annotation of a layer that holds its file name, by which `oras pull` and others name the file.
const TITLE: &str = "org.opencontainers.image.title";

/// Why a binary could not be packed, or an artifact not be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The bytes are not a wasm module or component.
    #[error(transparent)]
    Wasm(#[from] InspectError),
    /// The configuration or the manifest did not serialise.
    #[error("cannot write the artifact's JSON")]
    Json(#[source] serde_json::Error),
    /// An image's entrypoint is not one of its files.
    #[error("the entrypoint {0:?} is not a file of the image; its first word is the path of the .wasm file there")]
    Entrypoint(String),
    /// The layer of files could not be made.
    #[error("cannot pack the files")]
    Files(#[source] io::Error),
    /// The reference is pinned to another digest than the artifact has.
    #[error("{reference} does not name the artifact {digest}")]
    OtherDigest {
        /// The reference given.
        reference: Reference,
        /// The artifact's digest.
        digest: Digest,
    },
    /// A file or directory of the layout.
    #[error("cannot {step} {}", path.display())]
    Layout {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The layout's `index.json` is not an image index.
    #[error("{} is not an OCI image index", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Where it breaks off.
        source: serde_json::Error,
    },
}

/// An artifact in memory: a manifest, a configuration and one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Artifact {
    /// The manifest's digest, by which registries know the artifact.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The manifest's JSON (`application/vnd.oci.image.manifest.v1+json`).
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The configuration's JSON.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The only layer: the wasm binary itself, or the archive of an image's files.
    #[must_use]
    pub fn layer(&self) -> &[u8] {
        &self.layer
    }

    /// Bytes of all three.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        (self.manifest.len() + self.config.len() + self.layer.len()) as u64
    }
}

impl From<&Artifact> for Push {
    fn from(artifact: &Artifact) -> Self {
        let blob = |content: &[u8]| PushBlob {
            digest: Digest::of(content),
            size_bytes: content.len() as u64,
            content: PushContent::Bytes(Bytes::copy_from_slice(content)),
        };
        Self {
            blobs: [&artifact.layer, &artifact.config].map(|content| blob(content)).to_vec(),
            manifest: Bytes::copy_from_slice(&artifact.manifest),
            media_type: OCI_MANIFEST.to_owned(),
        }
    }
}

/// What stands in a manifest for people and for other tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The file name of the layer (`org.opencontainers.image.title`).
    pub title: Option<String>,
    /// Of the manifest, by their full keys.
    pub manifest: BTreeMap<String, String>,
}

impl Annotations {
    /// What the binary's custom sections say (`description`, `version`, `licenses` and such), under the keys that other
    /// tools look for, and the file's name.
    #[must_use]
    pub fn of(inspection: &Inspection, title: &str) -> Self {
        let key = |(name, text): (&String, &String)| {
            // OCI's words for the same.
            let name = if name == "homepage" { "url" } else { name };
            (format!("org.opencontainers.image.{name}"), text.clone())
        };
        Self { title: Some(title.to_owned()), manifest: inspection.about.iter().map(key).collect() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: Vec<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<Component>,
}

/// The world of a component: the names it imports and exports, in the binary's order.
#[derive(Serialize, Default)]
struct Component {
    exports: Vec<String>,
    imports: Vec<String>,
    target: Option<String>,
}

/// Packs a core module (os `wasip1`) or a component (os `wasip2`) as an artifact that says nothing for people.
///
/// # Errors
/// [`PackError::Wasm`] when the bytes are not a wasm binary.
pub fn artifact(wasm: &[u8]) -> Result<Artifact, PackError> {
    annotated_artifact(wasm, &Annotations::default())
}

/// The same, with annotations.
///
/// # Errors
/// [`PackError::Wasm`] when the bytes are not a wasm binary.
pub fn annotated_artifact(wasm: &[u8], annotations: &Annotations) -> Result<Artifact, PackError> {
    let Inspection { format, imports, exports, world, .. } = inspect::inspect(wasm)?;
    let names = |interfaces: Vec<inspect::Interface>| interfaces.into_iter().map(|it| it.name).collect();
    let component = (format == Format::Component).then(|| Component {
        exports: names(exports),
        imports: names(imports),
        target: world,
    });
    let layer = Descriptor::of(WASM_LAYER, wasm);
    let config = WasmConfig {
        created: CREATED,
        architecture: "wasm",
        os: if component.is_some() { "wasip2" } else { "wasip1" },
        layer_digests: vec![layer.digest],
        component,
    };
    let config = serde_json::to_vec(&config).map_err(PackError::Json)?;
    assemble(WASM_CONFIG, config, layer, wasm.to_vec(), annotations)
}

/// Puts a manifest around a configuration and a layer.
fn assemble(
    config_type: &str,
    config: Vec<u8>,
    mut layer: Descriptor,
    content: Vec<u8>,
    annotations: &Annotations,
) -> Result<Artifact, PackError> {
    layer.annotations = annotations.title.as_ref().map(|title| BTreeMap::from([(TITLE.to_owned(), title.clone())]));
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.to_owned()),
        config: Descriptor::of(config_type, &config),
        layers: vec![layer],
        subject: None,
        annotations: (!annotations.manifest.is_empty()).then(|| annotations.manifest.clone()),
    };
    let manifest = serde_json::to_vec(&manifest).map_err(PackError::Json)?;
    Ok(Artifact { manifest, config, layer: content })
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;

//! A wasm binary comes in, a CNCF wasm OCI artifact goes out, and from there into an OCI image layout directory.
//!
//! Equal binaries give equal bytes and so equal digests: nothing of the time, the machine or the file's name goes into
//! an artifact. The binary is read for its imports and exports only; it is not validated, that is the engine's part.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmparser::{BinaryReaderError, Encoding, Parser, Payload};

use crate::digest::Digest;
use crate::durable;
use crate::manifest::{Descriptor, Manifest, OCI_MANIFEST, REF_NAME, WASM_CONFIG, WASM_LAYER};
use crate::reference::Reference;

/// The creation time of every artifact: with a real one, packing twice would give two digests.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// Readable by all, as layouts are shared; the umask still applies.
const LAYOUT_FILE_MODE: u32 = 0o644;
const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Why a binary could not be packed, or an artifact not be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The bytes are not a wasm module or component.
    #[error("cannot read the WebAssembly binary")]
    Wasm(#[source] BinaryReaderError),
    /// The configuration or the manifest did not serialise.
    #[error("cannot write the artifact's JSON")]
    Json(#[source] serde_json::Error),
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

/// A CNCF wasm OCI artifact in memory: a manifest, a configuration and one wasm layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    manifest: Vec<u8>,
    config: Vec<u8>,
    wasm: Vec<u8>,
}

impl Artifact {
    /// The manifest's digest, by which registries know the artifact.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The manifest's JSON.
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The configuration's JSON (`application/vnd.wasm.config.v0+json`).
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The wasm binary, the only layer (`application/wasm`).
    #[must_use]
    pub fn wasm(&self) -> &[u8] {
        &self.wasm
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

/// Packs a core module (os `wasip1`) or a component (os `wasip2`) as an artifact.
///
/// # Errors
/// [`PackError::Wasm`] when the bytes are not a wasm binary.
pub fn artifact(wasm: &[u8]) -> Result<Artifact, PackError> {
    let component = world_of(wasm).map_err(PackError::Wasm)?;
    let layer = Descriptor::of(WASM_LAYER, wasm);
    let config = WasmConfig {
        created: CREATED,
        architecture: "wasm",
        os: if component.is_some() { "wasip2" } else { "wasip1" },
        layer_digests: vec![layer.digest],
        component,
    };
    let config = serde_json::to_vec(&config).map_err(PackError::Json)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.to_owned()),
        config: Descriptor::of(WASM_CONFIG, &config),
        layers: vec![layer],
    };
    let manifest = serde_json::to_vec(&manifest).map_err(PackError::Json)?;
    Ok(Artifact { manifest, config, wasm: wasm.to_vec() })
}

/// The outermost imports and exports of a component; `None` for a core module.
fn world_of(wasm: &[u8]) -> Result<Option<Component>, BinaryReaderError> {
    let mut world = None;
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { encoding: Encoding::Component, .. } if depth == 0 => {
                world = Some(Component::default());
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let name = import?.name.name.to_owned();
                    world.get_or_insert_default().imports.push(name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let name = export?.name.name.to_owned();
                    world.get_or_insert_default().exports.push(name);
                }
            }
            _ => {}
        }
    }
    Ok(world)
}

/// An index as it is rewritten: entries and fields of other tools are kept as they are.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutIndex {
    schema_version: u32,
    #[serde(default)]
    manifests: Vec<Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Writes the artifact into the OCI image layout `directory` under `reference`, and makes the layout where there is none.
///
/// An older entry of the same reference is replaced (its blobs stay); the same artifact again changes nothing.
/// `index.json` is replaced as a whole, under a lock on the directory, so that concurrent writers lose nothing and
/// readers never wait. The returned digest is the manifest's.
///
/// # Errors
/// [`PackError::Layout`] and [`PackError::Index`] name the file; [`PackError::OtherDigest`] when `reference` has a digest
/// and the artifact another.
pub fn add_to_layout(directory: &Path, reference: &Reference, artifact: &Artifact) -> Result<Digest, PackError> {
    let digest = artifact.digest();
    if reference.digest().is_some_and(|pinned| pinned != digest) {
        return Err(PackError::OtherDigest { reference: reference.clone(), digest });
    }
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| at("create", &blobs, source))?;
    let lock = File::open(directory).map_err(|source| at("open", directory, source))?;
    lock.lock().map_err(|source| at("lock", directory, source))?;

    for content in [artifact.wasm(), artifact.config(), artifact.manifest()] {
        let path = blobs.join(Digest::of(content).hex());
        // Written before, it holds what its name says; a size that differs is damage, and is repaired.
        let whole = fs::metadata(&path).is_ok_and(|found| found.len() == content.len() as u64);
        if !whole {
            write(&path, content)?;
        }
    }
    let version = directory.join("oci-layout");
    if !version.exists() {
        write(&version, OCI_LAYOUT.as_bytes())?;
    }
    let path = directory.join("index.json");
    let mut index = read_index(&path)?;
    let before = index.manifests.clone();
    let name = reference.to_string();
    let mut entry = Descriptor::of(OCI_MANIFEST, artifact.manifest());
    entry.annotations = Some(BTreeMap::from([(REF_NAME.to_owned(), name.clone())]));
    index.manifests.retain(|entry| entry["annotations"][REF_NAME] != *name);
    index.manifests.push(serde_json::to_value(entry).map_err(PackError::Json)?);
    if index.manifests != before {
        write(&path, &serde_json::to_vec(&index).map_err(PackError::Json)?)?;
    }
    Ok(digest)
}

fn read_index(path: &Path) -> Result<LayoutIndex, PackError> {
    match fs::read(path) {
        Ok(content) => {
            serde_json::from_slice(&content).map_err(|source| PackError::Index { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LayoutIndex {
            schema_version: 2,
            manifests: Vec::new(),
            rest: BTreeMap::from([("mediaType".to_owned(), Value::from(crate::manifest::OCI_INDEX))]),
        }),
        Err(source) => Err(at("read", path, source)),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), PackError> {
    durable::write(path, content, LAYOUT_FILE_MODE).map_err(|source| at("write", path, source))
}

fn at(step: &'static str, path: &Path, source: io::Error) -> PackError {
    PackError::Layout { step, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;

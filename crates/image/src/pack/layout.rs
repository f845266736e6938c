//! Artifacts come in, an OCI image layout goes out: a directory that grows, or an archive of one artifact.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tarball::Tarball;
use super::{Artifact, PackError};
use crate::digest::Digest;
use crate::durable;
use crate::manifest::{Descriptor, OCI_INDEX, OCI_MANIFEST, REF_NAME};
use crate::reference::Reference;

/// Readable by all, as layouts are shared; the umask still applies.
const LAYOUT_FILE_MODE: u32 = 0o644;
const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

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

impl Default for LayoutIndex {
    fn default() -> Self {
        let rest = BTreeMap::from([("mediaType".to_owned(), Value::from(OCI_INDEX))]);
        Self { schema_version: 2, manifests: Vec::new(), rest }
    }
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
    let digest = check_digest(reference, artifact)?;
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| at("create", &blobs, source))?;
    let lock = File::open(directory).map_err(|source| at("open", directory, source))?;
    lock.lock().map_err(|source| at("lock", directory, source))?;

    for content in [artifact.layer(), artifact.config(), artifact.manifest()] {
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
    index.manifests.retain(|entry| entry["annotations"][REF_NAME] != *name);
    index.manifests.push(entry(&name, artifact)?);
    if index.manifests != before {
        write(&path, &serde_json::to_vec(&index).map_err(PackError::Json)?)?;
    }
    Ok(digest)
}

/// Writes a new file `archive`: a tarball of a layout with this artifact alone, as other tools' `oci-archive` is. Equal
/// artifacts and references give equal bytes. An older file is replaced as a whole.
///
/// # Errors
/// [`PackError::Layout`] names the file; [`PackError::OtherDigest`] as [`add_to_layout`].
pub fn write_archive(archive: &Path, reference: &Reference, artifact: &Artifact) -> Result<Digest, PackError> {
    let digest = check_digest(reference, artifact)?;
    let index = LayoutIndex { manifests: vec![entry(&reference.to_string(), artifact)?], ..LayoutIndex::default() };
    let index = serde_json::to_vec(&index).map_err(PackError::Json)?;
    let tarball = || -> io::Result<Vec<u8>> {
        let mut tarball = Tarball::new(Vec::new());
        for directory in ["blobs", "blobs/sha256"] {
            tarball.directory(directory)?;
        }
        let mut contents = [artifact.layer(), artifact.config(), artifact.manifest()]
            .map(|content| (format!("blobs/sha256/{}", Digest::of(content).hex()), content));
        contents.sort();
        for (name, content) in contents {
            tarball.file(&name, content, false)?;
        }
        tarball.file("index.json", &index, false)?;
        tarball.file("oci-layout", OCI_LAYOUT.as_bytes(), false)?;
        tarball.finish()
    };
    let content = tarball().map_err(|source| at("pack", archive, source))?;
    write(archive, &content)?;
    Ok(digest)
}

fn check_digest(reference: &Reference, artifact: &Artifact) -> Result<Digest, PackError> {
    let digest = artifact.digest();
    if reference.digest().is_some_and(|pinned| pinned != digest) {
        return Err(PackError::OtherDigest { reference: reference.clone(), digest });
    }
    Ok(digest)
}

/// The artifact's entry in an index.
fn entry(name: &str, artifact: &Artifact) -> Result<Value, PackError> {
    let mut entry = Descriptor::of(OCI_MANIFEST, artifact.manifest());
    entry.annotations = Some(BTreeMap::from([(REF_NAME.to_owned(), name.to_owned())]));
    serde_json::to_value(entry).map_err(PackError::Json)
}

fn read_index(path: &Path) -> Result<LayoutIndex, PackError> {
    match fs::read(path) {
        Ok(content) => {
            serde_json::from_slice(&content).map_err(|source| PackError::Index { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LayoutIndex::default()),
        Err(source) => Err(at("read", path, source)),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), PackError> {
    durable::write(path, content, LAYOUT_FILE_MODE).map_err(|source| at("write", path, source))
}

fn at(step: &'static str, path: &Path, source: io::Error) -> PackError {
    PackError::Layout { step, path: path.to_owned(), source }
}

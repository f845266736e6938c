//! An OCI image layout directory as a source: a reference comes in, the blobs its `index.json` names go out.
//!
//! A layout that does not exist is an empty one, as a build may write it later. Nothing here writes, and nothing read
//! here is believed before its digest was checked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::fs::{self, File};
use tokio::io::AsyncReadExt;

use super::MANIFEST_BYTES_MAX;
use super::error::{Part, PullError};
use crate::digest::Digest;
use crate::manifest::{CONTAINERD_NAME, Descriptor, REF_NAME};
use crate::reference::Reference;
use crate::store::Ingest;

const CHUNK_BYTES: usize = 256 * 1024;

/// A layout that has the wanted image.
pub(crate) struct Layout {
    directory: PathBuf,
    image: Reference,
    digest: Digest,
}

impl Layout {
    /// Looks for `image` in the layout: by its digest if it has one, else by its full name.
    pub(crate) async fn find(directory: &Path, image: &Reference) -> Result<Option<Self>, PullError> {
        let path = directory.join("index.json");
        let content = match fs::read(&path).await {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(PullError::Layout { image: image.clone(), path, source: Arc::new(source) });
            }
        };
        let malformed =
            |error| PullError::LayoutIndex { image: image.clone(), path: path.clone(), source: Arc::new(error) };
        let index: LayoutIndex = serde_json::from_slice(&content).map_err(malformed)?;
        // Entries of other tools need not be readable here, only the wanted one.
        let Some(entry) = index.manifests.into_iter().find(|entry| is_entry_of(entry, image)) else {
            return Ok(None);
        };
        let entry: Descriptor = serde_json::from_value(entry).map_err(malformed)?;
        Ok(Some(Self { directory: directory.to_owned(), image: image.clone(), digest: entry.digest }))
    }

    async fn open(&self, digest: Digest) -> Result<(File, PathBuf), PullError> {
        let path = self.directory.join("blobs/sha256").join(digest.hex());
        match File::open(&path).await {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(self.unreadable(path, source)),
        }
    }

    fn unreadable(&self, path: PathBuf, source: io::Error) -> PullError {
        PullError::Layout { image: self.image.clone(), path, source: Arc::new(source) }
    }

    /// Reads the manifest or index `part`, checked against its digest.
    pub(crate) async fn manifest(&self, part: Part) -> Result<Vec<u8>, PullError> {
        let digest = part.digest().unwrap_or(self.digest);
        let (file, path) = self.open(digest).await?;
        let mut content = Vec::new();
        let read = file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut content).await;
        read.map_err(|source| self.unreadable(path, source))?;
        let actual = Digest::of(&content);
        if actual != digest && content.len() as u64 <= MANIFEST_BYTES_MAX {
            let problem = format!("the image layout has content of digest {actual} under {digest}");
            return Err(PullError::Corrupt { image: self.image.clone(), part, problem });
        }
        Ok(content)
    }

    /// Copies a blob, unchecked; the ingest checks it.
    pub(crate) async fn copy(&self, blob: &Descriptor, into: &mut Ingest) -> Result<(), PullError> {
        let (mut file, path) = self.open(blob.digest).await?;
        let mut chunk = vec![0; CHUNK_BYTES];
        // A first byte too many is enough to see that the size is wrong.
        while into.written_bytes() <= blob.size {
            let count = match file.read(&mut chunk).await {
                Ok(0) => break,
                Ok(count) => count,
                Err(source) => return Err(self.unreadable(path, source)),
            };
            into.write(&chunk[..count]).await.map_err(|source| PullError::storing(&self.image, source))?;
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct LayoutIndex {
    #[serde(default)]
    manifests: Vec<Value>,
}

fn is_entry_of(entry: &Value, image: &Reference) -> bool {
    if let Some(digest) = image.digest() {
        return entry["digest"] == *digest.to_string();
    }
    [REF_NAME, CONTAINERD_NAME].iter().any(|annotation| {
        let name = entry["annotations"][annotation].as_str();
        name.is_some_and(|name| Reference::parse(name).is_ok_and(|name| name == *image))
    })
}

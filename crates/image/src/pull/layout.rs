//! An OCI image layout as a source, a directory or a tarball: a reference comes in, the blobs its `index.json` names go out.
//! So do those of a tarball that `docker save` wrote.
//!
//! A layout that does not exist is an empty one, as a build may write it later. Nothing here writes, and nothing read
//! here is believed before its digest was checked.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, Take};

use super::archive::{Archive, Saved};
use super::error::{Part, PullError};
use crate::digest::Digest;
use crate::manifest::{CONTAINERD_NAME, Descriptor, Document, REF_NAME};
use crate::reference::Reference;
use crate::registry::{MANIFEST_BYTES_MAX, referrers_of};
use crate::store::Ingest;

const CHUNK_BYTES: usize = 256 * 1024;
const INDEX: &str = "index.json";
/// Manifests of a layout that are read to see what they are about.
const REFERRERS_MAX: usize = 200;

/// A layout that has the wanted image.
pub(crate) struct Layout {
    files: Files,
    image: Reference,
    digest: Digest,
}

/// Where the blobs are.
enum Files {
    Directory(PathBuf),
    Archive {
        path: PathBuf,
        archive: Arc<Archive>,
        /// Content that was made here.
        made: HashMap<Digest, Vec<u8>>,
        /// Files that are not where a layout has them.
        names: HashMap<Digest, String>,
    },
}

impl Layout {
    /// Looks for `image` in the layout: by its digest if it has one, else by its full name.
    pub(crate) async fn find(place: &Path, image: &Reference) -> Result<Option<Self>, PullError> {
        if fs::metadata(place).await.is_ok_and(|found| found.is_file()) {
            return Self::find_in_archive(place, image).await;
        }
        let path = place.join(INDEX);
        let content = match fs::read(&path).await {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(unreadable(image, path, source)),
        };
        let digest = find_in_index(&content, image, &path)?;
        Ok(digest.map(|digest| Self { files: Files::Directory(place.to_owned()), image: image.clone(), digest }))
    }

    async fn find_in_archive(path: &Path, image: &Reference) -> Result<Option<Self>, PullError> {
        let (place, wanted) = (path.to_owned(), image.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let archive = Archive::open(&place)?;
            let index = archive.read(INDEX)?;
            let saved = if index.is_none() { archive.saved(&wanted)? } else { None };
            Ok((archive, index, saved))
        });
        let looked = looked.await.map_err(|_| PullError::Aborted { image: image.clone() })?;
        let (archive, index, saved) = looked.map_err(|source| unreadable(image, path.to_owned(), source))?;
        let (digest, made, names) = match (index, saved) {
            (Some(index), _) => match find_in_index(&index, image, &path.join(INDEX))? {
                Some(digest) => (digest, HashMap::new(), HashMap::new()),
                None => return Ok(None),
            },
            (None, Some(Saved { manifest, blobs })) => {
                let digest = Digest::of(&manifest);
                (digest, HashMap::from([(digest, manifest)]), blobs)
            }
            (None, None) => return Ok(None),
        };
        let files = Files::Archive { path: path.to_owned(), archive: Arc::new(archive), made, names };
        Ok(Some(Self { files, image: image.clone(), digest }))
    }

    /// Another image of the same layout.
    pub(crate) async fn beside(&self, image: &Reference) -> Result<Option<Self>, PullError> {
        let place = match &self.files {
            Files::Directory(directory) => directory,
            Files::Archive { path, .. } => path,
        };
        Self::find(place, image).await
    }

    /// The manifests of the layout that name the one with this digest as their subject.
    pub(crate) async fn referrers(&self, digest: Digest) -> Result<Vec<Descriptor>, PullError> {
        let index = match &self.files {
            Files::Directory(directory) => fs::read(directory.join(INDEX)).await.ok(),
            Files::Archive { archive, .. } => {
                let archive = Arc::clone(archive);
                let read = tokio::task::spawn_blocking(move || archive.read(INDEX)).await;
                read.ok().and_then(Result::ok).flatten()
            }
        };
        // It was read before, to find the image; one that is not there is that of an archive of `docker save`.
        let entries = index.and_then(|index| referrers_of(&index).ok()).unwrap_or_default();
        let mut found = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.size <= MANIFEST_BYTES_MAX).take(REFERRERS_MAX) {
            let content = self.manifest(Part::Signature(entry.digest)).await?;
            if let Ok(Document::Manifest(manifest)) = Document::parse(&content)
                && manifest.subject.is_some_and(|subject| subject.digest == digest)
            {
                found.push(entry);
            }
        }
        Ok(found)
    }

    async fn open(&self, digest: Digest) -> Result<(Take<File>, PathBuf), PullError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let (opened, path) = match &self.files {
            Files::Directory(directory) => {
                let path = directory.join(name);
                (File::open(&path).await.map(|file| file.take(u64::MAX)), path)
            }
            Files::Archive { path, archive, names, .. } => {
                let name = names.get(&digest).cloned().unwrap_or(name);
                let (archive, wanted) = (Arc::clone(archive), name.clone());
                let opened = tokio::task::spawn_blocking(move || archive.file(&wanted)).await;
                let opened = opened.map_err(|_| PullError::Aborted { image: self.image.clone() })?;
                let missing = || io::Error::from(io::ErrorKind::NotFound);
                let opened = opened.and_then(|found| found.ok_or_else(missing));
                (opened.map(|(file, size)| File::from_std(file).take(size)), path.join(name))
            }
        };
        match opened {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(unreadable(&self.image, path, source)),
        }
    }

    /// Reads the manifest or index `part`, checked against its digest.
    pub(crate) async fn manifest(&self, part: Part) -> Result<Vec<u8>, PullError> {
        let digest = part.digest().unwrap_or(self.digest);
        if let Files::Archive { made, .. } = &self.files
            && let Some(content) = made.get(&digest)
        {
            return Ok(content.clone());
        }
        let (file, path) = self.open(digest).await?;
        let mut content = Vec::new();
        let read = file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut content).await;
        read.map_err(|source| unreadable(&self.image, path, source))?;
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
                Err(source) => return Err(unreadable(&self.image, path, source)),
            };
            into.write(&chunk[..count]).await.map_err(|source| PullError::storing(&self.image, source))?;
        }
        Ok(())
    }
}

fn unreadable(image: &Reference, path: PathBuf, source: io::Error) -> PullError {
    PullError::Layout { image: image.clone(), path, source: Arc::new(source) }
}

#[derive(serde::Deserialize)]
struct LayoutIndex {
    #[serde(default)]
    manifests: Vec<Value>,
}

/// The digest under which an index has the image.
fn find_in_index(content: &[u8], image: &Reference, path: &Path) -> Result<Option<Digest>, PullError> {
    let malformed =
        |error| PullError::LayoutIndex { image: image.clone(), path: path.to_owned(), source: Arc::new(error) };
    let index: LayoutIndex = serde_json::from_slice(content).map_err(malformed)?;
    // Entries of other tools need not be readable here, only the wanted one.
    let Some(entry) = index.manifests.into_iter().find(|entry| is_entry_of(entry, image)) else {
        return Ok(None);
    };
    let entry: Descriptor = serde_json::from_value(entry).map_err(malformed)?;
    Ok(Some(entry.digest))
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

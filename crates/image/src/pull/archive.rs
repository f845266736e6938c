//! A tarball of an image as a source: an OCI layout in a tar archive, or what `docker save` writes.
//!
//! In comes the archive's path, out go the files in it by name or by digest. What `docker save` wrote before it wrote
//! layouts has no manifests: one is made here, always the same for the same content. Nothing is unpacked, and nothing
//! read here is believed before its digest was checked. Does file I/O on the calling thread.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::manifest::{DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Manifest};
use crate::reference::Reference;
use crate::registry::MANIFEST_BYTES_MAX;

/// A layer of files in Docker's words.
const DOCKER_TAR_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Files that an archive may have; one of an image has some for each layer.
const ENTRIES_MAX: usize = 100_000;

/// An archive and where its files are in it.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    /// Offset and size by name.
    files: HashMap<String, (u64, u64)>,
}

/// An image that `docker save` wrote.
pub(super) struct Saved {
    /// The manifest's JSON, made here.
    pub(super) manifest: Vec<u8>,
    /// The files by their digests.
    pub(super) blobs: HashMap<Digest, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Archive {
    /// Finds out what is where.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut archive = tar::Archive::new(File::open(path)?);
        let mut files = HashMap::new();
        let mut links = Vec::new();
        for entry in archive.entries_with_seek()? {
            let entry = entry.map_err(|error| not_an_archive(&error))?;
            let name = name_of(&entry.path_bytes());
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    files.insert(name, (entry.raw_file_position(), entry.size()));
                }
                // Old ones of Docker's keep equal layers once.
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let is_hard = entry.header().entry_type() == tar::EntryType::Link;
                    let target = if is_hard { name_of(&target) } else { beside(&name, &target) };
                    links.push((name, target));
                }
                _ => {}
            }
            if files.len() + links.len() > ENTRIES_MAX {
                return Err(io::Error::other(format!("it has more than {ENTRIES_MAX} files")));
            }
        }
        for (name, target) in links {
            if let Some(place) = files.get(&target).copied() {
                files.entry(name).or_insert(place);
            }
        }
        Ok(Self { path: path.to_owned(), files })
    }

    /// A file of the archive: open where it begins, with its size; `None` if there is none of this name.
    pub(super) fn file(&self, name: &str) -> io::Result<Option<(File, u64)>> {
        let Some((offset, size)) = self.files.get(name) else { return Ok(None) };
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(*offset))?;
        Ok(Some((file, *size)))
    }

    /// The content of a small file.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some((file, size)) = self.file(name)? else { return Ok(None) };
        if size > MANIFEST_BYTES_MAX {
            return Err(io::Error::other(format!("{name} in it has {size} bytes, over {MANIFEST_BYTES_MAX}")));
        }
        let mut content = Vec::new();
        file.take(size).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// The image of this tag, if `docker save` wrote the archive.
    pub(super) fn saved(&self, image: &Reference) -> io::Result<Option<Saved>> {
        let Some(content) = self.read("manifest.json")? else { return Ok(None) };
        let images: Vec<SavedImage> = serde_json::from_slice(&content)?;
        let is_named = |name: &String| Reference::parse(name).is_ok_and(|name| name == *image);
        let wanted = images.into_iter().find(|it| it.repo_tags.iter().flatten().any(is_named));
        let Some(SavedImage { config, layers, .. }) = wanted else { return Ok(None) };
        let mut blobs = HashMap::new();
        let mut describe = |media_type: &str, name: &str| {
            let descriptor = self.describe(media_type, name)?;
            blobs.insert(descriptor.digest, name.to_owned());
            Ok::<_, io::Error>(descriptor)
        };
        let config = describe(DOCKER_CONFIG, &config)?;
        let layers = layers.iter().map(|name| describe(DOCKER_TAR_LAYER, name)).collect::<Result<_, _>>()?;
        let media_type = Some(DOCKER_MANIFEST.to_owned());
        let manifest = serde_json::to_vec(&Manifest {
            schema_version: 2,
            media_type,
            config,
            layers,
            subject: None,
            annotations: None,
        })?;
        Ok(Some(Saved { manifest, blobs }))
    }

    fn describe(&self, media_type: &str, name: &str) -> io::Result<Descriptor> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("it lists {name} and has no such file"));
        let (file, size) = self.file(name)?.ok_or_else(missing)?;
        let mut hasher = Sha256::new();
        io::copy(&mut file.take(size), &mut hasher)?;
        let digest = Digest::from_hasher(hasher);
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: None,
            platform: None,
            artifact_type: None,
        })
    }
}

fn not_an_archive(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("it is not an uncompressed tar archive ({error})"))
}

fn name_of(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    path.trim_start_matches("./").trim_start_matches('/').to_owned()
}

/// Where a link leads that stands beside `name`.
fn beside(name: &str, target: &[u8]) -> String {
    let target = String::from_utf8_lossy(target);
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_an_archive_lead_to_names_in_it() {
        assert_eq!(beside("a/layer.tar", b"../b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("layer.tar", b"../../b"), "b");
        assert_eq!(name_of(b"./blobs/sha256/x"), "blobs/sha256/x");
    }
}

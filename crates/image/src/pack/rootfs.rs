//! A wasm binary and files come in, an ordinary OCI image whose entrypoint is the binary goes out.
//!
//! One gzipped layer with every file at its path in the image, sorted, owned by root, without times; so equal files give
//! an equal digest, whoever builds it and when.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use flate2::{Compression, GzBuilder};
use serde::Serialize;

use super::tarball::Tarball;
use super::{Annotations, Artifact, CREATED, PackError, assemble};
use crate::digest::Digest;
use crate::inspect;
use crate::manifest::Descriptor;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Why files could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A path in the image is not one.
    #[error("{0:?} is not a path in an image: it must be absolute, and without `..`")]
    Path(String),
    /// Two things for one path, or a file where another path has a directory.
    #[error("{} cannot be put at {path}: something else is there", host.display())]
    Taken {
        /// What was to be put there.
        host: PathBuf,
        /// The path in the image.
        path: String,
    },
    /// Neither a file, a directory nor a symbolic link.
    #[error("{} is neither a file, a directory nor a symbolic link, and cannot be in an image", .0.display())]
    Special(PathBuf),
    /// A name or a link's target that is not UTF-8.
    #[error("{} is not UTF-8; rename it", .0.display())]
    NotUtf8(PathBuf),
    /// The host's file system.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One path of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file with its content.
    File {
        /// All of it.
        content: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link to this target.
    Link(String),
}

/// The files of an image by path, without the leading `/`, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Entry>);

impl Files {
    /// Adds a file or a directory with all that is in it, at this absolute path of the image. Symbolic links stay links.
    ///
    /// # Errors
    /// See [`FilesError`]; then some of it may have been added.
    pub fn add(&mut self, host: &Path, path: &str) -> Result<(), FilesError> {
        let path = relative(path)?;
        self.add_tree(host, &path)
    }

    /// Adds a file of this content.
    ///
    /// # Errors
    /// [`FilesError::Path`] and [`FilesError::Taken`].
    pub fn add_file(&mut self, host: &Path, path: &str, content: Vec<u8>) -> Result<(), FilesError> {
        let path = relative(path)?;
        self.put(host, path, Entry::File { content, executable: false })
    }

    fn add_tree(&mut self, host: &Path, path: &str) -> Result<(), FilesError> {
        let failed = |source| FilesError::Read { path: host.to_owned(), source };
        let metadata = fs::symlink_metadata(host).map_err(failed)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            if !path.is_empty() {
                self.put(host, path.to_owned(), Entry::Directory)?;
            }
            for entry in fs::read_dir(host).map_err(failed)? {
                let inner = entry.map_err(failed)?.path();
                let name = inner.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| FilesError::NotUtf8(inner.clone()))?;
                let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                self.add_tree(&inner, &below)?;
            }
            return Ok(());
        }
        let entry = if kind.is_symlink() {
            let target = fs::read_link(host).map_err(failed)?;
            Entry::Link(target.to_str().ok_or_else(|| FilesError::NotUtf8(host.to_owned()))?.to_owned())
        } else if kind.is_file() {
            let executable = metadata.permissions().mode() & 0o111 != 0;
            Entry::File { content: fs::read(host).map_err(failed)?, executable }
        } else {
            return Err(FilesError::Special(host.to_owned()));
        };
        self.put(host, path.to_owned(), entry)
    }

    fn put(&mut self, host: &Path, path: String, entry: Entry) -> Result<(), FilesError> {
        let taken = || FilesError::Taken { host: host.to_owned(), path: format!("/{path}") };
        if path.is_empty() {
            return Err(taken());
        }
        let mut parent = path.as_str();
        while let Some((above, _)) = parent.rsplit_once('/') {
            if self.0.entry(above.to_owned()).or_insert(Entry::Directory) != &Entry::Directory {
                return Err(taken());
            }
            parent = above;
        }
        match self.0.get(&path) {
            Some(there) if *there != entry => Err(taken()),
            _ => {
                self.0.insert(path, entry);
                Ok(())
            }
        }
    }
}

/// A path of an image without its leading `/`; empty for `/` itself.
fn relative(path: &str) -> Result<String, FilesError> {
    let wrong = || FilesError::Path(path.to_owned());
    if !path.starts_with('/') {
        return Err(wrong());
    }
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => parts.push(name.to_str().ok_or_else(wrong)?),
            Component::ParentDir | Component::Prefix(_) => return Err(wrong()),
        }
    }
    Ok(parts.join("/"))
}

/// What an image says about running it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rootfs {
    /// The files; the binary is among them.
    pub files: Files,
    /// The command; its first word is the path of the binary.
    pub entrypoint: Vec<String>,
    /// The arguments, which a pod's `args` replace.
    pub cmd: Vec<String>,
    /// Environment entries, `NAME=value`.
    pub env: Vec<String>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// The user, as `uid[:gid]`.
    pub user: Option<String>,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Config<'a> {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    config: Execution<'a>,
    rootfs: RootFs,
    history: [History; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution<'a> {
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    env: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: [Digest; 1],
}

#[derive(Serialize)]
struct History {
    created: &'static str,
    created_by: &'static str,
}

/// Packs an ordinary image for the platform `wasi/wasm`.
///
/// # Errors
/// [`PackError::Wasm`] when the entrypoint is not a wasm binary among the files, [`PackError::Entrypoint`] when there is
/// no such file, [`PackError::Files`] when the archive cannot be made.
pub fn image(rootfs: &Rootfs, annotations: &Annotations) -> Result<Artifact, PackError> {
    let entrypoint = rootfs.entrypoint.first().cloned().unwrap_or_default();
    let path = relative(&entrypoint).unwrap_or_default();
    let Some(Entry::File { content: wasm, .. }) = rootfs.files.0.get(&path) else {
        return Err(PackError::Entrypoint(entrypoint));
    };
    inspect::inspect(wasm)?;
    let (layer, diff_id) = layer(&rootfs.files).map_err(PackError::Files)?;
    let config = Config {
        created: CREATED,
        architecture: "wasm",
        os: "wasi",
        config: Execution {
            entrypoint: &rootfs.entrypoint,
            cmd: &rootfs.cmd,
            env: &rootfs.env,
            working_dir: rootfs.working_dir.as_deref(),
            user: rootfs.user.as_deref(),
            labels: &rootfs.labels,
        },
        rootfs: RootFs { kind: "layers", diff_ids: [diff_id] },
        history: [History { created: CREATED, created_by: "wasklet image build" }],
    };
    let config = serde_json::to_vec(&config).map_err(PackError::Json)?;
    assemble(CONFIG, config, Descriptor::of(LAYER, &layer), layer, annotations)
}

/// The gzipped archive, and the digest of what is inside of it.
fn layer(files: &Files) -> io::Result<(Vec<u8>, Digest)> {
    let mut tarball = Tarball::new(Vec::new());
    for (path, entry) in &files.0 {
        match entry {
            Entry::Directory => tarball.directory(path)?,
            Entry::File { content, executable } => tarball.file(path, content, *executable)?,
            Entry::Link(target) => tarball.link(path, target)?,
        }
    }
    let archive = tarball.finish()?;
    // Neither a time nor a name nor this system's number stands in the header.
    let mut zipped = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::default());
    zipped.write_all(&archive)?;
    Ok((zipped.finish()?, Digest::of(&archive)))
}

#[cfg(test)]
#[path = "rootfs_tests.rs"]
mod tests;

//! What an image is made of: one wasm binary, files around one, or a Spin application.
//!
//! Values only. Every path leads to something that was verified when it came into the store and never changes.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::rootfs::Rootfs;

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One wasm layer: the image is the program.
    Wasm(Wasm),
    /// Layers of files, of which the command names one.
    Rootfs(Rootfs),
    /// An application of several components, which only a Spin host can run.
    Spin(Spin),
}

/// A verified wasm binary on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wasm {
    /// A file that never changes; it may be unlinked when the image is removed.
    pub path: PathBuf,
    /// Its digest, a key for whatever is compiled from it.
    pub digest: Digest,
    /// The layer's media type; that of a file in a root file system is `application/wasm`.
    pub media_type: String,
}

/// A Spin application as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spin {
    /// The application's name, from its locked form.
    pub name: String,
    /// The locked application: JSON that names components, triggers and files by digest.
    pub locked_app: Blob,
    /// All that it names: components, files, archives of files.
    pub layers: Vec<Blob>,
}

/// A verified blob on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// A file that never changes.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// What the manifest says it is.
    pub media_type: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

impl Spin {
    /// The blob of this digest, if the application was pushed with it.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<&Blob> {
        self.layers.iter().find(|blob| blob.digest == *digest)
    }
}

impl Content {
    /// The binary of an image that is nothing else.
    #[must_use]
    pub fn wasm(&self) -> Option<&Wasm> {
        match self {
            Self::Wasm(wasm) => Some(wasm),
            Self::Rootfs(_) | Self::Spin(_) => None,
        }
    }

    /// The kind in one word, as `wasklet image` shows it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Wasm(_) => "wasm",
            Self::Rootfs(_) => "rootfs",
            Self::Spin(_) => "spin",
        }
    }
}

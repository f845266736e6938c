//! The files of an ordinary image, unpacked once and shared by all its containers: a program's name comes in, the wasm file
//! that a Linux container would run by that name goes out.
//!
//! ```text
//! <chain>/fs/           the root file system; nothing changes in it once it is there
//! <chain>/rootfs.json   what the unpacking found: the wasm files with their digests, and what it takes on disk
//! ```
//! Nothing here writes to a root file system that is in use, and nothing of it is ever executed but wasm.

mod entry;
mod layer;
mod program;
mod tree;
mod unpack;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::program::{Program, ProgramError};
pub(crate) use self::unpack::{UnpackError, UnpackLimits, Unpacker};
use crate::digest::Digest;
use crate::durable;

const FILES: &str = "fs";
const INDEX: &str = "rootfs.json";

/// An unpacked root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The directory of one chain of layers.
    directory: PathBuf,
    chain: Digest,
    unpacked_bytes: u64,
}

/// What the unpacking found, as it is kept beside the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// By their real paths in the root.
    wasm: BTreeMap<PathBuf, Digest>,
    /// Allocated on disk, in bytes.
    pub(crate) bytes: u64,
    /// Files and directories.
    pub(crate) inodes: u64,
}

impl Rootfs {
    pub(crate) fn new(directory: PathBuf, chain: Digest, unpacked_bytes: u64) -> Self {
        Self { directory, chain, unpacked_bytes }
    }

    /// The root directory on the node. It is shared: whoever lets a guest write puts a directory of its own over it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join(FILES)
    }

    /// The digest of the chain of layers: images of equal layers share their files.
    #[must_use]
    pub fn chain(&self) -> Digest {
        self.chain
    }

    /// What the files take on disk, in bytes.
    #[must_use]
    pub fn unpacked_bytes(&self) -> u64 {
        self.unpacked_bytes
    }

    /// The wasm files with their paths in the image and their digests, as they were unpacked.
    ///
    /// # Errors
    /// When the list beside the files cannot be read.
    pub fn wasm_files(&self) -> io::Result<BTreeMap<PathBuf, Digest>> {
        Ok(Index::read(&self.directory)?.wasm)
    }
}

impl Index {
    /// Whether the directory of a chain is whole.
    pub(crate) fn is_in(directory: &Path) -> bool {
        fs::symlink_metadata(directory.join(INDEX)).is_ok()
    }

    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(directory.join(INDEX))?)?)
    }
}

/// Unpacks layers, each with the digest that its tar stream must have, into the empty directory of a chain. When this
/// returns, the whole is on disk.
pub(crate) fn make(
    directory: &Path,
    layers: &[(PathBuf, Digest)],
    limits: UnpackLimits,
) -> Result<Index, (usize, UnpackError)> {
    let files = directory.join(FILES);
    let writing = |path: &Path, source| UnpackError::Write { path: path.to_owned(), source };
    let whole = layers.len();
    fs::DirBuilder::new().create(&files).map_err(|source| (whole, writing(&files, source)))?;
    let mut unpacker = Unpacker::new(&files, limits).map_err(|error| (whole, error))?;
    for (position, (blob, expected)) in layers.iter().enumerate() {
        unpacker.layer(blob, *expected).map_err(|error| (position, error))?;
    }
    let unpacked = unpacker.finish();
    let finish = || {
        let (bytes, inodes) = occupied(&files)?;
        let index = Index { wasm: unpacked.wasm, bytes, inodes };
        // The files all at once, which is far cheaper than one by one.
        rustix::fs::syncfs(File::open(&files)?)?;
        durable::write(&directory.join(INDEX), &serde_json::to_vec(&index)?, 0o600)?;
        Ok(index)
    };
    finish().map_err(|source| (whole, writing(directory, source)))
}

/// The digest of a chain of layers, as OCI's image specification computes a ChainID.
pub(crate) fn chain(diff_ids: &[Digest]) -> Digest {
    let mut ids = diff_ids.iter();
    // No layers at all are a chain too: an empty root.
    let first = ids.next().copied().unwrap_or_else(|| Digest::of(b""));
    ids.fold(first, |chain, next| Digest::from_hasher(Sha256::new_with_prefix(format!("{chain} {next}"))))
}

/// Bytes allocated below a directory, and how many files and directories there are; each hard-linked file once.
fn occupied(root: &Path) -> io::Result<(u64, u64)> {
    let (mut bytes, mut inodes) = (0, 0);
    let mut linked = std::collections::HashSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let found = entry.metadata()?;
            if found.is_dir() {
                directories.push(entry.path());
            } else if found.nlink() > 1 && !linked.insert(found.ino()) {
                continue;
            }
            inodes += 1;
            // POSIX counts blocks of 512 bytes, whatever the file system's own are.
            bytes += found.blocks() * 512;
        }
    }
    Ok((bytes, inodes))
}

#[cfg(test)]
#[path = "rootfs_tests.rs"]
mod tests;

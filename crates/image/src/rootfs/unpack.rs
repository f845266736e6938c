//! Layers into files: the layers of an image come in, in order, and its root file system goes out, with the wasm files in
//! it and their digests.
//!
//! A layer adds, replaces, and by whiteouts removes what layers before it brought. Whatever a layer holds, nothing is
//! written outside of the directory, no device is made, and no more files and bytes than are allowed. Owners and extended
//! attributes are left out: a guest has no user. Does file I/O for as long as that takes.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, FileTimes};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::entry::{Entries, Entry, EntryError};
use super::layer::{Budget, Layer};
use super::tree::{PathError, Place, Tree};
use crate::digest::Digest;

const WASM_MAGIC: &[u8] = b"\0asm";
/// Begins the names by which a layer says what is gone.
const WHITEOUT: &[u8] = b".wh.";
/// Says that all that layers before put into the directory is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins names of a file system that wrote layers once; they say nothing here.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const CHUNK_BYTES: usize = 128 * 1024;

/// Bounds of one image's files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnpackLimits {
    /// Of all layers as tar streams, in bytes.
    pub(crate) bytes: u64,
    /// Entries of all layers.
    pub(crate) entries: u64,
}

/// Why layers are not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The blob is not there, most often because it was removed meanwhile.
    #[error("cannot open it")]
    Open(io::Error),
    /// The stream breaks off or is not what it begins as.
    #[error("it is not a readable archive: {0}")]
    Archive(io::Error),
    #[error("an entry of its archive is malformed: {0}")]
    Entry(#[from] EntryError),
    #[error("its entry {} {problem}", path.display())]
    Path { path: PathBuf, problem: PathError },
    #[error("its entry {} is a hard link to {}, which is not there", path.display(), target.display())]
    HardLink { path: PathBuf, target: PathBuf },
    #[error("its entry {} hides nothing that can be named", path.display())]
    Whiteout { path: PathBuf },
    #[error("unpacked, its content has the digest {actual} where the configuration says {expected}")]
    Digest { actual: Digest, expected: Digest },
    /// Over a limit.
    #[error("its layers unfold to more than {limit}")]
    TooLarge { limit: String },
    /// This node's disk does not take it.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// What was unpacked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// The wasm files by their real paths in the root.
    pub(crate) wasm: BTreeMap<PathBuf, Digest>,
}

/// A root file system in the making.
pub(crate) struct Unpacker {
    tree: Tree,
    limits: UnpackLimits,
    budget: Budget,
    entries: u64,
    wasm: BTreeMap<PathBuf, Digest>,
}

impl Unpacker {
    /// Into the empty directory `root`.
    pub(crate) fn new(root: &Path, limits: UnpackLimits) -> Result<Self, UnpackError> {
        let tree = Tree::new(root).map_err(|source| UnpackError::Write { path: root.to_owned(), source })?;
        let budget = Budget::new(limits.bytes);
        Ok(Self { tree, limits, budget, entries: 0, wasm: BTreeMap::new() })
    }

    /// Adds the next layer. The configuration says what digest its tar stream has.
    pub(crate) fn layer(&mut self, blob: &Path, expected: Digest) -> Result<(), UnpackError> {
        self.apply(blob, expected).map_err(|error| match error {
            _ if self.budget.is_spent() => UnpackError::TooLarge { limit: format!("{} bytes", self.limits.bytes) },
            error => error,
        })
    }

    /// What the root has become.
    pub(crate) fn finish(self) -> Unpacked {
        Unpacked { wasm: self.wasm }
    }

    fn apply(&mut self, blob: &Path, expected: Digest) -> Result<(), UnpackError> {
        let blob = File::open(blob).map_err(UnpackError::Open)?;
        let mut stream = Layer::open(blob, &self.budget).map_err(UnpackError::Archive)?;
        let mut touched = HashSet::new();
        {
            let mut archive = tar::Archive::new(&mut stream);
            let mut entries = Entries::of(&mut archive).map_err(UnpackError::Archive)?;
            while let Some(entry) = entries.next()? {
                self.entries += 1;
                if self.entries > self.limits.entries {
                    return Err(UnpackError::TooLarge { limit: format!("{} entries", self.limits.entries) });
                }
                self.entry(entry, &mut touched)?;
            }
        }
        let actual = stream.finish().map_err(UnpackError::Archive)?;
        if actual != expected {
            return Err(UnpackError::Digest { actual, expected });
        }
        Ok(())
    }

    /// Takes one entry. `touched` is what this layer has made so far, with the directories that lead there: whiteouts
    /// hide only what layers before it brought.
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>, touched: &mut HashSet<PathBuf>) -> Result<(), UnpackError> {
        let path = entry.path.clone();
        let at = |problem| UnpackError::Path { path: lossless(&path), problem };
        let name = path.rsplit(|&byte| byte == b'/').find(|part| !part.is_empty()).unwrap_or_default();
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&path, name, touched);
        }
        let Some(place) = self.tree.place(&path, true).map_err(at)? else { return Ok(()) };
        let failed = |source| UnpackError::Write { path: place.host.clone(), source };
        match entry.kind {
            EntryType::Directory => {
                self.wasm.remove(&place.path);
                self.tree.directory(&place, entry.mode).map_err(failed)?;
            }
            EntryType::Regular | EntryType::Continuous => {
                self.forget(&place);
                let file = self.tree.file(&place, entry.mode).map_err(failed)?;
                if let Some(digest) = copy(&mut entry, file, &place)? {
                    self.wasm.insert(place.path.clone(), digest);
                }
            }
            EntryType::Symlink => {
                self.forget(&place);
                self.tree.symlink(&place, &entry.link).map_err(failed)?;
            }
            EntryType::Link => {
                let missing = || UnpackError::HardLink { path: lossless(&path), target: lossless(&entry.link) };
                let original = self.tree.place(&entry.link, false).map_err(at)?.ok_or_else(missing)?;
                let digest = self.wasm.get(&original.path).copied();
                if !original.host.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
                    return Err(missing());
                }
                self.tree.hard_link(&place, &original).map_err(failed)?;
                if original != place {
                    self.forget(&place);
                    self.wasm.extend(digest.map(|digest| (place.path.clone(), digest)));
                }
            }
            // Devices and pipes: a guest cannot open them, and the node must not.
            other => {
                tracing::debug!(path = %lossless(&path).display(), kind = ?other, "an entry that is no file is left out");
                return Ok(());
            }
        }
        let ancestors = place.path.ancestors().filter(|path| !path.as_os_str().is_empty());
        touched.extend(ancestors.map(Path::to_owned));
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8], name: &[u8], touched: &HashSet<PathBuf>) -> Result<(), UnpackError> {
        let at = |problem| UnpackError::Path { path: lossless(path), problem };
        let directory = &path[..path.len() - trailing(path, name)];
        if name == OPAQUE {
            let place = match self.tree.place(directory, false).map_err(at)? {
                Some(place) => place,
                None if lossless(directory).components().next().is_none() => self.tree.root(),
                None => return Ok(()),
            };
            return self.hide_below(&place, touched);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Whiteout { path: lossless(path) });
        }
        match self.tree.place(&[directory, hidden].concat(), false).map_err(at)? {
            Some(place) => self.hide(&place, touched),
            None => Ok(()),
        }
    }

    /// Removes what layers before this one put there.
    fn hide(&mut self, place: &Place, touched: &HashSet<PathBuf>) -> Result<(), UnpackError> {
        if touched.contains(&place.path) {
            return self.hide_below(place, touched);
        }
        self.forget(place);
        self.tree.remove(place).map_err(|source| UnpackError::Write { path: place.host.clone(), source })
    }

    fn hide_below(&mut self, directory: &Place, touched: &HashSet<PathBuf>) -> Result<(), UnpackError> {
        if !directory.host.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            return Ok(());
        }
        let failed = |source| UnpackError::Write { path: directory.host.clone(), source };
        for place in self.tree.list(directory).map_err(failed)? {
            self.hide(&place, touched)?;
        }
        Ok(())
    }

    /// No wasm file is there, or below there, any more.
    fn forget(&mut self, place: &Place) {
        // What is below a path comes right after it.
        let below = self.wasm.range(place.path.clone()..).take_while(|(path, _)| path.starts_with(&place.path));
        let below: Vec<PathBuf> = below.map(|(path, _)| path.clone()).collect();
        for path in below {
            self.wasm.remove(&path);
        }
    }
}

/// Copies an entry's content, and gives its digest if it is wasm.
fn copy<R: Read>(entry: &mut Entry<'_, R>, mut file: File, place: &Place) -> Result<Option<Digest>, UnpackError> {
    let failed = |source| UnpackError::Write { path: place.host.clone(), source };
    let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(entry.size).unwrap_or(CHUNK_BYTES)).max(1)];
    let mut begin: Vec<u8> = Vec::with_capacity(WASM_MAGIC.len());
    let mut hasher: Option<Sha256> = None;
    let mut written = 0;
    loop {
        let count = entry.content.read(&mut chunk).map_err(UnpackError::Archive)?;
        if count == 0 {
            break;
        }
        let chunk = &chunk[..count];
        if begin.len() < WASM_MAGIC.len() {
            begin.extend(chunk.iter().take(WASM_MAGIC.len() - begin.len()));
            if begin == WASM_MAGIC {
                // What came before this chunk is the beginning of the magic number.
                let before = &WASM_MAGIC[..usize::try_from(written).unwrap_or(0)];
                hasher = Some(Sha256::new_with_prefix(before));
            }
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(chunk);
        }
        file.write_all(chunk).map_err(failed)?;
        written += count as u64;
    }
    if written != entry.size {
        let broken = io::Error::new(io::ErrorKind::UnexpectedEof, "it breaks off within a file");
        return Err(UnpackError::Archive(broken));
    }
    // A time that no clock of this system can show stays that of the unpacking.
    if let Some(modified) = UNIX_EPOCH.checked_add(Duration::from_secs(entry.modified)) {
        let _unsettable = file.set_times(FileTimes::new().set_modified(modified));
    }
    Ok(hasher.map(Digest::from_hasher))
}

/// How many bytes of `path` its last name takes, with slashes behind it.
fn trailing(path: &[u8], name: &[u8]) -> usize {
    name.len() + path.iter().rev().take_while(|&&byte| byte == b'/').count()
}

fn lossless(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

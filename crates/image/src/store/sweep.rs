//! What crashes left behind: found and removed when the store is opened.
//!
//! Files half written and content that never became part of an image go once they are a day old, as a pull in another
//! process may still need them. A directory in the making is locked by its maker, so one that is not goes at once.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DIRECTORY_MODE, Store, StoreError, at, remove_file};
use crate::digest::Digest;
use crate::durable;

/// Leftovers younger than this may belong to a pull that is still running in another process.
pub(super) const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory in the making. Dropped, it is removed with all that is in it.
pub(crate) struct Making {
    path: PathBuf,
    /// Locked, so that nobody sweeps it away.
    _lock: File,
}

impl Making {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "unfinished files are left, to be swept at the next start");
            }
            _ => {}
        }
    }
}

impl Store {
    /// A new directory to unpack files in.
    pub(crate) fn make_directory(&self) -> Result<Making, StoreError> {
        let directory = self.ingest_directory();
        // Whoever sweeps holds this lock, and so never sees the directory before its own is held.
        let _lock = self.lock()?;
        let path = directory.join(format!("{}{:016x}", durable::UNFINISHED, rand::random::<u64>()));
        DirBuilder::new().mode(DIRECTORY_MODE).create(&path).map_err(|source| at("create", &path, source))?;
        let lock = File::open(&path).and_then(|lock| lock.lock().map(|()| lock));
        Ok(Making { _lock: lock.map_err(|source| at("lock", &path, source))?, path })
    }

    /// Gives the files of a chain of layers their name. Another process may have been first; then they are here as well.
    pub(crate) fn keep_rootfs(&self, making: &Making, chain: &Digest) -> Result<(), StoreError> {
        let name = self.chain_path(chain);
        match fs::rename(&making.path, &name) {
            Ok(()) => durable::sync_directory(&self.chains()).map_err(|source| at("keep", &name, source)),
            Err(_) if self.contains_rootfs(chain) => Ok(()),
            Err(source) => Err(at("keep", &name, source)),
        }
    }

    /// Takes the files of a chain of layers out of the way, for removal.
    pub(super) fn retire(&self, chain: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let name = self.chain_path(chain);
        let retired = self.ingest_directory().join(format!("{}{:016x}", durable::UNFINISHED, rand::random::<u64>()));
        match fs::rename(&name, &retired) {
            Ok(()) => Ok(Some(retired)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(at("remove", &name, source)),
        }
    }

    /// Removes what earlier processes left unfinished, and content that never became part of an image.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let table = self.table()?;
        let unfinished = |name: &str| name.starts_with(durable::UNFINISHED);
        let digest = |name: &str| format!("sha256:{name}").parse().ok();
        sweep_directory(&self.0.root, unfinished)?;
        sweep_directory(&self.ingest_directory(), unfinished)?;
        sweep_directory(&self.blobs(), |name| digest(name).is_some_and(|blob| !table.needs(&blob)))?;
        sweep_directory(&self.chains(), |name| digest(name).is_some_and(|chain| !table.needs_rootfs(&chain)))
    }
}

fn sweep_directory(directory: &Path, is_leftover: impl Fn(&str) -> bool) -> Result<(), StoreError> {
    for entry in fs::read_dir(directory).map_err(|source| at("read", directory, source))? {
        let entry = entry.map_err(|source| at("read", directory, source))?;
        if !entry.file_name().to_str().is_some_and(&is_leftover) {
            continue;
        }
        let path = entry.path();
        // Gone meanwhile, or dated in the future: not ours to remove.
        let Ok(metadata) = entry.metadata() else { continue };
        let old = metadata.modified().is_ok_and(|it| it.elapsed().is_ok_and(|age| age > LEFTOVER_AGE));
        let in_the_making = entry.file_name().to_string_lossy().starts_with(durable::UNFINISHED);
        if metadata.is_dir() && (old || in_the_making && is_abandoned(&path)) {
            tracing::debug!(path = %path.display(), "removing files that no image needs");
            // The next start tries again; until then it costs room and nothing else.
            if let Err(error) = remove_directory(&path) {
                tracing::warn!(%error, "files that no image needs are left");
            }
        } else if !metadata.is_dir() && old {
            tracing::debug!(path = %path.display(), "removing a leftover of an unfinished pull");
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes a directory that has no name any more; another process may be at it, too.
pub(super) fn remove_directory(directory: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", directory, error)),
        _ => Ok(()),
    }
}

/// Whether nobody holds the lock of a directory in the making.
fn is_abandoned(directory: &Path) -> bool {
    File::open(directory).is_ok_and(|directory| directory.try_lock().is_ok())
}

//! Leases: an image that somebody uses is not removed, by no process.
//!
//! A lease is a shared lock on a file of the image's ID, which the system gives back when its holder lets go or dies.
//! Whoever removes an image needs the file for himself.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use super::{FILE_MODE, Image, ImageId, Store, StoreError, at, remove_file};

/// Keeps an image from being removed for as long as any clone of it is held.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The lock goes with the last of them.
    _file: Arc<File>,
}

/// A use of nobody's: its file goes with the image.
pub(super) struct Unused {
    path: std::path::PathBuf,
    _file: File,
}

impl Drop for Unused {
    fn drop(&mut self) {
        // Left behind, it is one empty file that the next removal of the image takes.
        let _left = remove_file(&self.path);
    }
}

impl Store {
    /// Takes a lease on an image; `None` if it is not in the store any more.
    ///
    /// # Errors
    /// An unreadable table, or a file that cannot be made or locked.
    pub fn lease(&self, image: &Image) -> Result<Option<Lease>, StoreError> {
        loop {
            let (path, file) = self.use_file(image.id)?;
            file.lock_shared().map_err(|source| at("lock", &path, source))?;
            // A removal may have come between the opening and the lock: then the file is another's, or nobody's.
            let locked = file.metadata().map_err(|source| at("read", &path, source))?;
            match fs::metadata(&path) {
                Ok(named) if named.ino() == locked.ino() => {}
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(at("read", &path, source)),
            }
            let still_there = self.find_by_id(image.id)?.is_some_and(|found| found.content == image.content);
            return Ok(still_there.then(|| Lease { _file: Arc::new(file) }));
        }
    }

    /// Makes sure that nobody uses the image, for as long as the result is held.
    pub(super) fn unused(&self, id: ImageId) -> Result<Unused, StoreError> {
        let (path, file) = self.use_file(id)?;
        match file.try_lock() {
            Ok(()) => Ok(Unused { path, _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(id)),
            Err(TryLockError::Error(source)) => Err(at("lock", &path, source)),
        }
    }

    fn use_file(&self, id: ImageId) -> Result<(std::path::PathBuf, File), StoreError> {
        let path = self.uses().join(id.0.hex());
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(&path);
        let file = file.map_err(|source| at("open", &path, source))?;
        Ok((path, file))
    }
}

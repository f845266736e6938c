//! What the store occupies on disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::{Store, StoreError, at};
use crate::rootfs;

/// What the store occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Bytes allocated on disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Store {
    /// Walks the store and adds up what it occupies. Unpacked files, which are many and never change, were counted when
    /// they were unpacked.
    ///
    /// # Errors
    /// A directory that cannot be read. Files that go away meanwhile are not counted.
    pub fn usage(&self) -> Result<FsUsage, StoreError> {
        let mut usage = FsUsage::default();
        let chains = self.chains();
        let mut directories = vec![self.0.root.clone()];
        while let Some(directory) = directories.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(at("read", &directory, source)),
            };
            for entry in entries {
                let entry = entry.map_err(|source| at("read", &directory, source))?;
                let metadata = match entry.metadata() {
                    Ok(metadata) => metadata,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => return Err(at("read", &entry.path(), source)),
                };
                usage.inodes += 1;
                // POSIX counts blocks of 512 bytes, whatever the file system's own are.
                usage.bytes += metadata.blocks() * 512;
                if directory == chains
                    && let Ok(index) = rootfs::Index::read(&entry.path())
                {
                    usage.inodes += index.inodes;
                    usage.bytes += index.bytes;
                } else if metadata.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        Ok(usage)
    }
}

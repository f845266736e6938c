//! The content store: verified blobs and finished images come in, paths to wasm files go out.
//!
//! ```text
//! <root>/lock               held exclusively while the table changes, by any process
//! <root>/images.json        the table of images, replaced as a whole
//! <root>/blobs/sha256/<hex> content under its digest, never changed once there
//! <root>/ingest/            blobs on their way in
//! ```
//! A kill at any moment leaves whole blobs and a whole table; what was unfinished is swept at a later open. No blob is
//! believed before its digest was computed here. The store never fetches anything. Its methods do short file I/O on
//! the calling thread.

mod ingest;
mod table;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use self::ingest::{Ingest, IngestError};
pub(crate) use self::table::Record;
use self::table::Table;
pub use self::table::{ImageConfig, ImageId};
use crate::digest::Digest;
use crate::durable;
use crate::reference::{Reference, ReferenceError};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Leftovers younger than this may belong to a pull that is still running in another process.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the store failed. The kubelet's reason depends on what was asked of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store.
    #[error("image store: cannot {step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A blob on its way in.
    #[error("image store: cannot write a blob")]
    Write(#[source] Arc<io::Error>),
    /// `images.json` is damaged.
    #[error("image store: {} is not readable; remove it to start over with an empty store", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Where it breaks off.
        source: Arc<serde_json::Error>,
    },
    /// `images.json` is of another version of this program.
    #[error("image store: {} has version {found}, this program reads version {}", path.display(), table::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u32,
    },
    /// A blob was removed while its image was being pulled.
    #[error("image store: blob {0} was removed meanwhile")]
    BlobGone(Digest),
    /// Neither an image ID nor a reference.
    #[error(transparent)]
    Name(#[from] ReferenceError),
}

impl StoreError {
    /// A blob that was here and cannot be read.
    pub(crate) fn unreadable(blob: Digest, path: &Path, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::BlobGone(blob) } else { at("read", path, error) }
    }
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// CRI's image ID and image ref: `sha256:…`.
    pub id: ImageId,
    /// Tags that stand for it now (CRI's `repo_tags`), sorted.
    pub references: Vec<Reference>,
    /// `repository@digest` by which it was pulled (CRI's `repo_digests`), sorted.
    pub digests: Vec<Reference>,
    /// Bytes of all its blobs.
    pub size_bytes: u64,
    /// Its wasm binary.
    pub wasm: Wasm,
    /// What its configuration says about running it.
    pub config: ImageConfig,
    /// When it was last pulled, to the second.
    pub pulled_at: SystemTime,
}

/// A verified wasm binary on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wasm {
    /// A file that never changes; it may be unlinked when the image is removed.
    pub path: PathBuf,
    /// Its digest, a key for whatever is compiled from it.
    pub digest: Digest,
    /// The layer's media type.
    pub media_type: String,
}

/// What the store occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Bytes allocated on disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// A content store under one directory. Clones share it, and so may processes.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    root: PathBuf,
    /// The table as last read, until the file changes.
    read: Mutex<Option<(Stamp, Arc<Table>)>>,
}

/// Tells one version of the table's file from the next: every write is a new inode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Store {
    /// Opens the store under `root`, makes it where there is none, and sweeps leftovers older than a day.
    ///
    /// # Errors
    /// Directories that cannot be made or read, and a table that is damaged or of another version.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self(Arc::new(Inner { root: root.into(), read: Mutex::new(None) }));
        for directory in [store.blobs(), store.ingest_directory()] {
            DirBuilder::new()
                .recursive(true)
                .mode(DIRECTORY_MODE)
                .create(&directory)
                .map_err(|source| at("create", &directory, source))?;
        }
        store.sweep()?;
        Ok(store)
    }

    /// The directory the store is in; CRI's mountpoint of the image file system.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// The image a reference stands for: by its digest if it has one, else by its tag.
    ///
    /// # Errors
    /// An unreadable table.
    pub fn find(&self, reference: &Reference) -> Result<Option<Image>, StoreError> {
        Ok(self.table()?.find(reference).and_then(|record| self.image(record)))
    }

    /// The image with this ID.
    ///
    /// # Errors
    /// An unreadable table.
    pub fn find_by_id(&self, id: ImageId) -> Result<Option<Image>, StoreError> {
        Ok(self.table()?.find_by_id(id).and_then(|record| self.image(record)))
    }

    /// The image CRI's `ImageSpec.image` names: an image ID, with or without `sha256:`, or a reference.
    ///
    /// # Errors
    /// [`StoreError::Name`] for a text that is neither, and an unreadable table.
    pub fn resolve(&self, image: &str) -> Result<Option<Image>, StoreError> {
        match image.parse() {
            Ok(id) => self.find_by_id(id),
            Err(_) => self.find(&Reference::parse(image)?),
        }
    }

    /// All images, sorted by ID. An image whose wasm file is missing or cut short is left out, so that it is pulled again.
    ///
    /// # Errors
    /// An unreadable table.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let mut images: Vec<Image> = self.table()?.images.iter().filter_map(|record| self.image(record)).collect();
        images.sort_by_key(|image| image.id);
        Ok(images)
    }

    /// Removes an image with all its names, and the blobs no other image needs; `false` if there was no such image.
    ///
    /// Open or mapped files stay usable until they are closed.
    ///
    /// # Errors
    /// An unreadable table, or one that cannot be written; then the image stays.
    pub fn remove(&self, id: ImageId) -> Result<bool, StoreError> {
        let _lock = self.lock()?;
        let mut table = Table::clone(&*self.table()?);
        let Some(unneeded) = table.remove(id) else {
            return Ok(false);
        };
        self.write_table(&table)?;
        for blob in unneeded {
            remove_file(&self.blob_path(&blob))?;
        }
        Ok(true)
    }

    /// Walks the store and adds up what it occupies.
    ///
    /// # Errors
    /// A directory that cannot be read. Files that go away meanwhile are not counted.
    pub fn usage(&self) -> Result<FsUsage, StoreError> {
        let mut usage = FsUsage::default();
        let mut directories = vec![self.0.root.clone()];
        while let Some(directory) = directories.pop() {
            let entries = fs::read_dir(&directory).map_err(|source| at("read", &directory, source))?;
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
                if metadata.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        Ok(usage)
    }

    /// Whether a blob of this digest and size is here. The digest was checked when it came in.
    pub(crate) fn contains(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.blob_path(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Where the blob of this digest is, or would be.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Starts to take a blob in.
    pub(crate) fn ingest(&self) -> Result<Ingest, StoreError> {
        let directory = self.ingest_directory();
        Ingest::begin(&directory, &self.blobs()).map_err(|source| at("create a file in", &directory, source))
    }

    /// Enters an image whose blobs are all here.
    ///
    /// # Errors
    /// [`StoreError::BlobGone`] when one was removed since it was seen; fetch it again and commit again.
    pub(crate) fn commit(&self, record: Record) -> Result<Image, StoreError> {
        let _lock = self.lock()?;
        if let Some((gone, _)) = record.blobs.iter().find(|(digest, size)| !self.contains(digest, **size)) {
            return Err(StoreError::BlobGone(*gone));
        }
        let mut table = Table::clone(&*self.table()?);
        let wasm = record.wasm;
        let entered = table.insert(record).clone();
        self.write_table(&table)?;
        self.image(&entered).ok_or(StoreError::BlobGone(wasm))
    }

    fn image(&self, record: &Record) -> Option<Image> {
        let size = *record.blobs.get(&record.wasm)?;
        if !self.contains(&record.wasm, size) {
            tracing::warn!(image = %record.id, wasm = %record.wasm, "the image's wasm file is missing or cut short");
            return None;
        }
        Some(Image {
            id: record.id,
            references: record.tags.iter().cloned().collect(),
            digests: record.digests.iter().cloned().collect(),
            size_bytes: record.blobs.values().sum(),
            wasm: Wasm {
                path: self.blob_path(&record.wasm),
                digest: record.wasm,
                media_type: record.media_type.clone(),
            },
            config: record.config.clone(),
            pulled_at: UNIX_EPOCH + Duration::from_secs(record.pulled_at),
        })
    }

    fn table(&self) -> Result<Arc<Table>, StoreError> {
        let path = self.table_path();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(source) => return Err(at("open", &path, source)),
        };
        let metadata = file.metadata().map_err(|source| at("read", &path, source))?;
        let stamp =
            Stamp { inode: metadata.ino(), size: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) };
        let mut read = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = read.as_ref().filter(|(seen, _)| *seen == stamp) {
            return Ok(table.clone());
        }
        let mut content = Vec::new();
        io::Read::read_to_end(&mut file, &mut content).map_err(|source| at("read", &path, source))?;
        let damaged = |error| StoreError::Table { path: path.clone(), source: Arc::new(error) };
        let version: Versioned = serde_json::from_slice(&content).map_err(damaged)?;
        if version.version != table::VERSION {
            return Err(StoreError::Version { path, found: version.version });
        }
        let table: Arc<Table> = Arc::new(serde_json::from_slice(&content).map_err(damaged)?);
        *read = Some((stamp, table.clone()));
        Ok(table)
    }

    fn write_table(&self, table: &Table) -> Result<(), StoreError> {
        let path = self.table_path();
        let content = serde_json::to_vec(table)
            .map_err(|error| StoreError::Table { path: path.clone(), source: Arc::new(error) })?;
        durable::write(&path, &content, FILE_MODE).map_err(|source| at("write", &path, source))
    }

    /// Waits for the store's lock; it is let go when the file is dropped, or when its process dies.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.0.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|source| at("open", &path, source))?;
        file.lock().map_err(|source| at("lock", &path, source))?;
        Ok(file)
    }

    /// Removes unfinished files, and blobs that never became part of an image, once they are a day old.
    fn sweep(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let table = self.table()?;
        let unfinished = |name: &str| name.starts_with(durable::UNFINISHED);
        sweep_directory(&self.0.root, unfinished)?;
        sweep_directory(&self.ingest_directory(), unfinished)?;
        sweep_directory(&self.blobs(), |name| {
            format!("sha256:{name}").parse().is_ok_and(|digest| !table.needs(&digest))
        })
    }

    fn blobs(&self) -> PathBuf {
        self.0.root.join("blobs/sha256")
    }

    fn ingest_directory(&self) -> PathBuf {
        self.0.root.join("ingest")
    }

    fn table_path(&self) -> PathBuf {
        self.0.root.join("images.json")
    }
}

#[derive(serde::Deserialize)]
struct Versioned {
    version: u32,
}

fn sweep_directory(directory: &Path, is_leftover: impl Fn(&str) -> bool) -> Result<(), StoreError> {
    for entry in fs::read_dir(directory).map_err(|source| at("read", directory, source))? {
        let entry = entry.map_err(|source| at("read", directory, source))?;
        if !entry.file_name().to_str().is_some_and(&is_leftover) {
            continue;
        }
        // Gone meanwhile, or dated in the future: not ours to remove.
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|it| it.elapsed().is_ok_and(|age| age > LEFTOVER_AGE));
        if old {
            tracing::debug!(path = %entry.path().display(), "removing a leftover of an unfinished pull");
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path, error)),
        _ => Ok(()),
    }
}

fn at(step: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { step, path: path.to_owned(), source: Arc::new(source) }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

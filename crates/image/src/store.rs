//! The content store: verified blobs and finished images come in, paths to files go out.
//!
//! ```text
//! <root>/lock                held exclusively while the table changes, by any process
//! <root>/images.json         the table of images, replaced as a whole
//! <root>/blobs/sha256/<hex>  content under its digest, never changed once there
//! <root>/rootfs/sha256/<hex> the files of a chain of layers, unpacked once, never changed once there
//! <root>/ingest/             blobs and files on their way in
//! <root>/uses/<hex>          locked, shared, by whoever uses the image with this ID
//! ```
//! A kill at any moment leaves whole content and a whole table; what was unfinished is swept at a later open. No blob is
//! believed before its digest was computed here. The store never fetches anything. Its methods do file I/O on the
//! calling thread: short, but for the removal of many files.

mod ingest;
mod lease;
mod sweep;
mod table;
mod usage;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use self::ingest::{Ingest, IngestError};
pub use self::lease::Lease;
use self::table::Table;
pub use self::table::{ImageConfig, ImageId};
pub(crate) use self::table::{Made, Record};
pub use self::usage::FsUsage;
use crate::content::{Blob, Content, Spin, Wasm};
use crate::digest::Digest;
use crate::durable;
use crate::manifest::LOCKED_APP;
use crate::reference::{Reference, ReferenceError};
use crate::rootfs::{self, Rootfs};
use crate::trust::Verification;

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

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
    /// A blob, or the files of a chain of layers, were removed while their image was being pulled.
    #[error("image store: {0} was removed meanwhile")]
    BlobGone(Digest),
    /// The image is used, here or by another process.
    #[error("image {0} is in use")]
    InUse(ImageId),
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
    /// Bytes of all its blobs, and of its files where they are unpacked.
    pub size_bytes: u64,
    /// What it is made of.
    pub content: Content,
    /// What its configuration says about running it.
    pub config: ImageConfig,
    /// Signatures that were found to be right, by which policy, the last one first.
    pub verified: Vec<Verification>,
    /// When it was last pulled, to the second.
    pub pulled_at: SystemTime,
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
        for directory in [store.blobs(), store.chains(), store.ingest_directory(), store.uses()] {
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

    /// All images, sorted by ID. An image whose content is missing or cut short is left out, so that it is pulled again.
    ///
    /// # Errors
    /// An unreadable table.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let mut images: Vec<Image> = self.table()?.images.iter().filter_map(|record| self.image(record)).collect();
        images.sort_by_key(|image| image.id);
        Ok(images)
    }

    /// Removes an image with all its names, and the blobs and files no other image needs; `false` if there was no such
    /// image.
    ///
    /// Open or mapped files stay usable until they are closed.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while somebody holds a [`Lease`]; an unreadable table, or one that cannot be written. Then the
    /// image stays.
    pub fn remove(&self, id: ImageId) -> Result<bool, StoreError> {
        let lock = self.lock()?;
        let mut table = Table::clone(&*self.table()?);
        let Some(unneeded) = table.remove(id) else {
            return Ok(false);
        };
        let _unused = self.unused(id)?;
        self.write_table(&table)?;
        for blob in unneeded.blobs {
            remove_file(&self.blob_path(&blob))?;
        }
        // Out of the way under the lock; what takes long comes after it.
        let files = unneeded.rootfs.map(|chain| self.retire(&chain)).transpose()?;
        drop(lock);
        if let Some(retired) = files.flatten() {
            sweep::remove_directory(&retired)?;
        }
        Ok(true)
    }

    /// Whether a blob of this digest and size is here. The digest was checked when it came in.
    pub(crate) fn contains(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.blob_path(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Where the blob of this digest is, or would be.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Whether the files of a chain of layers are here as a whole.
    pub(crate) fn contains_rootfs(&self, chain: &Digest) -> bool {
        rootfs::Index::is_in(&self.chain_path(chain))
    }

    /// Where the files of this chain of layers are, or would be.
    pub(crate) fn chain_path(&self, chain: &Digest) -> PathBuf {
        self.chains().join(chain.hex())
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
        if let Made::Rootfs { chain, .. } = &record.made
            && !self.contains_rootfs(chain)
        {
            return Err(StoreError::BlobGone(*chain));
        }
        let mut table = Table::clone(&*self.table()?);
        let id = record.id;
        let entered = table.insert(record).clone();
        self.write_table(&table)?;
        self.image(&entered).ok_or(StoreError::BlobGone(id.0))
    }

    /// Remembers that a signature of an image is right.
    pub(crate) fn verified(&self, id: ImageId, verification: Verification) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut table = Table::clone(&*self.table()?);
        if table.verified(id, verification) { self.write_table(&table) } else { Ok(()) }
    }

    fn image(&self, record: &Record) -> Option<Image> {
        let Some(content) = self.content(record) else {
            tracing::warn!(image = %record.id, "the image's content is missing or cut short");
            return None;
        };
        let unpacked_bytes = match &content {
            Content::Rootfs(rootfs) => rootfs.unpacked_bytes(),
            Content::Wasm(_) | Content::Spin(_) => 0,
        };
        Some(Image {
            id: record.id,
            references: record.tags.iter().cloned().collect(),
            digests: record.digests.iter().cloned().collect(),
            size_bytes: record.blobs.values().sum::<u64>().saturating_add(unpacked_bytes),
            content,
            config: record.config.clone(),
            verified: record.verified.clone(),
            pulled_at: UNIX_EPOCH + Duration::from_secs(record.pulled_at),
        })
    }

    /// What the image is made of, if it is all there.
    fn content(&self, record: &Record) -> Option<Content> {
        let blob = |digest: &Digest, media_type: &str| {
            let size_bytes = *record.blobs.get(digest)?;
            let path = self.blob_path(digest);
            let blob = Blob { path, digest: *digest, media_type: media_type.to_owned(), size_bytes };
            self.contains(digest, size_bytes).then_some(blob)
        };
        Some(match &record.made {
            Made::Wasm { digest, media_type } => {
                let Blob { path, digest, media_type, .. } = blob(digest, media_type)?;
                Content::Wasm(Wasm { path, digest, media_type })
            }
            Made::Rootfs { chain, unpacked_bytes } => {
                let rootfs = Rootfs::new(self.chain_path(chain), *chain, *unpacked_bytes);
                Content::Rootfs(self.contains_rootfs(chain).then_some(rootfs)?)
            }
            Made::Spin { name, locked_app, layers } => Content::Spin(Spin {
                name: name.clone(),
                locked_app: blob(locked_app, LOCKED_APP)?,
                layers: layers.iter().map(|(digest, media_type)| blob(digest, media_type)).collect::<Option<_>>()?,
            }),
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
        let table: Arc<Table> = match version.version {
            table::VERSION => Arc::new(serde_json::from_slice(&content).map_err(damaged)?),
            ..table::VERSION => Arc::default(),
            found => return Err(StoreError::Version { path, found }),
        };
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

    fn blobs(&self) -> PathBuf {
        self.0.root.join("blobs/sha256")
    }

    fn chains(&self) -> PathBuf {
        self.0.root.join("rootfs/sha256")
    }

    fn uses(&self) -> PathBuf {
        self.0.root.join("uses")
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

//! One blob on its way into the store: chunks come in, a file under its digest goes out.
//!
//! The digest is computed while the bytes pass, and nothing gets its final name before digest and size are right and
//! the file is on disk. Dropping an unfinished ingest removes its file.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::digest::Digest;
use crate::durable;
use crate::manifest::Descriptor;

const BUFFER_BYTES: usize = 256 * 1024;

/// A blob being written.
pub(crate) struct Ingest {
    file: BufWriter<File>,
    temporary: tempfile::TempPath,
    blobs: PathBuf,
    hasher: Sha256,
    written_bytes: u64,
}

/// Why a blob did not get into the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    #[error("its content has the digest {actual}")]
    Digest { actual: Digest },
    #[error("its content has {actual} bytes where {expected} were announced")]
    Size { actual: u64, expected: u64 },
    #[error("cannot write it")]
    Io(#[from] io::Error),
}

impl Ingest {
    /// Starts a blob with a temporary file in `unfinished`, which is on the file system of `blobs`.
    pub(super) fn begin(unfinished: &Path, blobs: &Path) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .prefix(durable::UNFINISHED)
            .permissions(Permissions::from_mode(super::FILE_MODE))
            .tempfile_in(unfinished)?;
        let (file, temporary) = file.into_parts();
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, File::from_std(file)),
            temporary,
            blobs: blobs.to_owned(),
            hasher: Sha256::new(),
            written_bytes: 0,
        })
    }

    /// Takes the next bytes.
    pub(crate) async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.hasher.update(chunk);
        self.written_bytes += chunk.len() as u64;
        self.file.write_all(chunk).await
    }

    /// How many bytes were taken.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Checks the whole and gives it its name.
    pub(crate) async fn finish(mut self, expected: &Descriptor) -> Result<(), IngestError> {
        if self.written_bytes != expected.size {
            return Err(IngestError::Size { actual: self.written_bytes, expected: expected.size });
        }
        let actual = Digest::from_hasher(self.hasher);
        if actual != expected.digest {
            return Err(IngestError::Digest { actual });
        }
        self.file.flush().await?;
        self.file.get_ref().sync_all().await?;
        let (temporary, blobs) = (self.temporary, self.blobs);
        let name = blobs.join(actual.hex());
        let persist = move || {
            temporary.persist(name).map_err(|error| error.error)?;
            durable::sync_directory(&blobs)
        };
        Ok(tokio::task::spawn_blocking(persist).await.map_err(io::Error::other)??)
    }
}

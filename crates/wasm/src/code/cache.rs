//! Compiled code on disk: bytes and a name go in, a [`Verified`] file comes out, or none.
//!
//! Beside each `NAME.cwasm` stands `NAME.cwasm.mac`, a keyed hash (HMAC-SHA-256) over the name and the bytes; the key
//! is this cache's own, 32 random bytes in `key` with mode 0600. A file whose hash does not match (damaged, made
//! elsewhere, or under another's name) is deleted and never loaded. A file is written once, read-only, as `new-…`, and
//! renamed into place: never changed, because it is mapped into running guests. While it is written it is locked, so that
//! one whose writer was killed is known, and removed.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::CodeError;
use crate::engine::EngineError;

const KEY: &str = "key";
const KEY_BYTES: usize = 32;
/// Begins the names of files that are being written.
const UNFINISHED: &str = "new-";
/// Of code and of its hashes.
const CODE_MODE: u32 = 0o400;
const KEY_MODE: u32 = 0o600;
/// SHA-256 works on blocks of this size, which HMAC pads its key to.
const BLOCK_BYTES: usize = 64;

type Mac = [u8; 32];

/// A directory of compiled code.
pub(super) struct Cache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
}

/// What a cache holds.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Digests of wasm files, with the names of the files that were made from them.
    pub(super) files: Vec<(String, String)>,
    /// Allocated on disk.
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

/// An open file whose bytes are known to be ours.
#[derive(Debug)]
pub(super) struct Verified(File);

impl Verified {
    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

/// A file of the cache that is being written. Dropped before it is kept, it was never there.
pub(super) struct Draft {
    cache: Arc<Cache>,
    mac: Sha256,
    mac_path: PathBuf,
    path: PathBuf,
    new: NewFile,
}

impl Draft {
    /// Writes all that there is to read, and says how many bytes it was.
    pub(super) fn write_from(&mut self, from: &mut impl Read) -> Result<u64, CodeError> {
        let failed = |source| CodeError::Cache { step: "store", path: self.path.clone(), source };
        let mut written = 0;
        let mut piece = vec![0; 64 << 10];
        loop {
            let length = from.read(&mut piece).map_err(failed)?;
            let Some(piece) = piece.get(..length).filter(|piece| !piece.is_empty()) else { return Ok(written) };
            self.new.file.write_all(piece).map_err(failed)?;
            self.mac.update(piece);
            written += length as u64;
        }
    }

    /// Puts it into its place.
    pub(super) fn keep(self) -> Result<Verified, CodeError> {
        let Self { cache, mac, mac_path, path, new } = self;
        let kept = (|| {
            // The hash first: should we die in between, the file without it was never there.
            let mut hash = NewFile::create(&cache.dir, CODE_MODE)?;
            hash.file.write_all(&cache.finish(mac))?;
            hash.rename(&mac_path)?;
            new.rename(&path)
        })();
        kept.map(Verified).map_err(|source| CodeError::Cache { step: "store", path, source })
    }
}

/// A file under a name of its own, locked, and removed again unless it is renamed.
struct NewFile {
    file: File,
    path: Option<PathBuf>,
}

impl NewFile {
    fn create(dir: &Path, mode: u32) -> io::Result<Self> {
        loop {
            let path = dir.join(format!("{UNFINISHED}{}", hex::encode(random::<8>()?)));
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            file.lock()?;
            // A sweep may have come between the two.
            if file.metadata()?.nlink() > 0 {
                return Ok(Self { file, path: Some(path) });
            }
        }
    }

    /// Gives it its name, and opens for reading what was written, whatever any name means by now.
    fn rename(mut self, name: &Path) -> io::Result<File> {
        self.file.sync_all()?;
        let Some(path) = self.path.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let written = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let renamed = written.and_then(|file| fs::rename(&path, name).map(|()| file));
        if renamed.is_err() {
            self.path = Some(path);
        }
        renamed
    }

    /// Gives it its name, unless there is another file of that name.
    fn link(self, name: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        match &self.path {
            Some(path) => fs::hard_link(path, name),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // A file left over takes room and is never read.
            let _ = fs::remove_file(path);
        }
    }
}

impl Cache {
    pub(super) fn open(dir: &Path) -> Result<Self, EngineError> {
        let failed = |source| EngineError::Cache { step: "use the key", path: dir.join(KEY), source };
        let key = key(dir).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), key })
    }

    /// The file of this name, if it is there and its hash matches.
    pub(super) fn verified(&self, name: &str) -> Result<Option<Verified>, CodeError> {
        let path = self.dir.join(name);
        let failed = |source| CodeError::Cache { step: "check", path: path.clone(), source };
        let Some(mut file) = optional(File::open(&path)).map_err(failed)? else { return Ok(None) };
        let expected = optional(fs::read(self.mac_path(name))).map_err(failed)?;
        let found = self.mac_of_file(name, &mut file).map_err(failed)?;
        if expected.is_some_and(|expected| same(&expected, &found)) {
            return Ok(Some(Verified(file)));
        }
        tracing::warn!("compiled code {} was not written by this node, or has changed: deleted", path.display());
        self.remove(name)?;
        Ok(None)
    }

    /// Begins a file that is to be kept under `name`, in place of what may be there.
    pub(super) fn draft(self: &Arc<Self>, name: &str) -> Result<Draft, CodeError> {
        let path = self.dir.join(name);
        let new = NewFile::create(&self.dir, CODE_MODE);
        let new = new.map_err(|source| CodeError::Cache { step: "store", path: path.clone(), source })?;
        Ok(Draft { cache: Arc::clone(self), mac: self.mac(name), mac_path: self.mac_path(name), path, new })
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), CodeError> {
        for path in [self.dir.join(name), self.mac_path(name)] {
            optional(fs::remove_file(&path)).map_err(|source| CodeError::Cache { step: "delete", path, source })?;
        }
        Ok(())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.dir
    }

    fn mac_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.mac"))
    }

    fn mac_of_file(&self, name: &str, file: &mut File) -> io::Result<Mac> {
        let mut mac = self.mac(name);
        io::copy(file, &mut mac)?;
        file.rewind()?;
        Ok(self.finish(mac))
    }

    fn mac(&self, name: &str) -> Sha256 {
        hmac_begin(&self.key, name)
    }

    fn finish(&self, inner: Sha256) -> Mac {
        hmac_end(&self.key, inner)
    }
}

/// What a directory of code keeps, by the digests in the files' names, and what all of it takes on disk.
pub(super) fn kept(dir: &Path) -> Result<Kept, CodeError> {
    let failed = |source| CodeError::Cache { step: "list", path: dir.to_owned(), source };
    let mut kept = Kept::default();
    let Some(entries) = optional(fs::read_dir(dir)).map_err(failed)? else { return Ok(kept) };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // Gone meanwhile: another process removed it.
        let Ok(metadata) = entry.metadata() else { continue };
        kept.inodes += 1;
        // POSIX counts blocks of 512 bytes, whatever the file system's own are.
        kept.bytes += metadata.blocks() * 512;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((digest, _)) = name.split_once('-').filter(|(digest, _)| super::is_sha256_hex(digest)) {
            kept.files.push((digest.to_owned(), name));
        }
    }
    Ok(kept)
}

/// Removes the files of a directory of code whose digests are not needed, asked for after the files were listed, and what
/// killed processes left unfinished. Guests that have one mapped keep it until they end.
pub(crate) fn discard<E: From<CodeError>>(
    dir: &Path,
    needed: impl FnOnce() -> Result<HashSet<String>, E>,
) -> Result<(), E> {
    sweep(dir)?;
    let kept = kept(dir)?;
    let needed = needed()?;
    for (_, file) in kept.files.into_iter().filter(|(digest, _)| !needed.contains(digest)) {
        tracing::debug!(file, "the code of no image any more is removed");
        let path = dir.join(file);
        optional(fs::remove_file(&path)).map_err(|source| CodeError::Cache { step: "delete", path, source })?;
    }
    Ok(())
}

/// Removes unfinished files that nobody writes to any more.
fn sweep(dir: &Path) -> Result<(), CodeError> {
    let failed = |source| CodeError::Cache { step: "list", path: dir.to_owned(), source };
    for entry in optional(fs::read_dir(dir)).map_err(failed)?.into_iter().flatten() {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            continue;
        }
        let path = entry.path();
        // The lock is held until the file is gone: whoever has just made it sees that, and makes another.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            tracing::debug!(path = %path.display(), "unfinished code of a process that is no more is removed");
            optional(fs::remove_file(&path)).map_err(|source| CodeError::Cache { step: "delete", path, source })?;
        }
    }
    Ok(())
}

/// The inner hash of HMAC, with the name and its end put before the bytes that follow.
fn hmac_begin(key: &[u8], name: &str) -> Sha256 {
    let mut inner = Sha256::new();
    inner.update(padded(key, 0x36));
    inner.update(name);
    inner.update([0]);
    inner
}

fn hmac_end(key: &[u8], inner: Sha256) -> Mac {
    let mut outer = Sha256::new();
    outer.update(padded(key, 0x5c));
    outer.update(inner.finalize());
    outer.finalize().into()
}

fn padded(key: &[u8], with: u8) -> [u8; BLOCK_BYTES] {
    let mut block = [with; BLOCK_BYTES];
    for (padded, key) in block.iter_mut().zip(key) {
        *padded ^= key;
    }
    block
}

/// Compares without saying where the difference is.
fn same(one: &[u8], other: &Mac) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// The key of a directory of code, made if there is none. One that others could read is replaced: all code is compiled
/// again.
fn key(dir: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = dir.join(KEY);
    if let Some(file) = optional(File::open(&path))? {
        let mut key = Vec::new();
        let private = file.metadata()?.mode().trailing_zeros() >= 6;
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key)?;
        match key.try_into() {
            Ok(key) if private => return Ok(key),
            _ => {
                tracing::warn!(
                    "the compile cache's key {} was damaged or readable by others: replaced",
                    path.display()
                );
                fs::remove_file(&path)?;
            }
        }
    }
    let key = random::<KEY_BYTES>()?;
    let mut new = NewFile::create(dir, KEY_MODE)?;
    new.file.write_all(&key)?;
    // Linked, not renamed: of two processes that start at one time, the first one's key is both's.
    match new.link(&path) {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self::key(dir),
        Err(error) => Err(error),
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &tempfile::TempDir) -> Arc<Cache> {
        Arc::new(Cache::open(dir.path()).unwrap())
    }

    fn store(cache: &Arc<Cache>, name: &str, mut bytes: &[u8]) {
        let mut draft = cache.draft(name).unwrap();
        draft.write_from(&mut bytes).unwrap();
        draft.keep().unwrap();
    }

    fn read(file: &Verified) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.file().try_clone().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Overwrites a file of the cache, which is read-only.
    fn tamper(path: &Path, bytes: &[u8]) {
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_was_stored_is_found_again_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        store(&open(&dir), "a.cwasm", b"code");
        let found = open(&dir).verified("a.cwasm").unwrap().unwrap();
        assert_eq!(read(&found), b"code");
        assert!(open(&dir).verified("b.cwasm").unwrap().is_none());
    }

    #[test]
    fn what_is_not_kept_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir);
        let mut draft = cache.draft("a.cwasm").unwrap();
        draft.write_from(&mut &b"half of the co"[..]).unwrap();
        drop(draft);
        assert!(cache.verified("a.cwasm").unwrap().is_none());
        assert_eq!(kept(cache.directory()).unwrap().inodes, 1, "the key alone");
    }

    #[test]
    fn what_a_killed_process_left_unfinished_goes_and_what_is_being_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir);
        let left = dir.path().join("new-0123456789abcdef");
        fs::write(&left, "half of the co").unwrap();
        let mut draft = cache.draft("a.cwasm").unwrap();
        draft.write_from(&mut &b"half"[..]).unwrap();
        discard(dir.path(), || Ok::<_, CodeError>(HashSet::new())).unwrap();
        assert!(!left.exists());
        draft.write_from(&mut &b" and half"[..]).unwrap();
        assert_eq!(read(&draft.keep().unwrap()), b"half and half");
        assert!(cache.verified("a.cwasm").unwrap().is_some());
        assert_eq!(kept(cache.directory()).unwrap().inodes, 3, "the key, the code and its hash");
    }

    #[test]
    fn a_changed_file_is_refused_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir);
        store(&cache, "a.cwasm", b"code");
        tamper(&dir.path().join("a.cwasm"), b"evil");
        assert!(cache.verified("a.cwasm").unwrap().is_none());
        assert!(!dir.path().join("a.cwasm").exists());
    }

    #[test]
    fn a_file_of_another_name_or_another_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let cache = open(&dir);
        store(&cache, "a.cwasm", b"code");
        for end in ["", ".mac"] {
            let from = dir.path().join(format!("a.cwasm{end}"));
            fs::copy(&from, dir.path().join(format!("b.cwasm{end}"))).unwrap();
            fs::copy(&from, other.path().join(format!("a.cwasm{end}"))).unwrap();
        }
        assert!(cache.verified("b.cwasm").unwrap().is_none());
        assert!(open(&other).verified("a.cwasm").unwrap().is_none());
        assert!(cache.verified("a.cwasm").unwrap().is_some());
    }

    #[test]
    fn a_file_without_its_hash_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir);
        store(&cache, "a.cwasm", b"code");
        fs::remove_file(dir.path().join("a.cwasm.mac")).unwrap();
        assert!(cache.verified("a.cwasm").unwrap().is_none());
    }

    #[test]
    fn a_key_that_others_can_read_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let before = key(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(key(dir.path()).unwrap(), before);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(key(dir.path()).unwrap(), before);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_keyed_hash_is_hmac_sha_256() {
        // printf 'what do ya want\0 for nothing?' | openssl dgst -sha256 -hmac Jefe
        const REFERENCE: &str = "cabaac5fb4a7102cd287cc98924c8a618112e35ac4016fa3e84e1eaf13e0ea8e";
        let mut inner = hmac_begin(b"Jefe", "what do ya want");
        inner.update(b" for nothing?");
        assert_eq!(hex::encode(hmac_end(b"Jefe", inner)), REFERENCE);
    }
}

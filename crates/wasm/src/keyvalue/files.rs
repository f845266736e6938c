//! The pairs of a volume: a directory on the host, where each key is a file's name and each value its content.
//!
//! A ConfigMap or Secret can be read so, and what is written is found again by whoever mounts the volume. The guest owns
//! the directory, so nothing here leads out of it: no link, no name. A value is there whole or not at all.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::{BucketError, VALUE_BYTES};
use crate::host_path;

/// The longest file name, in bytes.
const NAME_BYTES: usize = 255;
/// Begins the name of what is not whole yet.
const UNFINISHED: &str = ".pair-";
/// Keys that are listed; a volume may hold any number of files.
const KEYS: usize = 100_000;

/// Held over a value's reading and writing, over all volumes: pods share them as they like.
static ADDING: Mutex<()> = Mutex::new(());

/// A volume's pairs.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    directory: PathBuf,
    read_only: bool,
}

impl Files {
    pub(crate) fn new(directory: PathBuf, read_only: bool) -> Self {
        Self { directory, read_only }
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, BucketError> {
        let name = name_of(key)?;
        let directory = self.open()?;
        let file = match host_path::open_beneath(&directory, Path::new(&name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BucketError::Volume(error)),
        };
        if !file.metadata().map_err(BucketError::Volume)?.is_file() {
            return Ok(None);
        }
        let mut value = Vec::new();
        file.take(VALUE_BYTES as u64 + 1).read_to_end(&mut value).map_err(BucketError::Volume)?;
        if value.len() > VALUE_BYTES { Err(BucketError::Value) } else { Ok(Some(value)) }
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), BucketError> {
        let (name, directory) = (name_of(key)?, self.open_to_write()?);
        let unfinished = format!("{UNFINISHED}{:016x}", rand::random::<u64>());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file = rustix::fs::openat(&directory, &unfinished, flags, mode).map_err(failed)?;
        let written = File::from(file).write_all(value).map_err(BucketError::Volume);
        // Takes the place of a link, and never goes where one leads.
        let done =
            written.and_then(|()| rustix::fs::renameat(&directory, &unfinished, &directory, &name).map_err(failed));
        if done.is_err() {
            // It may be gone, or the volume is; the error that counts is the first.
            let _ = rustix::fs::unlinkat(&directory, &unfinished, AtFlags::empty());
        }
        done
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), BucketError> {
        let (name, directory) = (name_of(key)?, self.open_to_write()?);
        match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn keys(&self) -> Result<Vec<String>, BucketError> {
        let directory = self.open()?;
        let mut keys = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(key) = entry.file_name().to_str().ok().and_then(key_of)
                && !entry.file_type().is_dir()
            {
                keys.push(key);
            }
            if keys.len() == KEYS {
                break;
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// As long as this is held, nobody else adds.
    pub(super) fn alone() -> MutexGuard<'static, ()> {
        ADDING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each time again, as the directory may have been changed for another.
    fn open(&self) -> Result<OwnedFd, BucketError> {
        let found = host_path::find(&self.directory).map_err(BucketError::Volume)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&found, ".", flags, Mode::empty()).map_err(failed)
    }

    fn open_to_write(&self) -> Result<OwnedFd, BucketError> {
        if self.read_only { Err(BucketError::ReadOnly) } else { self.open() }
    }
}

fn failed(error: Errno) -> BucketError {
    match error {
        Errno::ROFS | Errno::ACCESS | Errno::PERM => BucketError::ReadOnly,
        error => BucketError::Volume(error.into()),
    }
}

/// The file of a key: itself, but for bytes that a file name cannot have and a dot at its beginning, as `%2F`.
fn name_of(key: &str) -> Result<String, BucketError> {
    let mut name = String::with_capacity(key.len());
    for (at, character) in key.char_indices() {
        if matches!(character, '/' | '\0' | '%') || (character == '.' && at == 0) {
            name.push_str(&format!("%{:02X}", u32::from(character)));
        } else {
            name.push(character);
        }
    }
    if name.is_empty() || name.len() > NAME_BYTES { Err(BucketError::Key) } else { Ok(name) }
}

/// The key of a file; none for a file that is none's.
fn key_of(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut key = parts.next()?.to_owned();
    if key.starts_with('.') {
        return None;
    }
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok())?;
        key.push(char::from(code));
        key.push_str(part.get(2..)?);
    }
    name_of(&key).ok().filter(|again| again == name).map(|_| key)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_configmap_is_read_through_its_links_and_nothing_outside_is() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("secret"), "secret").unwrap();
        let volume = base.path().canonicalize().unwrap().join("volume");
        fs::create_dir_all(volume.join("..v1")).unwrap();
        fs::write(volume.join("..v1/app.properties"), "colour=green").unwrap();
        symlink("..v1", volume.join("..data")).unwrap();
        symlink("..data/app.properties", volume.join("app.properties")).unwrap();
        symlink("../secret", volume.join("relative")).unwrap();
        symlink(base.path().join("secret"), volume.join("absolute")).unwrap();
        let files = Files::new(volume.clone(), false);
        assert_eq!(files.get("app.properties").unwrap().as_deref(), Some(&b"colour=green"[..]));
        for key in ["relative", "absolute"] {
            assert!(files.get(key).is_err(), "{key}");
            files.set(key, b"mine").unwrap();
            assert_eq!(files.get(key).unwrap().as_deref(), Some(&b"mine"[..]));
        }
        assert_eq!(files.get("../secret").unwrap(), None);
        assert_eq!(fs::read_to_string(base.path().join("secret")).unwrap(), "secret");
        assert_eq!(files.keys().unwrap(), ["absolute", "app.properties", "relative"]);
    }

    #[test]
    fn a_read_only_volume_is_only_read() {
        let volume = tempfile::tempdir().unwrap();
        fs::write(volume.path().join("a"), "1").unwrap();
        let files = Files::new(volume.path().canonicalize().unwrap(), true);
        assert_eq!(files.get("a").unwrap().as_deref(), Some(&b"1"[..]));
        assert!(matches!(files.set("a", b"2"), Err(BucketError::ReadOnly)));
        assert!(matches!(files.delete("a"), Err(BucketError::ReadOnly)));
    }

    #[test]
    fn a_volume_that_became_a_link_is_no_bucket() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("outside")).unwrap();
        fs::write(root.join("outside/a"), "secret").unwrap();
        symlink("outside", root.join("volume")).unwrap();
        let files = Files::new(root.join("volume"), false);
        assert!(files.get("a").is_err() && files.set("b", b"1").is_err() && files.keys().is_err());
        assert!(!root.join("outside/b").exists());
    }

    #[test]
    fn names_and_keys_are_each_others() {
        for (key, name) in [("a", "a"), (".", "%2E"), ("..", "%2E."), ("a/b%", "a%2Fb%25"), ("ä.b", "ä.b")] {
            assert_eq!(name_of(key).unwrap(), name);
            assert_eq!(key_of(name).as_deref(), Some(key));
        }
        for nobodys in [".pair-0", "..data", "a%2", "a%zz", "a%41"] {
            assert_eq!(key_of(nobodys), None, "{nobodys}");
        }
        assert!(name_of(&"k".repeat(256)).is_err());
    }
}

//! What outlives the process: one JSON file per sandbox and per container.
//!
//! ```text
//!   <state_dir>/sandboxes/<id>/record.json      <state_dir>/containers/<id>/record.json
//! ```
//! In come values to keep, out they come again after a restart. A file is replaced whole or not at all; one that cannot
//! be read is set aside and said so, and never keeps the runtime from starting. Files are for their owner only. They are
//! not synced: what a power failure takes with it, it takes from the running guests too.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

const RECORD: &str = "record.json";
const UNFINISHED: &str = "record.json.new";
const BROKEN: &str = "record.json.broken";

/// Why a record could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path}", path = .path.display())]
pub struct RecordError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The records of one kind of object. Each object has a directory, named by its id, that holds its record and may hold
/// other files of the object's own.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Opens the records under `directory`, which is made if need be, for its owner only.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: PathBuf) -> Result<Self, RecordError> {
        create_directory(&directory)?;
        // Guests' directories are beneath, and on the way to one no link is followed.
        let resolved = directory.canonicalize();
        let directory = resolved.map_err(|source| RecordError { step: "resolve", path: directory, source })?;
        Ok(Self { directory })
    }

    /// The directory of one object.
    pub fn directory_of(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// Reads every record. Objects whose record is missing or broken are left out.
    ///
    /// # Errors
    /// When the directory itself cannot be read.
    pub fn read_all<T: DeserializeOwned>(&self) -> Result<Vec<T>, RecordError> {
        let failed = |source| RecordError { step: "read", path: self.directory.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let directory = entry.map_err(failed)?.path();
            match read(&directory) {
                Ok(Some(record)) => records.push(record),
                // The object was being made or removed when the process ended.
                Ok(None) => remove_directory(&directory),
                Err(error) => set_aside(&directory, &error),
            }
        }
        Ok(records)
    }

    /// Keeps `record` in place of an earlier one. Blocks for the time of two system calls.
    ///
    /// # Errors
    /// When the file cannot be written, for instance because the disk is full; an earlier record is then still there.
    pub fn write<T: Serialize>(&self, id: &str, record: &T) -> Result<(), RecordError> {
        let directory = self.directory_of(id);
        create_directory(&directory)?;
        let unfinished = directory.join(UNFINISHED);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&unfinished, directory.join(RECORD))
        })();
        written.map_err(|source| RecordError { step: "write", path: directory.join(RECORD), source })
    }

    /// Forgets an object and removes its directory with all that is in it; one that is not there stays so.
    ///
    /// # Errors
    /// When something in it cannot be removed. The record goes first, so that what is left is removed at the next start.
    pub fn remove(&self, id: &str) -> Result<(), RecordError> {
        let directory = self.directory_of(id);
        let removed = ignore_missing(fs::remove_file(directory.join(RECORD)))
            .and_then(|()| ignore_missing(fs::remove_dir_all(&directory)));
        removed.map_err(|source| RecordError { step: "remove", path: directory, source })
    }
}

fn read<T: DeserializeOwned>(directory: &Path) -> Result<Option<T>, io::Error> {
    match fs::read(directory.join(RECORD)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        // A broken record of an earlier start stays where a person can look at it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory.join(BROKEN).exists() => Err(error),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn set_aside(directory: &Path, error: &io::Error) {
    tracing::error!(directory = %directory.display(), %error, "this record is broken: set aside, its object is unknown from now on");
    if let Err(error) = ignore_missing(fs::rename(directory.join(RECORD), directory.join(BROKEN))) {
        tracing::error!(directory = %directory.display(), %error, "the broken record could not be renamed");
    }
}

fn remove_directory(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        tracing::warn!(directory = %directory.display(), %error, "what an unfinished removal left could not be removed");
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes a directory and those above it, for its owner only.
pub(crate) fn create_directory(path: &Path) -> Result<(), RecordError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| RecordError {
        step: "make the directory",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(directory: &tempfile::TempDir) -> Records {
        Records::open(directory.path().join("containers")).unwrap()
    }

    #[test]
    fn records_come_back_and_only_their_owner_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let records = open(&directory);
        records.write("a", &"first").unwrap();
        records.write("a", &"second").unwrap();
        records.write("b", &"other").unwrap();
        let mut all: Vec<String> = open(&directory).read_all().unwrap();
        all.sort();
        assert_eq!(all, ["other", "second"]);
        let mode = fs::metadata(records.directory_of("a").join(RECORD)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(records.directory_of("a")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_broken_record_is_set_aside_and_the_others_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let records = open(&directory);
        records.write("good", &"good").unwrap();
        records.write("bad", &"bad").unwrap();
        fs::write(records.directory_of("bad").join(RECORD), b"\"ba").unwrap();
        for _start in 0..2 {
            assert_eq!(open(&directory).read_all::<String>().unwrap(), ["good"]);
            assert!(records.directory_of("bad").join(BROKEN).exists());
        }
    }

    #[test]
    fn what_was_half_made_or_half_removed_is_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let records = open(&directory);
        fs::create_dir_all(records.directory_of("half").join("root/data")).unwrap();
        fs::write(records.directory_of("half").join(UNFINISHED), b"{").unwrap();
        assert!(open(&directory).read_all::<String>().unwrap().is_empty());
        assert!(!records.directory_of("half").exists());
    }

    #[test]
    fn removing_takes_everything_and_may_be_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let records = open(&directory);
        records.write("a", &1).unwrap();
        fs::create_dir_all(records.directory_of("a").join("root/data")).unwrap();
        records.remove("a").unwrap();
        records.remove("a").unwrap();
        assert!(!records.directory_of("a").exists());
    }
}

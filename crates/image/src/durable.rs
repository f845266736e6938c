//! Files that are whole or not there: bytes come in, a file that survives a crash goes out.
//!
//! Every write goes to a temporary file in a directory of the same file system, is synced, and is then renamed to its
//! name, and the directory is synced. A reader never sees half of anything.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Begins the names of unfinished files, so that a sweep knows them.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Writes `content` to `path` as a whole. `mode` is the file's mode before the umask.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = parent(path)?;
    let mut file =
        tempfile::Builder::new().prefix(UNFINISHED).permissions(Permissions::from_mode(mode)).tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Makes renames and removals in `directory` last.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

pub(crate) fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        // A bare file name is one in the working directory.
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "path has no parent directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_working_directory() {
        assert_eq!(parent(Path::new("a.tar")).unwrap(), Path::new("."));
        assert_eq!(parent(Path::new("/a/b")).unwrap(), Path::new("/a"));
        assert!(parent(Path::new("/")).is_err());
    }
}

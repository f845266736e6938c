//! Paths of the node that a mount names: a path comes in, what is there goes out, held fast.
//!
//! Nothing here follows a link on the way. Whoever names a path has resolved it, where that may be done; a link that is
//! found afterwards was put there by a guest that writes to the same directory, and may lead anywhere. What is found is
//! used by its descriptor from then on, so that nobody can exchange it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A link where a directory or a file was named.
#[derive(Debug, thiserror::Error)]
#[error("{} is a symbolic link, and a mount follows none: name what it leads to", .0.display())]
struct LinkInTheWay(PathBuf);

/// What is at a path.
#[derive(Debug)]
pub(crate) struct Found {
    descriptor: OwnedFd,
    kind: FileType,
}

/// Finds what is at an absolute path without links, opened for nothing yet.
///
/// # Errors
/// What is not there, and a link anywhere on the way.
pub(crate) fn find(path: &Path) -> io::Result<Found> {
    if !path.is_absolute() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Said to be wanted as a directory, what a daemon mounts when it is used is mounted.
    let as_directory = flags | OFlags::DIRECTORY;
    let mut descriptor = rustix::fs::openat(CWD, "/", as_directory, Mode::empty())?;
    let mut names = path.components().filter(|name| *name != Component::RootDir).peekable();
    let mut way = PathBuf::from("/");
    while let Some(name) = names.next() {
        way.push(name);
        match rustix::fs::openat(&descriptor, name.as_os_str(), as_directory, Mode::empty()) {
            Ok(directory) => descriptor = directory,
            Err(Errno::NOTDIR) => {
                let descriptor = rustix::fs::openat(&descriptor, name.as_os_str(), flags, Mode::empty())?;
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&descriptor)?.st_mode);
                return match kind {
                    FileType::Symlink => Err(io::Error::other(LinkInTheWay(way))),
                    kind if names.peek().is_none() => Ok(Found { descriptor, kind }),
                    _ => Err(Errno::NOTDIR.into()),
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Found { descriptor, kind: FileType::Directory })
}

impl Found {
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// A name of it that means nothing else for as long as this is held.
    pub(crate) fn name(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()))
    }

    /// Opens it, if it is a file: no pipe is waited for, no device is touched.
    pub(crate) fn open(&self, options: &OpenOptions) -> io::Result<File> {
        match self.kind {
            FileType::RegularFile => options.open(self.name()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file")),
        }
    }
}

impl AsFd for Found {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Opens for reading what is beneath a directory that guests may write to. Links lead as far as they stay beneath it, as
/// those of a ConfigMap do. A pipe is not waited for.
pub(crate) fn open_beneath(directory: impl AsFd, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(directory, path, flags, Mode::empty(), beneath)?.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory whose own path has no link in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().canonicalize().unwrap();
        (place, path)
    }

    #[test]
    fn directories_and_files_are_found_and_nothing_through_a_link() {
        let (_place, root) = place();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), "text").unwrap();
        symlink("a", root.join("link")).unwrap();
        symlink(root.join("a/file"), root.join("a/b/last")).unwrap();

        assert!(find(&root.join("a//b/")).unwrap().is_directory());
        assert!(find(Path::new("/")).unwrap().is_directory());
        let file = find(&root.join("a/file")).unwrap();
        let mut text = String::new();
        file.open(OpenOptions::new().read(true)).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((file.is_directory(), text.as_str()), (false, "text"));

        for (path, link) in [("link", "link"), ("link/b", "link"), ("a/b/last", "a/b/last")] {
            let error = find(&root.join(path)).unwrap_err().to_string();
            let expected = format!("{} is a symbolic link, and a mount follows none", root.join(link).display());
            assert!(error.starts_with(&expected), "{path}: {error}");
        }
        assert_eq!(find(&root.join("a/file/b")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        for missing in [root.join("gone"), PathBuf::new(), PathBuf::from("a")] {
            assert_eq!(find(&missing).unwrap_err().kind(), io::ErrorKind::NotFound, "{}", missing.display());
        }
    }

    #[test]
    fn what_was_found_stays_what_it_was() {
        let (_place, root) = place();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/of"), "").unwrap();
        let found = find(&root.join("a")).unwrap();
        fs::rename(root.join("a"), root.join("b")).unwrap();
        symlink("/", root.join("a")).unwrap();
        let inside = fs::read_dir(found.name()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(inside.collect::<Vec<_>>(), ["of"]);
    }

    #[test]
    fn a_pipe_is_no_file_and_is_not_waited_for() {
        let (_place, root) = place();
        rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let error = find(&root.join("pipe")).unwrap().open(OpenOptions::new().read(true)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let beneath = open_beneath(find(&root).unwrap(), Path::new("pipe")).unwrap();
        assert!(!beneath.metadata().unwrap().is_file());
    }
}

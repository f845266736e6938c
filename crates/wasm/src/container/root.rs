//! A container's root directory: the image's files come in, a directory that is the container's own goes out.
//!
//! ```text
//!   <container>/root/             what the guest sees as "/"
//!   <container>/upper/, work/     what it wrote, where the root is an overlay over the image's files
//! ```
//! The image's files are shared by all its containers and never written to. Where this process may mount, the root is an
//! overlay over them; else they are copied, which costs their size in each container. Without files of an image, the root
//! is an empty directory.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::records::{RecordError, create_directory};

const OVERLAY: &str = "overlay";
const MOUNTS: &str = "/proc/self/mountinfo";

/// Why a root directory is not made.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A directory of the container's own.
    #[error(transparent)]
    Directory(#[from] RecordError),
    /// The image's files, where they have to be copied.
    #[error("copy {} of the image", path.display())]
    Copy {
        /// The file on the node.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A root directory. Dropped, it is unmounted where it was mounted; what the guest wrote stays until the container's
/// directory is removed.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    is_mounted: bool,
}

impl Root {
    /// Makes the root of the container in `container`, over the files in `image` if it has any.
    pub(crate) fn make(container: &Path, image: Option<&Path>) -> Result<Self, RootError> {
        let path = container.join("root");
        create_directory(&path)?;
        let mut root = Self { path, is_mounted: false };
        let Some(image) = image else { return Ok(root) };
        let (upper, work) = (container.join("upper"), container.join("work"));
        create_directory(&upper)?;
        create_directory(&work)?;
        match mount(image, &upper, &work, &root.path) {
            Ok(()) => root.is_mounted = true,
            Err(errno) => {
                tracing::info!(image = %image.display(), error = %io::Error::from(errno), "no overlay can be mounted: the image's files are copied for this container");
                copy(image, &root.path)?;
            }
        }
        Ok(root)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.is_mounted {
            unmount(&self.path);
        }
    }
}

/// Takes away the mounts that an earlier process left below `directory`.
pub(crate) fn unmount_below(directory: &Path) {
    let (Ok(directory), Ok(table)) = (directory.canonicalize(), fs::read(MOUNTS)) else { return };
    for line in table.split(|&byte| byte == b'\n') {
        let point = line.split(|&byte| byte == b' ').nth(4).map(unescape);
        if let Some(point) = point.filter(|point| point.starts_with(&directory)) {
            tracing::debug!(path = %point.display(), "unmounting what an earlier process left");
            unmount(&point);
        }
    }
}

fn mount(lower: &Path, upper: &Path, work: &Path, at: &Path) -> Result<(), Errno> {
    let mut options = Vec::new();
    for (word, path) in [("lowerdir=", lower), (",upperdir=", upper), (",workdir=", work)] {
        let path = path.as_os_str().as_bytes();
        // Characters that the options are made of. No directory of ours has one, but for what a user chose above it.
        if path.iter().any(|byte| b",:\\".contains(byte)) {
            return Err(Errno::INVAL);
        }
        options.extend_from_slice(word.as_bytes());
        options.extend_from_slice(path);
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(OVERLAY, at, OVERLAY, flags, options.as_c_str())
}

/// What is in use ends when its last user does.
fn unmount(path: &Path) {
    if let Err(errno) = rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        tracing::warn!(path = %path.display(), error = %io::Error::from(errno), "a container's root stays mounted");
    }
}

/// A path of the table of mounts, in which some characters stand as `\` and three octal digits.
fn unescape(path: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|it| (b'0'..=b'7').contains(it)));
        match digits {
            Some(digits) => {
                bytes.push(digits.iter().fold(0_u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Copies the files below `from`, their modes and links too. There is nothing else below it.
fn copy(from: &Path, to: &Path) -> Result<(), RootError> {
    let mut directories = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = directories.pop() {
        let failed = |source| RootError::Copy { path: from.clone(), source };
        for entry in fs::read_dir(&from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let failed = |source| RootError::Copy { path: from.clone(), source };
            let metadata = entry.metadata().map_err(failed)?;
            if metadata.is_dir() {
                fs::create_dir(&to).map_err(failed)?;
                let mode = fs::Permissions::from_mode(metadata.permissions().mode());
                fs::set_permissions(&to, mode).map_err(failed)?;
                directories.push((from, to));
            } else if metadata.is_symlink() {
                let target = fs::read_link(&from).map_err(failed)?;
                symlink(target, &to).map_err(failed)?;
            } else {
                fs::copy(&from, &to).map_err(failed)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(directory: &Path) -> PathBuf {
        let image = directory.join("image");
        fs::create_dir_all(image.join("etc")).unwrap();
        fs::write(image.join("etc/greeting"), "of the image").unwrap();
        symlink("etc/greeting", image.join("link")).unwrap();
        image
    }

    #[test]
    fn a_root_has_the_images_files_and_keeps_what_is_written_to_itself() {
        let directory = tempfile::tempdir().unwrap();
        let image = image(directory.path());
        let roots = ["a", "b"].map(|name| {
            let container = directory.path().join("containers").join(name);
            Root::make(&container, Some(&image)).unwrap()
        });
        fs::write(roots[0].path().join("etc/greeting"), "changed").unwrap();
        let read = |path: &Path| fs::read_to_string(path.join("link")).unwrap();
        assert_eq!(read(roots[0].path()), "changed");
        assert_eq!(read(roots[1].path()), "of the image");
        assert_eq!(read(&image), "of the image");
        drop(roots);
        fs::remove_dir_all(directory.path().join("containers")).unwrap();
    }

    #[test]
    fn a_copy_is_as_good_where_nothing_can_be_mounted() {
        let directory = tempfile::tempdir().unwrap();
        let image = image(directory.path());
        fs::set_permissions(image.join("etc/greeting"), fs::Permissions::from_mode(0o754)).unwrap();
        // A colon divides the directories of an overlay.
        let root = Root::make(&directory.path().join("a:b"), Some(&image)).unwrap();
        assert!(!root.is_mounted);
        fs::write(root.path().join("link"), "changed").unwrap();
        assert_eq!(fs::read_to_string(root.path().join("etc/greeting")).unwrap(), "changed");
        let mode = fs::metadata(root.path().join("etc/greeting")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o754);
        assert_eq!(fs::read_to_string(image.join("link")).unwrap(), "of the image");
    }

    #[test]
    fn what_a_killed_process_left_mounted_is_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        let container = directory.path().join("containers/a b");
        let root = Root::make(&container, Some(&image(directory.path()))).unwrap();
        std::mem::forget(root);
        unmount_below(&directory.path().join("containers"));
        fs::remove_dir_all(&container).unwrap();
    }

    #[test]
    fn paths_of_the_table_of_mounts_are_read() {
        assert_eq!(unescape(b"/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(b"/a\\04"), Path::new("/a\\04"));
    }
}

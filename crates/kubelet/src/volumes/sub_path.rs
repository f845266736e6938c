//! A part of a volume: the volume's root and a `subPath` come in, a path beneath the root without any link goes out.
//!
//! Guests that share the volume may put links into it at any moment. Links that are there lead as far as they stay in the
//! volume; one that is put there later is for the runtime to refuse, which follows none. Directories that are missing are
//! made by descriptors, each beneath the one before, so that none is made elsewhere.

use std::fs;
use std::io;
use std::iter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// The steps, as the kubelet names them.
const FIND: &str = "prepare subPath";
const MAKE: &str = "create subPath directory";

/// Resolves `part` beneath `root`, which has no link in it, and makes what is missing as directories of the root's mode.
///
/// # Errors
/// The step that failed, and why: the part leads out of the root, or through a file.
pub(super) fn within(root: &Path, part: &str) -> Result<PathBuf, (&'static str, io::Error)> {
    let mut found = root.to_owned();
    let mut names = Path::new(part).components().filter(|name| matches!(name, Component::Normal(_)));
    while let Some(name) = names.next() {
        match fs::canonicalize(found.join(name)) {
            Ok(next) if next.starts_with(root) => found = next,
            Ok(next) => {
                let outside = format!("{} leads out of {}", found.join(name).display(), root.display());
                return Err((FIND, io::Error::other(format!("{outside}, to {}", next.display()))));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = found.join(iter::once(name).chain(names).collect::<PathBuf>());
                return make(root, &path).map(|()| path).map_err(|error| (MAKE, error));
            }
            Err(error) => return Err((FIND, error)),
        }
    }
    Ok(found)
}

/// Makes the directories from `root` down to `path`, through no link.
fn make(root: &Path, path: &Path) -> io::Result<()> {
    let mode = Mode::from_raw_mode(fs::metadata(root)?.permissions().mode());
    let open = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = rustix::fs::openat(CWD, root, open | OFlags::PATH, Mode::empty())?;
    for name in path.strip_prefix(root).map_err(io::Error::other)? {
        let (is_new, access) = match rustix::fs::mkdirat(&directory, name, mode) {
            Ok(()) => (true, OFlags::RDONLY),
            Err(Errno::EXIST) => (false, OFlags::PATH),
            Err(error) => return Err(error.into()),
        };
        directory = rustix::fs::openat(&directory, name, open | access, Mode::empty())?;
        if is_new {
            // Whatever the process' own mask is.
            rustix::fs::fchmod(&directory, mode)?;
        }
    }
    Ok(())
}

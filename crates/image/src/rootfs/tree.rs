//! A directory that becomes a root file system: paths as archives write them come in, files beneath the directory go out.
//!
//! No path leads out of it: `..` is refused, and every symbolic link is rewritten to a relative one that goes up no
//! further than the root, so that whoever follows it later, kernel or guest, stays inside. Nobody else writes here
//! meanwhile, so what was looked at holds.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// Of directories that an archive implies and does not list.
const IMPLIED_MODE: u32 = 0o755;
/// What is kept of a mode: no setuid, setgid or sticky bit. A guest has no users to change into.
const MODE_BITS: u32 = 0o777;
/// The owner, who is the runtime, always reads and, in directories, always works.
const FILE_MODE: u32 = 0o400;
const DIRECTORY_MODE: u32 = 0o700;
/// The kernel's own limit, in bytes.
const PATH_BYTES_MAX: usize = 4095;
/// Of one path. Removing a tree takes an open file for each level.
const LEVELS_MAX: usize = 256;

/// Why a path is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    #[error("leads out of the image by \"..\"")]
    Up,
    #[error("has a name too long for any file")]
    TooLong,
    #[error("is deeper than {LEVELS_MAX} directories")]
    TooDeep,
    #[error("leads through a link out of the image")]
    Outside,
    #[error("cannot be looked up: {0}")]
    Io(#[from] io::Error),
}

/// The directory, and where the last path led: archives list files by directory.
pub(super) struct Tree {
    root: PathBuf,
    last: Option<(PathBuf, PathBuf)>,
}

/// A path whose directory is real: no part of it but the last name can be a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Relative to the root.
    pub(super) path: PathBuf,
    /// On the node.
    pub(super) host: PathBuf,
}

impl Tree {
    /// `root` must be there.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        Ok(Self { root: root.canonicalize()?, last: None })
    }

    /// The place of a path, whose directory is made if `make` says so and it is not there; `None` for the root itself, and
    /// where there is no such directory.
    pub(super) fn place(&mut self, path: &[u8], make: bool) -> Result<Option<Place>, PathError> {
        let Some((parent, name)) = split(path)? else { return Ok(None) };
        let real = match &self.last {
            Some((known, real)) if *known == parent => real.clone(),
            _ => match self.real_directory(&parent, make)? {
                Some(real) => real,
                None => return Ok(None),
            },
        };
        let path = real.join(name);
        // Links may have led deeper than the path itself goes.
        if path.components().count() > LEVELS_MAX {
            return Err(PathError::TooDeep);
        }
        self.last = Some((parent, real));
        Ok(Some(Place { host: self.root.join(&path), path }))
    }

    /// Where a directory really is, with the links in its path followed.
    fn real_directory(&self, path: &Path, make: bool) -> Result<Option<PathBuf>, PathError> {
        let mut real = PathBuf::new();
        for part in path.components() {
            let host = self.root.join(&real).join(part);
            match fs::metadata(&host) {
                Ok(found) if !found.is_dir() => return Err(io::Error::from(io::ErrorKind::NotADirectory).into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                    DirBuilder::new().mode(IMPLIED_MODE).create(&host)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let found = host.canonicalize()?;
            real = found.strip_prefix(&self.root).map_err(|_| PathError::Outside)?.to_owned();
        }
        Ok(Some(real))
    }

    /// Removes what is there, with all below it.
    pub(super) fn remove(&mut self, place: &Place) -> io::Result<()> {
        self.last = None;
        match fs::symlink_metadata(&place.host) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&place.host),
            Ok(_) => fs::remove_file(&place.host),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A directory, which keeps what is in it if it was one before.
    pub(super) fn directory(&mut self, place: &Place, mode: u32) -> io::Result<()> {
        let there = fs::symlink_metadata(&place.host).is_ok_and(|found| found.is_dir());
        if !there {
            self.remove(place)?;
            fs::create_dir(&place.host)?;
        }
        fs::set_permissions(&place.host, Permissions::from_mode(mode & MODE_BITS | DIRECTORY_MODE))
    }

    /// A new empty file in place of what is there.
    pub(super) fn file(&mut self, place: &Place, mode: u32) -> io::Result<File> {
        self.remove(place)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place.host)?;
        // Set, not asked for at the opening, so that no umask takes from it.
        file.set_permissions(Permissions::from_mode(mode & MODE_BITS | FILE_MODE))?;
        Ok(file)
    }

    /// A symbolic link in place of what is there.
    pub(super) fn symlink(&mut self, place: &Place, target: &[u8]) -> io::Result<()> {
        self.remove(place)?;
        let depth = place.path.components().count().saturating_sub(1);
        symlink(target_inside(target, depth), &place.host)
    }

    /// Another name for the file at `original`.
    pub(super) fn hard_link(&mut self, place: &Place, original: &Place) -> io::Result<()> {
        if place == original {
            return Ok(());
        }
        self.remove(place)?;
        fs::hard_link(&original.host, &place.host)
    }

    /// The places in a directory.
    pub(super) fn list(&self, directory: &Place) -> io::Result<Vec<Place>> {
        let entries = fs::read_dir(&directory.host)?;
        let place = |entry: io::Result<fs::DirEntry>| {
            let name = entry?.file_name();
            Ok(Place { path: directory.path.join(&name), host: directory.host.join(&name) })
        };
        entries.map(place).collect()
    }

    /// The root as a place.
    pub(super) fn root(&self) -> Place {
        Place { path: PathBuf::new(), host: self.root.clone() }
    }
}

/// Directory and name of an archive's path; `None` for the root. A leading slash says nothing.
fn split(path: &[u8]) -> Result<Option<(PathBuf, OsString)>, PathError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    let mut parent = PathBuf::new();
    let mut name: Option<OsString> = None;
    let mut levels = 0;
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(part) => {
                levels += 1;
                parent.extend(name.replace(part.to_owned()));
            }
            Component::ParentDir => return Err(PathError::Up),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if levels > LEVELS_MAX {
        return Err(PathError::TooDeep);
    }
    Ok(name.map(|name| (parent, name)))
}

/// A link's target, relative to a directory `depth` below the root. It goes up only at its beginning, and then at most to
/// the root: an absolute target begins there, and what would lead beyond it stays there, as in a container.
fn target_inside(target: &[u8], depth: usize) -> PathBuf {
    let target = Path::new(OsStr::from_bytes(target));
    let mut up = if target.is_absolute() { depth } else { 0 };
    let mut down: Vec<&OsStr> = Vec::new();
    for part in target.components() {
        match part {
            Component::Normal(part) => down.push(part),
            Component::ParentDir => {
                if down.pop().is_none() {
                    up = depth.min(up + 1);
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let inside: PathBuf = std::iter::repeat_n(OsStr::new(".."), up).chain(down).collect();
    if inside.as_os_str().is_empty() { PathBuf::from(".") } else { inside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_wherever_they_point() {
        let inside = |target: &str, depth| target_inside(target.as_bytes(), depth).display().to_string();
        for (target, depth, expected) in [
            ("/bin/busybox", 1, "../bin/busybox"),
            ("busybox", 1, "busybox"),
            ("../lib/x", 1, "../lib/x"),
            ("../../../../etc/passwd", 2, "../../etc/passwd"),
            ("/../../etc/passwd", 0, "etc/passwd"),
            ("/", 2, "../.."),
            ("/", 0, "."),
            ("", 3, "."),
            ("x/../../y", 1, "../y"),
            ("x/../../../y", 1, "../y"),
        ] {
            assert_eq!(inside(target, depth), expected, "{target} at {depth}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_root_and_never_go_up() {
        let split = |path: &str| split(path.as_bytes()).unwrap().map(|(parent, name)| parent.join(name));
        assert_eq!(split("/a/./b//c"), Some("a/b/c".into()));
        assert_eq!(split("./"), None);
        for bad in ["..", "a/../b", "a/.."] {
            assert!(matches!(super::split(bad.as_bytes()), Err(PathError::Up)), "{bad}");
        }
        assert!(matches!(super::split(&[b'a'; 5000]), Err(PathError::TooLong)));
        assert!(matches!(super::split("a/".repeat(257).as_bytes()), Err(PathError::TooDeep)));
    }
}

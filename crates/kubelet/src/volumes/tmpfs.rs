//! Memory as a file system, and what is mounted where.
//!
//! Only a kubelet with CAP_SYS_ADMIN may mount; one without is told so, and each caller says what that means for it.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::error::VolumeError;

const MOUNTS: &str = "/proc/self/mountinfo";
/// The type of what is mounted here.
pub(super) const KIND: &str = "tmpfs";

/// Whether a mount was possible.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mounted {
    /// It is mounted.
    Yes,
    /// This process may not mount.
    NotPermitted,
}

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountPoint {
    /// Where, with all links resolved.
    pub(super) path: PathBuf,
    /// The file system's type.
    pub(super) kind: String,
}

/// Mounts a tmpfs of at most that many bytes; with none, of half the node's memory. It is kept out of swap where the
/// kernel can do that.
pub(super) fn mount(directory: &Path, mode: u32, size_bytes: Option<u64>) -> Result<Mounted, VolumeError> {
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size_bytes {
        options.push_str(&format!(",size={size}"));
    }
    let mounted = match mount_with(directory, &format!("{options},noswap")) {
        // Kernels before 6.4 do not know the option.
        Err(Errno::INVAL) => mount_with(directory, &options),
        other => other,
    };
    match mounted {
        Ok(()) => Ok(Mounted::Yes),
        Err(Errno::PERM | Errno::ACCESS) => Ok(Mounted::NotPermitted),
        Err(error) => Err(VolumeError::at("mount a tmpfs on", directory)(error.into())),
    }
}

fn mount_with(directory: &Path, options: &str) -> Result<(), Errno> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(KIND, directory, KIND, flags, options.as_c_str())
}

/// Takes a mount away. One that is in use ends when its last user does.
pub(super) fn unmount(path: &Path) -> Result<(), VolumeError> {
    let unmounted = rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    unmounted.map_err(|error| VolumeError::at("unmount", path)(error.into()))
}

/// Whether another file system begins there. This asks two inodes and not the table of mounts, which has a line for
/// each pod.
pub(super) fn is_mounted(directory: &Path) -> Result<bool, VolumeError> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(VolumeError::at("look at", path));
    match directory.parent() {
        Some(parent) => Ok(device(directory)? != device(parent)?),
        None => Ok(true),
    }
}

/// What is mounted there and beneath, the deepest and newest first. The path must be resolved.
pub(super) fn beneath(resolved: &Path) -> Result<Vec<MountPoint>, VolumeError> {
    let table = fs::read(MOUNTS).map_err(VolumeError::at("read", Path::new(MOUNTS)))?;
    let mut mounts: Vec<_> = parse(&table).filter(|mount| mount.path.starts_with(resolved)).collect();
    mounts.reverse();
    // Stable: of two at one place the newer stays first.
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.components().count()));
    Ok(mounts)
}

/// Lines are: id, parent, device, root, mount point, options, tags, a dash, type, source, options. See proc(5).
fn parse(table: &[u8]) -> impl Iterator<Item = MountPoint> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let path = fields.nth(4)?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let path = PathBuf::from(OsString::from_vec(unescape(path)));
        Some(MountPoint { path, kind: String::from_utf8_lossy(kind).into_owned() })
    })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, after @ ..] = rest {
        let code = after.get(..3).filter(|_| *byte == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &after[3..];
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{MountPoint, parse};

    #[test]
    fn a_mount_point_is_read_with_and_without_tags() {
        let table = b"25 1 0:22 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                      40 25 0:40 / /var/lib/a\\040b\\134c rw - tmpfs tmpfs rw,size=4k\nnonsense\n";
        let expected = [("/", "ext4"), ("/var/lib/a b\\c", "tmpfs")];
        let expected = expected.map(|(path, kind)| MountPoint { path: path.into(), kind: kind.to_owned() });
        assert_eq!(parse(table).collect::<Vec<_>>(), expected);
    }
}

//! `hostPath`: a directory of the node, checked before any container sees it. It is never removed, nor anything in it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use decide::pod::HostPathKind;

use super::error::VolumeError;

/// As container runtimes make it.
const MODE: u32 = 0o755;

/// Checks the path, or makes the directory where the pod wants that.
pub(super) fn set_up(path: &Path, kind: HostPathKind) -> Result<(), VolumeError> {
    let may_make = match kind {
        HostPathKind::Directory => false,
        // Without a type the kubelet looks at nothing, and the container runtime makes what is not there.
        HostPathKind::DirectoryOrCreate | HostPathKind::Unchecked => true,
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) if kind == HostPathKind::Unchecked => Err(VolumeError::SingleFile { path: path.to_owned() }),
        Ok(_) => Err(VolumeError::NoDirectory { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => {
            let made = fs::DirBuilder::new().recursive(true).mode(MODE).create(path);
            made.map_err(VolumeError::at("make directory", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(VolumeError::NoDirectory { path: path.to_owned() })
        }
        Err(error) => Err(VolumeError::at("look at", path)(error)),
    }
}

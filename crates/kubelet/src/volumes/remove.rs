//! The end of a pod's directory: what was mounted is unmounted, then everything is removed.
//!
//! Guests may have put links to anywhere into their volumes; none is followed. What somebody else mounted in there is
//! neither unmounted nor removed: that is refused aloud.

use std::fs;
use std::io;
use std::path::Path;

use super::error::VolumeError;
use super::tmpfs::{self, MountPoint};

/// Removes a pod's directory. One that is not there is removed.
pub(super) fn pod(directory: &Path) -> Result<(), VolumeError> {
    let resolved = match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(VolumeError::at("look at", directory)(error)),
        // A link or a file under a pod's name is none of ours; where it leads must not be touched.
        Ok(found) if !found.is_dir() => {
            return fs::remove_file(directory).map_err(VolumeError::at("remove", directory));
        }
        Ok(_) => fs::canonicalize(directory).map_err(VolumeError::at("resolve", directory))?,
    };
    let mounts = tmpfs::beneath(&resolved)?;
    let volumes = resolved.join("volumes");
    if let Some(MountPoint { path, kind }) = mounts.iter().find(|mount| !is_ours(mount, &volumes)) {
        return Err(VolumeError::Foreign { path: path.clone(), kind: kind.clone() });
    }
    mounts.iter().try_for_each(|mount| tmpfs::unmount(&mount.path))?;
    match fs::remove_dir_all(&resolved) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(VolumeError::at("remove", directory)(error)),
        _ => Ok(()),
    }
}

/// `<pod>/volumes/<plugin>/<name>`, and of the one kind that is mounted there.
fn is_ours(mount: &MountPoint, volumes: &Path) -> bool {
    let depth = mount.path.strip_prefix(volumes).map(|relative| relative.components().count());
    mount.kind == tmpfs::KIND && depth == Ok(2)
}

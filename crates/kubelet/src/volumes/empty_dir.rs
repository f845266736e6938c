//! `emptyDir`: a directory that lives as long as its pod, on the disk or in memory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use decide::pod::Pod;

use super::error::VolumeError;
use super::{VolumeOptions, layout, tmpfs};

/// Every container of the pod may write there, whoever it runs as.
const MODE: u32 = 0o777;

/// Makes the directory. `memory` says that it is to be a tmpfs, and how large, in bytes; with none, half of the node's
/// memory. The size of a directory on the disk is not limited here.
pub(super) fn set_up(directory: &Path, memory: Option<Option<u64>>) -> Result<(), VolumeError> {
    layout::make_private(directory)?;
    match memory {
        None => {
            let opened = fs::set_permissions(directory, Permissions::from_mode(MODE));
            opened.map_err(VolumeError::at("set the mode of", directory))
        }
        Some(_) if tmpfs::is_mounted(directory)? => Ok(()),
        Some(size) => match tmpfs::mount(directory, MODE, size)? {
            tmpfs::Mounted::Yes => Ok(()),
            tmpfs::Mounted::NotPermitted => Err(VolumeError::NoTmpfs),
        },
    }
}

/// The least of: the volume's limit, what the pod's containers may use together if each is limited, and what the node
/// has to give.
pub(super) fn tmpfs_size(pod: &Pod, limit: Option<u64>, options: &VolumeOptions) -> Option<u64> {
    let of_node = options.allocatable.borrow().memory_bytes;
    [limit, pod.memory_limit(), of_node].into_iter().flatten().min()
}

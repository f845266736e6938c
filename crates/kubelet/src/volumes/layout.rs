//! Where things are beneath the root directory.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use decide::names::PodUid;
use decide::pod::{Volume, VolumeSource};

use super::error::VolumeError;

const EMPTY_DIR: &str = "kubernetes.io~empty-dir";

/// Where pods have their directories.
#[derive(Clone)]
pub(super) struct Layout {
    pods: PathBuf,
}

impl Layout {
    pub(super) fn new(root_dir: PathBuf) -> Self {
        let mut pods = root_dir;
        pods.push("pods");
        Self { pods }
    }

    /// `<root>/pods/<uid>`
    pub(super) fn pod(&self, uid: &PodUid) -> Result<PathBuf, VolumeError> {
        Ok(self.pods.join(single(uid.as_str())?))
    }

    /// `<root>/pods/<uid>/volumes/<plugin>/<name>`
    pub(super) fn volume(&self, uid: &PodUid, volume: &Volume) -> Result<PathBuf, VolumeError> {
        let plugin = match &volume.source {
            VolumeSource::Files(files) => files.plugin,
            VolumeSource::EmptyDir { .. } | VolumeSource::HostPath { .. } | VolumeSource::Image { .. } => EMPTY_DIR,
        };
        Ok(self.pod(uid)?.join("volumes").join(single(plugin)?).join(single(volume.name.as_str())?))
    }

    /// Pods that have a directory.
    pub(super) fn pods(&self) -> Result<Vec<PodUid>, VolumeError> {
        let failed = || VolumeError::at("list", &self.pods);
        let entries = match fs::read_dir(&self.pods) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed()(error)),
        };
        let mut pods = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed())?;
            let is_directory = entry.file_type().map_err(failed())?.is_dir();
            // What has no name of ours is none of ours.
            pods.extend(entry.file_name().to_str().filter(|_| is_directory).map(PodUid::from));
        }
        Ok(pods)
    }
}

/// A name that stays where it is put.
pub(super) fn single(name: &str) -> Result<&str, VolumeError> {
    let leads_away = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
    if leads_away { Err(VolumeError::Name { name: name.to_owned() }) } else { Ok(name) }
}

/// Makes a directory, and those above it, so that nobody but us passes them.
pub(super) fn make_private(directory: &Path) -> Result<(), VolumeError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(VolumeError::at("make directory", directory))
}

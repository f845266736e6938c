//! What can go wrong with a volume.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::DISK;
use crate::objects::ObjectError;

/// Why a volume could not be made, kept or removed.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// An object or a token could not be had.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Its content cannot be made.
    #[error(transparent)]
    Content(#[from] decide::volume::VolumeError),
    /// The system refused a step.
    #[error("{step} {}", path.display())]
    Disk {
        /// What was done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A host path is not what the pod says it is.
    #[error("hostPath type check failed: {} is not a directory", path.display())]
    NoDirectory {
        /// The host path.
        path: PathBuf,
    },
    /// A host path is a file.
    #[error("hostPath {} is a file: only directories can be mounted into a wasm guest", path.display())]
    SingleFile {
        /// The host path.
        path: PathBuf,
    },
    /// Memory cannot be mounted.
    #[error("emptyDir with medium Memory needs a kubelet that may mount a tmpfs (CAP_SYS_ADMIN); this one may not")]
    NoTmpfs,
    /// Something is mounted where we mounted nothing.
    #[error("{} is a {kind} mount that is not the kubelet's; unmount it first", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// The file system's type.
        kind: String,
    },
    /// A UID or a name that is no single name of a directory.
    #[error("{name:?} cannot be the name of a directory")]
    Name {
        /// The name.
        name: String,
    },
    /// A container mounts what its pod does not have.
    #[error("cannot find volume {volume:?} to mount into container {container:?}")]
    NoVolume {
        /// The volume.
        volume: String,
        /// The container.
        container: String,
    },
    /// The environment makes no path of a `subPathExpr`.
    #[error(transparent)]
    SubPathExpression(#[from] decide::env::SubPathError),
    /// There is no such part of a volume, or it leads out of it. Why is no part of the message, as it may tell of the
    /// node's own files.
    #[error("failed to {step} for volumeMount {volume:?} of container {container:?}")]
    SubPath {
        /// What was done.
        step: &'static str,
        /// The volume.
        volume: String,
        /// The container.
        container: String,
        /// What was found, or what the system said.
        #[source]
        source: io::Error,
    },
    /// A path that CRI cannot carry.
    #[error("{} is not UTF-8, as CRI wants it", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// The pod has no directory, or not any more.
    #[error("the pod's volumes are not prepared")]
    NotPrepared,
    /// The disk hangs.
    #[error("the disk did not answer for {} s", DISK.as_secs())]
    TimedOut,
    /// The work itself broke.
    #[error("the work on the disk broke off")]
    Broken {
        /// How.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl VolumeError {
    /// What went wrong, with its cause, in one line.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Object(error) => error.message(),
            Self::Disk { source, .. } => format!("{self}: {source}"),
            Self::Broken { source } => format!("{self}: {source}"),
            other => other.to_string(),
        }
    }

    /// For `map_err`: the step that the system refused.
    pub(super) fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { step, path, source }
    }
}

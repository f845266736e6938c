//! The volumes of a pod: what each holds, and which files are made from API objects.

use super::{ConfigKind, FieldPath, PullPolicy, ResourceField};
use crate::names::VolumeName;
use std::time::Duration;

/// One `volumes` entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// `name`.
    pub name: VolumeName,
    /// What it holds.
    pub source: VolumeSource,
}

/// What a volume holds.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeSource {
    /// `emptyDir`.
    EmptyDir {
        /// `medium: Memory`.
        in_memory: bool,
        /// `sizeLimit`.
        size_limit_bytes: Option<u64>,
    },
    /// `hostPath`.
    HostPath {
        /// An absolute path of the node.
        path: String,
        /// What must be, or is made, there.
        kind: HostPathKind,
    },
    /// `configMap`, `secret`, `downwardAPI`, `projected`: files made from API objects.
    Files(FileVolume),
    /// `image`: the files of an image, read-only.
    Image {
        /// `reference`.
        reference: String,
        /// `pullPolicy`, with the API server's defaulting for pods of files.
        pull_policy: PullPolicy,
    },
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathKind {
    /// No check.
    Unchecked,
    /// Made (0755) if absent.
    DirectoryOrCreate,
    /// Must be there.
    Directory,
}

/// A volume of files made from API objects, swapped in as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct FileVolume {
    /// The kubelet's name of the kind, as in `volumes/kubernetes.io~configmap/<name>`.
    pub plugin: &'static str,
    /// The mode of files that name none.
    pub default_mode: u32,
    /// In order; a path of a later one wins.
    pub sources: Vec<FileSource>,
}

/// One source of files.
#[derive(Clone, Debug, PartialEq)]
pub enum FileSource {
    /// Keys of a ConfigMap or Secret.
    Config {
        /// Which of the two.
        kind: ConfigKind,
        /// The object.
        name: String,
        /// Which keys, where to; empty: all, under their own names.
        items: Vec<KeyToPath>,
        /// Whether object and keys may be missing.
        optional: bool,
    },
    /// Fields of the pod.
    DownwardApi(Vec<DownwardFile>),
    /// A token for the pod's service account.
    ServiceAccountToken {
        /// Whom it is for; empty: the API server.
        audience: String,
        /// How long it lives.
        expiration: Duration,
        /// The file.
        path: String,
    },
}

/// One key of a ConfigMap or Secret and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyToPath {
    /// The key.
    pub key: String,
    /// Relative, without `..`.
    pub path: String,
    /// Instead of the volume's default.
    pub mode: Option<u32>,
}

/// One downward API file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownwardFile {
    /// Relative, without `..`.
    pub path: String,
    /// What it shows.
    pub content: DownwardContent,
    /// Instead of the volume's default.
    pub mode: Option<u32>,
}

/// What a downward API file shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownwardContent {
    /// `fieldRef`.
    Field(FieldPath),
    /// `resourceFieldRef`; its container is always named.
    Resource(ResourceField),
}

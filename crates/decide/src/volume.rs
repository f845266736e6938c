//! The files of a volume made from API objects: paths, bytes and modes.
//!
//! Comes in: a [`FileVolume`], what it refers to, and tokens. Goes out: its [`Payload`]. Paths that come out are relative,
//! clean and stay inside the volume, whatever the objects say. Never here: a directory, a fetch, or content in a message.

#[cfg(test)]
mod tests;

use crate::env::Configs;
use crate::env::field::{Facts, FieldError, field, resource};
use crate::pod::{ConfigKind, DownwardContent, DownwardFile, FileSource, FileVolume, KeyToPath, Pod};
use std::collections::BTreeMap;
use std::fmt;

/// Longest name of a file.
const LONGEST_NAME: usize = 255;

/// One file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// The size only: the content may be secret.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, mode {:o}", self.bytes.len(), self.mode)
    }
}

/// The files of a volume, by their clean path in it.
pub type Payload = BTreeMap<String, File>;

/// Why the files of a volume cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// An object is not there.
    #[error("{} {name:?} not found", match kind { ConfigKind::ConfigMap => "configmap", ConfigKind::Secret => "secret" })]
    NotFound {
        /// ConfigMap or Secret.
        kind: ConfigKind,
        /// The object.
        name: String,
    },
    /// A ConfigMap lacks a key.
    #[error("configmap references non-existent config key: {0}")]
    NoConfigMapKey(String),
    /// A Secret lacks a key.
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    /// A path does not stay inside the volume, or takes a name the atomic writer needs.
    #[error("{path:?} is not a path inside a volume: it must be relative, without \"..\" and not begin with \"..\"")]
    Path {
        /// The path.
        path: String,
    },
    /// A file would have to be a directory too.
    #[error("{file:?} cannot be both a file and the directory of {inner:?}")]
    FileAndDirectory {
        /// The file.
        file: String,
        /// The one below it.
        inner: String,
    },
    /// A token was not given.
    #[error("the service account token for {path} is missing")]
    NoToken {
        /// Its file.
        path: String,
    },
    /// A field of the pod cannot be shown.
    #[error("downward API file {path}: {error}")]
    Field {
        /// The file.
        path: String,
        /// Why. Part of the message, since the whole of it is what users see.
        error: FieldError,
    },
}

/// The files of `volume`. `tokens` holds the service account tokens by the position of their source in the volume.
///
/// # Errors
/// Something that is not optional is not there, or paths clash.
pub fn payload(
    volume: &FileVolume,
    pod: &Pod,
    facts: &Facts<'_>,
    configs: &Configs,
    tokens: &BTreeMap<usize, String>,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for (position, source) in volume.sources.iter().enumerate() {
        match source {
            FileSource::Config { kind, name, items, optional } => {
                payload.extend(of_object(configs, *kind, name, items, *optional, volume.default_mode)?);
            }
            FileSource::DownwardApi(wanted) => {
                for file in wanted {
                    let bytes = downward(file, pod, facts)?.into_bytes();
                    payload.insert(clean(&file.path)?, File { bytes, mode: file.mode.unwrap_or(volume.default_mode) });
                }
            }
            FileSource::ServiceAccountToken { path, .. } => {
                let token = tokens.get(&position).ok_or_else(|| VolumeError::NoToken { path: path.clone() })?;
                payload.insert(clean(path)?, File { bytes: token.clone().into_bytes(), mode: volume.default_mode });
            }
        }
    }
    no_file_is_a_directory(&payload)?;
    Ok(payload)
}

/// All keys of an object, text and binary.
fn contents<'a>(configs: &'a Configs, kind: ConfigKind, name: &str) -> Option<BTreeMap<&'a str, &'a [u8]>> {
    match kind {
        ConfigKind::ConfigMap => {
            let map = configs.config_maps.get(name)?;
            let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
            let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
            Some(binary.chain(text).collect())
        }
        ConfigKind::Secret => {
            let data = configs.secrets.get(name)?.data.iter().flatten();
            Some(data.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect())
        }
    }
}

fn of_object(
    configs: &Configs,
    kind: ConfigKind,
    name: &str,
    items: &[KeyToPath],
    optional: bool,
    default_mode: u32,
) -> Result<Payload, VolumeError> {
    let Some(contents) = contents(configs, kind, name) else {
        let missing = VolumeError::NotFound { kind, name: name.to_owned() };
        return if optional { Ok(Payload::new()) } else { Err(missing) };
    };
    let mut payload = Payload::new();
    if items.is_empty() {
        for (key, bytes) in contents {
            payload.insert(clean(key)?, File { bytes: bytes.to_vec(), mode: default_mode });
        }
        return Ok(payload);
    }
    for KeyToPath { key, path, mode } in items {
        match contents.get(key.as_str()) {
            Some(bytes) => {
                payload.insert(clean(path)?, File { bytes: bytes.to_vec(), mode: mode.unwrap_or(default_mode) });
            }
            None if optional => {}
            None => {
                return Err(match kind {
                    ConfigKind::ConfigMap => VolumeError::NoConfigMapKey(key.clone()),
                    ConfigKind::Secret => VolumeError::NoSecretKey(key.clone()),
                });
            }
        }
    }
    Ok(payload)
}

fn downward(file: &DownwardFile, pod: &Pod, facts: &Facts<'_>) -> Result<String, VolumeError> {
    match &file.content {
        DownwardContent::Field(path) => Ok(field(path, pod, facts)),
        DownwardContent::Resource(wanted) => resource(wanted, pod, None, facts.allocatable)
            .map_err(|error| VolumeError::Field { path: file.path.clone(), error }),
    }
}

/// `path` without empty and `.` parts.
///
/// # Errors
/// It does not stay inside the volume, or begins with `..`, as only the atomic writer's own names may.
pub fn clean(path: &str) -> Result<String, VolumeError> {
    let refused = || VolumeError::Path { path: path.to_owned() };
    if path.starts_with('/') || path.contains('\0') {
        return Err(refused());
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let begins_wrong = parts.first().is_none_or(|first| first.starts_with(".."));
    if begins_wrong || parts.iter().any(|part| *part == ".." || part.len() > LONGEST_NAME) {
        return Err(refused());
    }
    Ok(parts.join("/"))
}

fn no_file_is_a_directory(payload: &Payload) -> Result<(), VolumeError> {
    for path in payload.keys() {
        let mut above = path.match_indices('/').map(|(end, _)| &path[..end]);
        if let Some(file) = above.find(|above| payload.contains_key(*above)) {
            return Err(VolumeError::FileAndDirectory { file: file.to_owned(), inner: path.clone() });
        }
    }
    Ok(())
}

//! Image references: the text of a pod's `image` field comes in, a normalised name goes out.
//!
//! The grammar and the defaults are those of the distribution project, as the kubelet and containerd use them: no
//! registry means `docker.io`, one path component there means `library/`, neither tag nor digest means `:latest`.
//! Nothing here looks an image up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
const OFFICIAL_REPOSITORY: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// Bytes; the distribution project's limit for a repository path.
const REPOSITORY_BYTES_MAX: usize = 255;
/// Bytes; the distribution project's limit for a tag.
const TAG_BYTES_MAX: usize = 128;

/// A normalised image reference: `registry/repository`, and a tag, a digest or both.
///
/// Its text ([`fmt::Display`]) is the full form, and parses to an equal value. Clones are cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference(Arc<Parts>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference; the pod's waiting reason is `InvalidImageName`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing to parse, or nothing before the tag or digest.
    #[error("invalid image name {0:?}: the repository name is empty")]
    Empty(String),
    /// The host and port before the first slash.
    #[error("invalid image name {name:?}: {registry:?} is not a registry host")]
    Registry {
        /// The whole text.
        name: String,
        /// The part at fault.
        registry: String,
    },
    /// A path component, most often one with an uppercase letter.
    #[error(
        "invalid image name {name:?}: repository component {component:?} must be lowercase letters and digits, separated by '.', '_', '__' or '-'"
    )]
    Repository {
        /// The whole text.
        name: String,
        /// The part at fault.
        component: String,
    },
    /// 64 hexadecimal digits alone would be taken for an image ID.
    #[error("invalid image name {0:?}: 64 hexadecimal digits are an image ID, not a name")]
    LooksLikeId(String),
    /// The repository path is over 255 bytes.
    #[error("invalid image name {0:?}: the repository name is over 255 bytes")]
    TooLong(String),
    /// The text after the last colon.
    #[error("invalid image name {name:?}: {tag:?} is not a tag")]
    Tag {
        /// The whole text.
        name: String,
        /// The part at fault.
        tag: String,
    },
    /// The text after the `@`.
    #[error("invalid image name {name:?}")]
    Digest {
        /// The whole text.
        name: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
}

impl Reference {
    /// Parses and normalises a reference.
    ///
    /// # Errors
    /// The part that breaks the grammar; see [`ReferenceError`].
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|source| ReferenceError::Digest { name: name.to_owned(), source })?;
                (rest, Some(digest))
            }
            None => (name, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err(ReferenceError::Empty(name.to_owned()));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { name: name.to_owned(), tag: tag.to_owned() });
        }
        let (registry, repository) = split_registry(name, path)?;
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self(Arc::new(Parts { registry, repository, tag, digest })))
    }

    /// The registry's host, with its port if one was given: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.0.registry
    }

    /// The path inside the registry: `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.0.repository
    }

    /// Registry and repository: `docker.io/library/nginx`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.0.registry, self.0.repository)
    }

    /// The tag. A reference has a tag, a digest or both.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.0.tag.as_deref()
    }

    /// The digest; where there is one it decides, and the tag is for readers only.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.0.digest
    }

    /// `registry/repository@digest` of the same repository.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self(Arc::new(Parts { tag: None, digest: Some(digest), ..Parts::clone(&self.0) }))
    }

    /// Whether the registry is on this host's loopback, which is spoken to in plain HTTP.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = host_of(&self.0.registry);
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// The host of `host[:port]`; an IPv6 host keeps its brackets.
pub(crate) fn host_of(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => registry,
    }
}

fn split_registry(name: &str, path: &str) -> Result<(String, String), ReferenceError> {
    let (registry, path) = match path.split_once('/') {
        Some((first, rest)) if names_a_registry(first) => {
            if !is_registry(first) {
                return Err(ReferenceError::Registry { name: name.to_owned(), registry: first.to_owned() });
            }
            (first, rest)
        }
        _ if is_image_id(path) => return Err(ReferenceError::LooksLikeId(name.to_owned())),
        _ => (DEFAULT_REGISTRY, path),
    };
    if path.is_empty() {
        return Err(ReferenceError::Empty(name.to_owned()));
    }
    if let Some(component) = path.split('/').find(|component| !is_path_component(component)) {
        return Err(ReferenceError::Repository { name: name.to_owned(), component: component.to_owned() });
    }
    let registry = if registry == LEGACY_DEFAULT_REGISTRY { DEFAULT_REGISTRY } else { registry };
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("{OFFICIAL_REPOSITORY}/{path}")
    } else {
        path.to_owned()
    };
    if repository.len() > REPOSITORY_BYTES_MAX {
        return Err(ReferenceError::TooLong(name.to_owned()));
    }
    Ok((registry.to_owned(), repository))
}

/// Whether the part before the first slash is a host rather than a path component of docker.io.
fn names_a_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_image_id(path: &str) -> bool {
    path.len() == 64 && path.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_registry(registry: &str) -> bool {
    let host = host_of(registry);
    let port = registry[host.len()..].strip_prefix(':');
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(inside) = host.strip_prefix('[') {
        return inside.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Runs of lowercase letters and digits with `.`, `_`, `__` or any number of `-` between them.
fn is_path_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && component
            .split(is_word)
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.registry, self.0.repository)?;
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(name: &str) -> Result<Self, ReferenceError> {
        Self::parse(name)
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(name: String) -> Result<Self, ReferenceError> {
        Self::parse(&name)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;

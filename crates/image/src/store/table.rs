//! The table of images: which names stand for which manifest, configuration and content.
//!
//! Pure values and their JSON; the store reads and writes the file. A tag stands for one image at a time; a digest of a
//! repository stays with its image until that is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};
use crate::reference::Reference;
use crate::trust::Verification;

/// Of the file format. A later one is refused, never guessed at; an earlier one is that of an empty store, whose images are
/// pulled again, most often from the blobs that are here.
pub(super) const VERSION: u32 = 2;

/// An image's identity on this node, as CRI has it: the configuration's digest, or, where the configuration does not
/// name the layers and so could belong to several images, the manifest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub(crate) Digest);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for ImageId {
    type Err = DigestError;

    /// `sha256:` and 64 hexadecimal digits, or the digits alone.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digest = text.parse().or_else(|error| format!("sha256:{text}").parse().map_err(|_| error))?;
        Ok(Self(digest))
    }
}

/// What an image's configuration says about running it; empty for plain wasm artifacts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// The command, before the pod's `command` replaces it.
    pub entrypoint: Vec<String>,
    /// Its arguments, before the pod's `args` replace them.
    pub cmd: Vec<String>,
    /// Environment entries, `NAME=value`.
    pub env: Vec<String>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// The user, as `uid[:gid]` or a name.
    pub user: Option<String>,
    /// What its author says of it.
    pub labels: BTreeMap<String, String>,
    /// Ports it serves, as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// The signal that asks it to stop, as `SIGINT` or a number.
    pub stop_signal: Option<String>,
    /// The operating system it says it is for.
    pub os: Option<String>,
    /// The architecture it says it is for.
    pub architecture: Option<String>,
}

/// What an image of the table is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Made {
    /// One wasm blob.
    Wasm { digest: Digest, media_type: String },
    /// An unpacked root file system, kept under the digest of its chain of layers.
    Rootfs { chain: Digest, unpacked_bytes: u64 },
    /// A Spin application: its locked form, and all layers with their media types.
    Spin { name: String, locked_app: Digest, layers: Vec<(Digest, String)> },
}

/// One image of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: ImageId,
    pub(crate) made: Made,
    /// All blobs that are kept for this image, with their sizes in bytes.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    pub(crate) tags: BTreeSet<Reference>,
    pub(crate) digests: BTreeSet<Reference>,
    pub(crate) config: ImageConfig,
    /// Signatures that were found to be right.
    #[serde(default)]
    pub(crate) verified: Vec<Verification>,
    /// Seconds since the epoch.
    pub(crate) pulled_at: u64,
}

/// Signatures of one image that are remembered; past it the oldest is forgotten.
const VERIFIED_MAX: usize = 50;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) version: u32,
    pub(super) images: Vec<Record>,
}

impl Default for Table {
    fn default() -> Self {
        Self { version: VERSION, images: Vec::new() }
    }
}

/// What a removed image leaves behind that no other needs.
#[derive(Debug)]
pub(super) struct Unneeded {
    pub(super) blobs: Vec<Digest>,
    pub(super) rootfs: Option<Digest>,
}

impl Record {
    /// Adds what was found before of a signature, unless the same is known better.
    pub(super) fn remember(&mut self, old: Verification) {
        let same = |known: &Verification| (&known.image, &known.signer) == (&old.image, &old.signer);
        if self.verified.len() < VERIFIED_MAX && !self.verified.iter().any(same) {
            self.verified.push(old);
        }
    }

    fn chain(&self) -> Option<Digest> {
        match self.made {
            Made::Rootfs { chain, .. } => Some(chain),
            _ => None,
        }
    }
}

impl Table {
    /// Adds an image, or its new names and blobs to the same image; its tags leave the images they stood for.
    pub(super) fn insert(&mut self, mut new: Record) -> &Record {
        for image in &mut self.images {
            image.tags.retain(|tag| !new.tags.contains(tag));
        }
        let old = self.images.iter().position(|image| image.id == new.id && image.made == new.made);
        if let Some(old) = old.map(|at| self.images.swap_remove(at)) {
            new.tags.extend(old.tags);
            new.digests.extend(old.digests);
            new.blobs.extend(old.blobs);
            for verified in old.verified {
                new.remember(verified);
            }
        }
        self.images.retain(|image| image.id != new.id);
        self.images.push(new);
        &self.images[self.images.len() - 1]
    }

    /// Removes an image; what no other image needs is returned for removal.
    pub(super) fn remove(&mut self, id: ImageId) -> Option<Unneeded> {
        let at = self.images.iter().position(|image| image.id == id)?;
        let removed = self.images.swap_remove(at);
        let rootfs = removed.chain().filter(|chain| !self.needs_rootfs(chain));
        Some(Unneeded { rootfs, blobs: removed.blobs.into_keys().filter(|blob| !self.needs(blob)).collect() })
    }

    /// Whether a blob belongs to an image.
    pub(super) fn needs(&self, blob: &Digest) -> bool {
        self.images.iter().any(|image| image.blobs.contains_key(blob))
    }

    /// Whether an unpacked root file system belongs to an image.
    pub(super) fn needs_rootfs(&self, chain: &Digest) -> bool {
        self.images.iter().any(|image| image.chain() == Some(*chain))
    }

    /// The image a reference stands for: by its digest if it has one, else by its tag.
    pub(super) fn find(&self, reference: &Reference) -> Option<&Record> {
        match reference.digest() {
            Some(digest) => {
                let pinned = reference.at(digest);
                self.images.iter().find(|image| image.digests.contains(&pinned))
            }
            None => self.images.iter().find(|image| image.tags.contains(reference)),
        }
    }

    /// Enters that a signature of an image is right; `false` if there is no such image.
    pub(super) fn verified(&mut self, id: ImageId, new: Verification) -> bool {
        let Some(image) = self.images.iter_mut().find(|image| image.id == id) else { return false };
        let known = std::mem::replace(&mut image.verified, vec![new]);
        known.into_iter().for_each(|old| image.remember(old));
        true
    }

    pub(super) fn find_by_id(&self, id: ImageId) -> Option<&Record> {
        self.images.iter().find(|image| image.id == id)
    }
}

//! Whether a pod may have an image that is on the node already, or must prove to the registry that it may.
//!
//! What was recorded of earlier pulls, the policy, and what the pod has to show come in; a verdict goes out. The policies,
//! the records and their JSON are the kubelet's (KEP-2535). Nothing here reads a file or a Secret; credentials are known by
//! their hashes alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keyring::repository_of;

/// Secrets that are remembered of one image; past it a matching one is believed and not written down.
const SECRETS_MAX: usize = 100;

/// `imagePullCredentialsVerificationPolicy`, with `preloadedImagesVerificationAllowlist`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VerificationPolicy {
    /// Whoever names an image that is here may have it.
    NeverVerify,
    /// The same for images that this kubelet did not pull.
    #[default]
    NeverVerifyPreloadedImages,
    /// The same for images that this list names.
    NeverVerifyAllowlistedImages(Vec<AllowedImages>),
    /// Nobody may have an image without proof.
    AlwaysVerify,
}

/// An entry of `preloadedImagesVerificationAllowlist`: one repository, or all beneath a prefix that ends with `/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedImages {
    /// `registry/repository`.
    Repository(String),
    /// All that begins with this text, which ends with a slash.
    Beneath(String),
}

impl AllowedImages {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text != text.trim() {
            return Err("an entry is neither empty nor surrounded by spaces");
        }
        let prefix = text.strip_suffix('*').filter(|prefix| prefix.ends_with('/'));
        if prefix.unwrap_or(text).contains('*') {
            return Err("only a pattern that ends with /* has a wildcard");
        }
        match prefix {
            Some("/") => Err("a pattern needs at least a registry"),
            Some(prefix) => Ok(Self::Beneath(prefix.to_owned())),
            None if repository_of(text) != text => Err("an entry is REGISTRY/REPOSITORY, with neither tag nor digest"),
            None => Ok(Self::Repository(text.to_owned())),
        }
    }

    fn holds(&self, repository: &str) -> bool {
        match self {
            Self::Repository(own) => own == repository,
            Self::Beneath(prefix) => repository.starts_with(prefix.as_str()),
        }
    }
}

impl VerificationPolicy {
    fn asks_for_proof(&self, image: &str, pulled_here: bool) -> bool {
        match self {
            Self::NeverVerify => false,
            Self::NeverVerifyPreloadedImages => pulled_here,
            Self::NeverVerifyAllowlistedImages(allowed) => {
                let repository = repository_of(image);
                !allowed.iter().any(|one| one.holds(&repository))
            }
            Self::AlwaysVerify => true,
        }
    }
}

/// A Secret, and a hash of the login in it, by which a pod shows that it has the right to an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretProof {
    /// The Secret's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// SHA-256 of the login.
    pub credential_hash: String,
}

impl SecretProof {
    fn is_same_object(&self, other: &Self) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

/// With what an image was pulled before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PullCredentials {
    /// Secrets with which the registry gave it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_secrets: Vec<SecretProof>,
    /// It was given to nobody in particular, or to the node: every pod may have it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node_pods_accessible: bool,
}

/// What is remembered of an image that was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PulledRecord {
    /// Always `ImagePulledRecord`.
    pub kind: String,
    /// Of the kubelet's configuration types.
    pub api_version: String,
    /// When it last changed.
    pub last_updated_time: Timestamp,
    /// The runtime's id of the image.
    pub image_ref: String,
    /// By `registry/repository`.
    #[serde(default)]
    pub credential_mapping: BTreeMap<String, PullCredentials>,
}

/// The kind of a record.
pub const RECORD_KIND: &str = "ImagePulledRecord";
/// The version of records.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

impl PulledRecord {
    /// A record of an image of which it is not known with what it was pulled.
    #[must_use]
    pub fn new(image_ref: &str, now: Timestamp) -> Self {
        Self {
            kind: RECORD_KIND.to_owned(),
            api_version: API_VERSION.to_owned(),
            last_updated_time: now,
            image_ref: image_ref.to_owned(),
            credential_mapping: BTreeMap::new(),
        }
    }

    /// Adds how `image` was pulled now; `false` if that was known. What every pod may have needs no Secrets.
    pub fn add(&mut self, image: &str, proof: Option<&SecretProof>, now: Timestamp) -> bool {
        let known = self.credential_mapping.entry(repository_of(image)).or_default();
        let before = known.clone();
        match proof {
            _ if known.node_pods_accessible => {}
            None => *known = PullCredentials { node_pods_accessible: true, ..PullCredentials::default() },
            Some(proof) => {
                known.kubernetes_secrets.retain(|other| !other.is_same_object(proof));
                if known.kubernetes_secrets.len() >= SECRETS_MAX {
                    known.kubernetes_secrets.remove(0);
                }
                known.kubernetes_secrets.push(proof.clone());
                known
                    .kubernetes_secrets
                    .sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
            }
        }
        let changed = *known != before;
        if changed {
            self.last_updated_time = now;
        }
        changed
    }
}

/// What is known of an image on the node.
#[derive(Clone, Debug)]
pub enum History {
    /// This kubelet has no record of it.
    Preloaded,
    /// A pull of it was begun here, and it is not known how that ended.
    Begun,
    /// It was pulled here.
    Pulled(PulledRecord),
    /// There are records, and they cannot be read.
    Unreadable,
}

/// Whether a pod may have an image that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Granted,
    /// It may, and this is to be remembered.
    GrantedBy(SecretProof),
    /// The registry must say so, by a pull.
    Ask,
}

/// Judges whether a pod that shows `proofs` may have `image`.
#[must_use]
pub fn verdict(policy: &VerificationPolicy, image: &str, history: &History, proofs: &[SecretProof]) -> Verdict {
    let record = match history {
        History::Unreadable => return Verdict::Ask,
        History::Preloaded => None,
        History::Begun => None,
        History::Pulled(record) => Some(record),
    };
    if !policy.asks_for_proof(image, !matches!(history, History::Preloaded)) {
        return Verdict::Granted;
    }
    let Some(known) = record.and_then(|record| record.credential_mapping.get(&repository_of(image))) else {
        return Verdict::Ask;
    };
    if known.node_pods_accessible {
        return Verdict::Granted;
    }
    for proof in proofs {
        for secret in &known.kubernetes_secrets {
            let same_login = !secret.credential_hash.is_empty() && secret.credential_hash == proof.credential_hash;
            match (same_login, secret.is_same_object(proof)) {
                (true, true) => return Verdict::Granted,
                // The same login elsewhere, or another login in the same Secret, whose owner the registry knew.
                (true, false) | (false, true) if known.kubernetes_secrets.len() < SECRETS_MAX => {
                    return Verdict::GrantedBy(proof.clone());
                }
                (true, false) => return Verdict::Granted,
                _ => {}
            }
        }
    }
    Verdict::Ask
}

#[cfg(test)]
mod tests;

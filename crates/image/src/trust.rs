//! Trust: which images need a signature, and whose. A policy file and what is signed come in, a yes or a reason goes out.
//!
//! Signatures are those of cosign: with a key, or with a certificate of an identity whose signing stands in a transparency
//! log; in cosign's older format or as Sigstore bundles. Pure but for reading the policy and the files it names, once;
//! fetching signatures is the pull's. What is not proven is refused.

mod bundle;
mod cosign;
mod found;
mod key;
mod keyless;
mod log;
mod policy;
mod root;
mod signature;
mod timestamp;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use self::found::{Format, Found, is_bundle, signature_layers};
use self::key::Key;
use self::keyless::{Identity, Named};
pub use self::policy::TrustError;
pub(crate) use self::signature::Subject;
use crate::digest::Digest;
use crate::reference::Reference;

/// Which images need whose signature.
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    /// The file it was read from, for messages.
    path: PathBuf,
    /// Whether images that no entry is for are taken.
    accepts_others: bool,
    /// The first that fits counts.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    pattern: policy::Pattern,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    /// Taken as it is.
    Accept,
    /// Never taken.
    Reject,
    /// One of these must have signed it.
    Signed { keys: Vec<NamedKey>, identities: Vec<Identity> },
}

#[derive(Debug, Clone)]
struct NamedKey {
    /// Its file, as the policy has it.
    file: String,
    key: Key,
}

/// Who has signed an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Signer {
    /// Who has this key.
    Key {
        /// Its file, as the policy had it.
        file: String,
        /// The hash of the key as a SubjectPublicKeyInfo in DER.
        fingerprint: Digest,
    },
    /// Who could prove to be this.
    Identity {
        /// Who vouched for the subject.
        issuer: String,
        /// The URI or mail address in its certificate.
        subject: String,
        /// The hash of the trust root's file.
        trust_root: Digest,
    },
}

/// That a signature of an image was found to be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// `registry/repository` of the image as it was asked for.
    pub image: String,
    /// Who has signed.
    pub signer: Signer,
    /// The policy's file.
    pub policy: PathBuf,
    /// The pattern of the policy's entry.
    pub pattern: String,
    /// When it was found, in seconds since the epoch.
    pub verified_at: u64,
}

/// What a policy says of an image.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Demand<'a> {
    /// It is taken as it is.
    Nothing,
    /// It needs a signature of this entry.
    Signature(Signers<'a>),
}

/// Those of whom one must have signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signers<'a> {
    policy: &'a TrustPolicy,
    pattern: &'a policy::Pattern,
    keys: &'a [NamedKey],
    identities: &'a [Identity],
}

impl TrustPolicy {
    /// What is demanded of an image.
    ///
    /// # Errors
    /// It is not to be taken whatever it has; the text says which part of the policy says so.
    pub(crate) fn demand(&self, image: &Reference) -> Result<Demand<'_>, String> {
        let name = image.name();
        match self.entries.iter().find(|entry| entry.pattern.fits(&name)) {
            None if self.accepts_others => Ok(Demand::Nothing),
            None => Err("no entry is for it, and what no entry is for is rejected".to_owned()),
            Some(Entry { rule: Rule::Accept, .. }) => Ok(Demand::Nothing),
            Some(Entry { rule: Rule::Reject, .. }) => Err("its entry rejects it".to_owned()),
            Some(Entry { pattern, rule: Rule::Signed { keys, identities } }) => {
                Ok(Demand::Signature(Signers { policy: self, pattern, keys, identities }))
            }
        }
    }

    /// The policy and the part of it an image falls under, as messages name them.
    pub(crate) fn name_for(&self, image: &Reference) -> String {
        let name = image.name();
        match self.entries.iter().find(|entry| entry.pattern.fits(&name)) {
            Some(entry) => format!("policy {}, images {:?}", self.path.display(), entry.pattern.text()),
            None => format!("policy {}, default", self.path.display()),
        }
    }
}

impl Signers<'_> {
    /// The first of these signers of whom one of `found` is a signature over one of `subjects`.
    ///
    /// # Errors
    /// None is; the text says what is wrong with each.
    pub(crate) fn check(&self, found: &[Found], subjects: &[Subject]) -> Result<Signer, String> {
        let mut wrong = Vec::new();
        for one in found {
            match self.check_one(one, subjects) {
                Ok(signer) => return Ok(signer),
                Err(reason) if wrong.contains(&reason) => {}
                Err(reason) => wrong.push(reason),
            }
        }
        Err(wrong.join("; "))
    }

    /// Whose of these a signature is.
    ///
    /// # Errors
    /// It is nobody's; the text says why not.
    pub(crate) fn check_one(&self, found: &Found, subjects: &[Subject]) -> Result<Signer, String> {
        let signature = found.signature.as_ref().map_err(Clone::clone)?;
        let signed = signature.claim.signed_bytes(subjects)?;
        if let Some(named) = self.keys.iter().find(|named| named.key.verifies(&signed, &signature.signature)) {
            return Ok(Signer::Key { file: named.file.clone(), fingerprint: named.key.fingerprint() });
        }
        let mut reason = match self.keys.len() {
            0 => None,
            1 => Some("the signature is not of the key".to_owned()),
            count => Some(format!("the signature is of none of the {count} keys")),
        };
        for identity in self.identities {
            match identity.check(signature, &signed) {
                Ok(Named { issuer, subject }) => {
                    return Ok(Signer::Identity { issuer, subject, trust_root: identity.root.digest });
                }
                Err(why) => reason = Some(why),
            }
        }
        Err(reason.unwrap_or_else(|| "the entry names no signers".to_owned()))
    }

    /// Whether `signer`, who was found to have signed before, is one of these.
    pub(crate) fn include(&self, signer: &Signer) -> bool {
        match signer {
            Signer::Key { fingerprint, .. } => self.keys.iter().any(|named| named.key.fingerprint() == *fingerprint),
            Signer::Identity { issuer, subject, trust_root } => {
                let named = Named { issuer: issuer.clone(), subject: subject.clone() };
                self.identities.iter().any(|identity| identity.holds(&named, *trust_root))
            }
        }
    }

    /// What is remembered of a signature that is right.
    pub(crate) fn verification(&self, image: &Reference, signer: Signer, verified_at: u64) -> Verification {
        let (policy, pattern) = (self.policy.path.clone(), self.pattern.text().to_owned());
        Verification { image: image.name(), signer, policy, pattern, verified_at }
    }
}

#[cfg(test)]
mod tests;

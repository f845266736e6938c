//! Trust: which images need a signature, and whose. A policy file and what is signed come in, a yes or a reason goes out.
//!
//! Signatures are cosign's: payloads beside the image under the tag `sha256-<digest>.sig`, signed with a key, or with a
//! certificate of an identity whose signing stands in a transparency log. Pure but for reading the policy and the files
//! it names, once; fetching signatures is the pull's. What is not proven is refused.

mod cosign;
mod key;
mod keyless;
mod policy;
mod root;

use std::path::PathBuf;

pub(crate) use self::cosign::{Signature, signatures};
use self::key::Key;
use self::keyless::Identity;
pub use self::policy::TrustError;
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
    Signed { keys: Vec<Key>, identities: Vec<Identity> },
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
    keys: &'a [Key],
    identities: &'a [Identity],
}

impl TrustPolicy {
    /// What is demanded of an image.
    ///
    /// # Errors
    /// It is not to be taken whatever it has; the text says which part of the policy says so.
    pub(crate) fn demand(&self, image: &Reference) -> Result<Demand<'_>, String> {
        let name = image.name();
        match self.entries.iter().find(|entry| entry.pattern.fits(&name)).map(|entry| &entry.rule) {
            None if self.accepts_others => Ok(Demand::Nothing),
            None => Err("no entry is for it, and what no entry is for is rejected".to_owned()),
            Some(Rule::Accept) => Ok(Demand::Nothing),
            Some(Rule::Reject) => Err("its entry rejects it".to_owned()),
            Some(Rule::Signed { keys, identities }) => Ok(Demand::Signature(Signers { keys, identities })),
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
    /// Whether one of `signatures` is one of these signers', over the image with one of these digests.
    ///
    /// # Errors
    /// None is; the text says what is wrong with each.
    pub(crate) fn check(&self, signatures: &[Signature], digests: &[Digest]) -> Result<(), String> {
        let mut wrong = Vec::new();
        for signature in signatures {
            match self.check_one(signature, digests) {
                Ok(()) => return Ok(()),
                Err(reason) if wrong.contains(&reason) => {}
                Err(reason) => wrong.push(reason),
            }
        }
        Err(wrong.join("; "))
    }

    fn check_one(&self, signature: &Signature, digests: &[Digest]) -> Result<(), String> {
        signature.check_payload(digests)?;
        if self.keys.iter().any(|key| key.verifies(&signature.payload, &signature.signature)) {
            return Ok(());
        }
        let mut reason = match self.keys.len() {
            0 => None,
            1 => Some("the signature is not of the key".to_owned()),
            count => Some(format!("the signature is of none of the {count} keys")),
        };
        for identity in self.identities {
            match identity.check(signature) {
                Ok(()) => return Ok(()),
                Err(why) => reason = Some(why),
            }
        }
        Err(reason.unwrap_or_else(|| "the entry names no signers".to_owned()))
    }
}

#[cfg(test)]
mod tests;

//! Looking at an image without pulling it: its manifest and its signatures come out, each judged.

use super::Puller;
use super::error::PullError;
use super::fetch::Resolved;
use super::signed::Place;
use crate::credentials::Credentials;
use crate::describe::Description;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::trust::{Demand, Format, Signer};

/// An image as its registry or layout has it.
#[derive(Debug, Clone)]
pub struct Looked {
    /// The digest that the reference stands for: an index's where there is one.
    pub target: Digest,
    /// The manifest.
    pub manifest: Description,
    /// All its signatures.
    pub signatures: Vec<SignatureFound>,
}

/// One signature of an image.
#[derive(Debug, Clone)]
pub struct SignatureFound {
    /// Where it was found.
    pub place: String,
    /// `cosign` or `bundle`.
    pub format: &'static str,
    /// The digest of its payload or bundle.
    pub digest: Digest,
    /// Issuer and subject of the certificate that came with it, by its own words.
    pub claimed: Option<(String, String)>,
    /// What the trust policy says of it.
    pub verdict: Verdict,
}

/// What a trust policy says of a signature.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is right.
    Verified {
        /// Whose it is.
        signer: Signer,
        /// The policy and its entry.
        rule: String,
    },
    /// It is not, and why.
    Refused(String),
    /// There is no policy, or it demands none.
    NotJudged,
}

impl Puller {
    /// Looks at an image where a pull would get it. The store keeps nothing but what a later pull would fetch again.
    ///
    /// # Errors
    /// As those of [`Puller::pull`], but for [`PullError::Untrusted`].
    pub async fn look(&self, image: &Reference, credentials: Option<&Credentials>) -> Result<Looked, PullError> {
        let inner = &self.0;
        let source = inner.source(image, credentials).await?;
        let Resolved { target, manifest_digest, manifest, .. } = inner.resolve(&source, image).await?;
        let subjects = inner.subjects(image, &[target, manifest_digest]).await?;
        let policy = inner.options.trust.as_ref();
        let signers = match policy.map(|policy| policy.demand(image)) {
            Some(Ok(Demand::Signature(signers))) => Some(signers),
            _ => None,
        };
        let mut signatures = Vec::new();
        for place in Place::ALL {
            for subject in &subjects {
                for found in inner.signatures_at(&source, image, place, subject.digest).await? {
                    let judged = signers.map(|signers| signers.check_one(&found, &subjects));
                    let verdict = match judged {
                        None => Verdict::NotJudged,
                        Some(Err(why)) => Verdict::Refused(why),
                        Some(Ok(signer)) => {
                            let rule = policy.map(|policy| policy.name_for(image)).unwrap_or_default();
                            Verdict::Verified { signer, rule }
                        }
                    };
                    let format = match found.format {
                        Format::Cosign => "cosign",
                        Format::Bundle => "bundle",
                    };
                    let (place, claimed) = (place.name(image, subject.digest), found.claimed());
                    signatures.push(SignatureFound { place, format, digest: found.blob, claimed, verdict });
                }
            }
        }
        Ok(Looked { target, manifest: Description::of(manifest_digest, *manifest), signatures })
    }
}

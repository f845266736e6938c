//! Signatures of one image: what the policy demands comes in, they are fetched from where the image comes from, and it is
//! taken or not.
//!
//! They are looked for where cosign puts them: beside the image under the tag `sha256-<digest>.sig`, then among the
//! manifests that name the image as their subject, of which some registries keep an index under the tag `sha256-<digest>`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Inner;
use super::error::{Part, PullError};
use super::fetch::Source;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, Manifest};
use crate::reference::Reference;
use crate::registry::{RegistryError, referrers_of};
use crate::trust::{Demand, Found, Signers, Subject, Verification, is_bundle, signature_layers};

/// What to do about it.
const WAY_OUT: &str = "sign the image with `cosign sign`, or change the policy";
/// Manifests about one image that are looked at.
const REFERRERS_MAX: usize = 20;

/// Where signatures may be, in the order in which it is looked there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A tag made of the digest.
    Tag,
    /// Manifests whose subject it is.
    Referrers,
}

impl Place {
    pub(super) const ALL: [Self; 2] = [Self::Tag, Self::Referrers];

    pub(super) fn name(self, image: &Reference, digest: Digest) -> String {
        match self {
            Self::Tag => format!("{}:{}", image.name(), signature_tag(digest)),
            Self::Referrers => format!("referrers of {}@{digest}", image.name()),
        }
    }
}

fn signature_tag(digest: Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

impl Inner {
    /// Checks an image, whose manifest or index with these digests is in the store, against the trust policy.
    ///
    /// # Errors
    /// [`PullError::Untrusted`], or signatures could not be fetched: what is not known to be signed is not taken.
    pub(super) async fn check_trust(
        &self,
        source: &Source,
        image: &Reference,
        digests: &[Digest],
    ) -> Result<Option<Verification>, PullError> {
        let Some(policy) = &self.options.trust else { return Ok(None) };
        let untrusted = |problem| PullError::Untrusted { image: image.clone(), rule: policy.name_for(image), problem };
        match policy.demand(image).map_err(untrusted)? {
            Demand::Nothing => Ok(None),
            Demand::Signature(signers) => {
                let verified = self.verify(source, image, &self.subjects(image, digests).await?, signers).await;
                let verified = verified?.map_err(untrusted)?;
                tracing::info!(%image, signer = ?verified.signer, "the signature is right");
                Ok(Some(verified))
            }
        }
    }

    /// Looks for a signature that will do, and says why there is none.
    async fn verify(
        &self,
        source: &Source,
        image: &Reference,
        subjects: &[Subject],
        signers: Signers<'_>,
    ) -> Result<Result<Verification, String>, PullError> {
        let (mut looked, mut count, mut wrong) = (Vec::new(), 0, Vec::new());
        for place in Place::ALL {
            for subject in subjects {
                let found = self.signatures_at(source, image, place, subject.digest).await?;
                looked.push(place.name(image, subject.digest));
                count += found.len();
                match signers.check(&found, subjects) {
                    Ok(signer) => {
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                        return Ok(Ok(signers.verification(image, signer, now)));
                    }
                    Err(why) if why.is_empty() || wrong.contains(&why) => {}
                    Err(why) => wrong.push(why),
                }
            }
        }
        let (looked, wrong) = (looked.join(", "), wrong.join("; "));
        Ok(Err(match count {
            0 => format!("there is no signature (looked for {looked}); {WAY_OUT}"),
            _ => format!("none of its {count} signatures will do: {wrong} (looked for {looked}); {WAY_OUT}"),
        }))
    }

    /// What may have been signed.
    pub(super) async fn subjects(&self, image: &Reference, digests: &[Digest]) -> Result<Vec<Subject>, PullError> {
        let mut subjects: Vec<Subject> = Vec::new();
        for digest in digests {
            if !subjects.iter().any(|subject| subject.digest == *digest) {
                let content = self.read_blob(image, *digest, crate::registry::MANIFEST_BYTES_MAX).await?;
                subjects.push(Subject { digest: *digest, content });
            }
        }
        Ok(subjects)
    }

    /// The signatures of a manifest that are in a place.
    pub(super) async fn signatures_at(
        &self,
        source: &Source,
        image: &Reference,
        place: Place,
        digest: Digest,
    ) -> Result<Vec<Found>, PullError> {
        let manifests = match place {
            Place::Tag => {
                let tagged = self.tagged(source, image, &signature_tag(digest), Part::Signature(digest)).await?;
                let manifest =
                    tagged.map(|content| manifest_of(image, Part::Signature(digest), &content)).transpose()?;
                Vec::from_iter(manifest)
            }
            Place::Referrers => self.referring(source, image, digest).await?,
        };
        let mut found = Vec::new();
        for manifest in manifests {
            for (layer, format) in signature_layers(&manifest) {
                let part = Part::Signature(layer.digest);
                let content = match source {
                    Source::Registry(session) => {
                        let content = session.small_blob(layer.digest, layer.size).await;
                        content.map_err(|error| self.failed(image, part, error))?
                    }
                    Source::Layout(layout) => layout.manifest(part).await?,
                };
                found.push(Found::read(layer, format, content));
            }
        }
        Ok(found)
    }

    /// What stands under another tag of the same repository.
    async fn tagged(
        &self,
        source: &Source,
        image: &Reference,
        tag: &str,
        part: Part,
    ) -> Result<Option<Vec<u8>>, PullError> {
        match source {
            Source::Registry(session) => match session.tagged(tag).await {
                Ok(content) => Ok(Some(content)),
                Err(RegistryError::Missing) => Ok(None),
                Err(error) => Err(self.failed(image, part, error)),
            },
            Source::Layout(layout) => {
                let name = Reference::parse(&format!("{}:{tag}", image.name()))?;
                match layout.beside(&name).await? {
                    Some(found) => found.manifest(Part::Manifest).await.map(Some),
                    None => Ok(None),
                }
            }
        }
    }

    /// The manifests with signatures that name a manifest as their subject.
    async fn referring(&self, source: &Source, image: &Reference, digest: Digest) -> Result<Vec<Manifest>, PullError> {
        let part = Part::Signature(digest);
        let counted = match source {
            Source::Registry(session) => match session.referrers(digest).await {
                Ok(entries) => Some(entries),
                Err(RegistryError::Missing) => None,
                Err(error) => return Err(self.failed(image, part, error)),
            },
            Source::Layout(layout) => Some(layout.referrers(digest).await?).filter(|entries| !entries.is_empty()),
        };
        let entries = match counted {
            Some(entries) => entries,
            // Where nobody keeps count, whoever pushes a referrer keeps an index of them under this tag.
            None => match self.tagged(source, image, &format!("sha256-{}", digest.hex()), part).await? {
                Some(index) => referrers_of(&index).map_err(|problem| PullError::Corrupt {
                    image: image.clone(),
                    part,
                    problem,
                })?,
                None => Vec::new(),
            },
        };
        let is_wanted = |entry: &Descriptor| entry.artifact_type.as_deref().is_none_or(is_bundle);
        let mut manifests = Vec::new();
        for entry in entries.iter().filter(|entry| is_wanted(entry)).take(REFERRERS_MAX) {
            let part = Part::Signature(entry.digest);
            let content = match source {
                Source::Registry(session) => {
                    let content = session.manifest(Some(entry.digest)).await;
                    content.map_err(|error| self.failed(image, part, error))?
                }
                Source::Layout(layout) => layout.manifest(part).await?,
            };
            manifests.push(manifest_of(image, part, &content)?);
        }
        Ok(manifests)
    }
}

fn manifest_of(image: &Reference, part: Part, content: &[u8]) -> Result<Manifest, PullError> {
    match Document::parse(content) {
        Ok(Document::Manifest(manifest)) => Ok(*manifest),
        _ => {
            let problem = "it is no manifest".to_owned();
            Err(PullError::Corrupt { image: image.clone(), part, problem })
        }
    }
}

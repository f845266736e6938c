//! Signatures of one pull: what the policy demands comes in, the signatures are fetched from where the image comes from,
//! and the pull goes on or not.

use super::Inner;
use super::error::{Part, PullError};
use super::fetch::Source;
use crate::digest::Digest;
use crate::manifest::{Document, Manifest};
use crate::reference::Reference;
use crate::registry::{MANIFEST_BYTES_MAX, RegistryError};
use crate::trust::{Demand, Signature, signatures};

/// What to do about it.
const WAY_OUT: &str = "sign the image with `cosign sign --new-bundle-format=false`, or change the policy";

impl Inner {
    /// Checks an image, known by these digests, against the trust policy.
    ///
    /// # Errors
    /// [`PullError::Untrusted`], or signatures could not be fetched: what is not known to be signed is not taken.
    pub(super) async fn check_trust(
        &self,
        source: &Source,
        image: &Reference,
        digests: &[Digest],
    ) -> Result<(), PullError> {
        let Some(policy) = &self.options.trust else { return Ok(()) };
        let untrusted = |problem| PullError::Untrusted { image: image.clone(), rule: policy.name_for(image), problem };
        let signers = match policy.demand(image).map_err(untrusted)? {
            Demand::Nothing => return Ok(()),
            Demand::Signature(signers) => signers,
        };
        let mut places = Vec::new();
        let mut found = Vec::new();
        let mut seen: Option<Digest> = None;
        for digest in digests {
            if seen.replace(*digest) == Some(*digest) {
                continue;
            }
            let tag = format!("sha256-{}.sig", digest.hex());
            places.push(format!("{}:{tag}", image.name()));
            if let Some(manifest) = self.signature_manifest(source, image, *digest, &tag).await? {
                found.extend(self.payloads(source, image, &manifest).await?);
            }
        }
        let places = places.join(" and ");
        if found.is_empty() {
            return Err(untrusted(format!("there is no signature (looked for {places}); {WAY_OUT}")));
        }
        signers.check(&found, digests).map_err(|reason| {
            untrusted(format!("none of its {} signatures at {places} will do: {reason}; {WAY_OUT}", found.len()))
        })?;
        tracing::info!(%image, "the signature is right");
        Ok(())
    }

    /// The manifest of cosign's signatures for a digest, if there is one.
    async fn signature_manifest(
        &self,
        source: &Source,
        image: &Reference,
        digest: Digest,
        tag: &str,
    ) -> Result<Option<Manifest>, PullError> {
        let part = Part::Signature(digest);
        let content = match source {
            Source::Registry(session) => match session.tagged(tag).await {
                Ok(content) => content,
                Err(RegistryError::Missing) => return Ok(None),
                Err(error) => return Err(self.failed(image, part, error)),
            },
            Source::Layout(layout) => {
                let name = Reference::parse(&format!("{}:{tag}", image.name()))?;
                match layout.beside(&name).await? {
                    Some(found) => found.manifest(Part::Manifest).await?,
                    None => return Ok(None),
                }
            }
        };
        match Document::parse(&content) {
            Ok(Document::Manifest(manifest)) => Ok(Some(*manifest)),
            _ => {
                let problem = "it is no manifest".to_owned();
                Err(PullError::Corrupt { image: image.clone(), part, problem })
            }
        }
    }

    async fn payloads(
        &self,
        source: &Source,
        image: &Reference,
        manifest: &Manifest,
    ) -> Result<Vec<Signature>, PullError> {
        let mut found = Vec::new();
        for (layer, parts) in signatures(manifest) {
            let part = Part::Signature(layer.digest);
            let payload = match source {
                Source::Registry(session) => {
                    let payload = session.small_blob(layer.digest, layer.size.min(MANIFEST_BYTES_MAX)).await;
                    payload.map_err(|error| self.failed(image, part, error))?
                }
                Source::Layout(layout) => layout.manifest(part).await?,
            };
            found.push(parts.with_payload(payload));
        }
        Ok(found)
    }
}

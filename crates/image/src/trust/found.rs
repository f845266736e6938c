//! Signatures as they were found: the parts of a manifest come in, signatures, or what is wrong with them, go out.

use std::collections::BTreeMap;

use super::keyless::Named;
use super::signature::Signature;
use super::{bundle, cosign};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest};

/// Bytes of what holds one signature. Bundles have statements with certificates, proofs and timestamps.
const BYTES_MAX: u64 = 1024 * 1024;
/// Signatures of one manifest that are looked at.
const SIGNATURES_MAX: usize = 20;

/// How a signature is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// cosign's simple signing.
    Cosign,
    /// A Sigstore bundle.
    Bundle,
}

/// One signature of an image.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) format: Format,
    /// The blob it was read from.
    pub(crate) blob: Digest,
    /// The signature, or why it is none.
    pub(super) signature: Result<Signature, String>,
}

/// Whether a manifest of this artifact type holds signatures.
pub(crate) fn is_bundle(artifact_type: &str) -> bool {
    artifact_type.starts_with(bundle::MEDIA_TYPE) || artifact_type == "application/vnd.dev.cosign.artifact.sig.v1+json"
}

/// The layers of a manifest that hold signatures.
pub(crate) fn signature_layers(manifest: &Manifest) -> impl Iterator<Item = (&Descriptor, Format)> {
    let layers = manifest.layers.iter().filter_map(|layer| match layer.media_type.as_str() {
        cosign::SIMPLE_SIGNING => Some((layer, Format::Cosign)),
        other if other.starts_with(bundle::MEDIA_TYPE) => Some((layer, Format::Bundle)),
        _ => None,
    });
    layers.filter(|(layer, _)| layer.size <= BYTES_MAX).take(SIGNATURES_MAX)
}

impl Found {
    /// Reads one out of a layer and its content.
    pub(crate) fn read(layer: &Descriptor, format: Format, content: Vec<u8>) -> Self {
        let signature = match format {
            Format::Cosign => {
                let none = BTreeMap::new();
                cosign::signature(layer.annotations.as_ref().unwrap_or(&none), content)
            }
            Format::Bundle => bundle::signature(&content),
        };
        Self { format, blob: layer.digest, signature }
    }

    /// Who has signed, by the words of a certificate that nobody has vouched for yet.
    pub(crate) fn claimed(&self) -> Option<(String, String)> {
        let certificate = self.signature.as_ref().ok()?.certificate.as_ref()?;
        let Named { issuer, subject } = Named::of(certificate).ok()?;
        Some((issuer, subject))
    }
}

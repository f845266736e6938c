//! cosign's signatures: a manifest's layers and a payload come in, what was signed and by what means goes out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const BUNDLE: &str = "dev.sigstore.cosign/bundle";
const PAYLOAD_TYPE: &str = "cosign container image signature";

/// Bytes of a payload.
const PAYLOAD_BYTES_MAX: u64 = 64 * 1024;
/// Signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 20;

/// One signature, and all that came with it.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    /// What was signed.
    pub(crate) payload: Vec<u8>,
    /// Over the payload.
    pub(crate) signature: Vec<u8>,
    /// The signer's certificate, PEM.
    pub(super) certificate: Option<String>,
    /// Those between it and a root, PEM.
    pub(super) chain: Option<String>,
    /// The transparency log's word for it, JSON.
    pub(super) bundle: Option<String>,
}

/// The signatures of a manifest, each with its payload still to be fetched.
pub(crate) fn signatures(manifest: &Manifest) -> impl Iterator<Item = (&Descriptor, SignatureParts)> {
    let layers = manifest.layers.iter().filter(|layer| layer.media_type == SIMPLE_SIGNING);
    let small = layers.filter(|layer| layer.size <= PAYLOAD_BYTES_MAX).take(SIGNATURES_MAX);
    small.filter_map(|layer| Some((layer, SignatureParts::of(layer.annotations.as_ref()?)?)))
}

/// A signature without its payload.
#[derive(Debug, Clone)]
pub(crate) struct SignatureParts(Signature);

impl SignatureParts {
    fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = |name: &str| annotations.get(name).filter(|text| !text.is_empty()).cloned();
        let signature = STANDARD.decode(annotations.get(SIGNATURE)?).ok()?;
        Some(Self(Signature {
            payload: Vec::new(),
            signature,
            certificate: text(CERTIFICATE),
            chain: text(CHAIN),
            bundle: text(BUNDLE),
        }))
    }

    pub(crate) fn with_payload(self, payload: Vec<u8>) -> Signature {
        Signature { payload, ..self.0 }
    }
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: SignedImage,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SignedImage {
    docker_manifest_digest: Digest,
}

impl Signature {
    /// Whether the payload is about one of these digests. Whether it is signed is another question.
    pub(super) fn check_payload(&self, digests: &[Digest]) -> Result<(), String> {
        let payload: Payload = serde_json::from_slice(&self.payload)
            .map_err(|_| "its payload is not cosign's simple signing format".to_owned())?;
        if payload.critical.kind != PAYLOAD_TYPE {
            return Err("its payload is not a container image signature".to_owned());
        }
        let signed = payload.critical.image.docker_manifest_digest;
        match digests.contains(&signed) {
            true => Ok(()),
            false => Err(format!("the signature is for another image, {signed}")),
        }
    }
}

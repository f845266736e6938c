//! Sigstore bundles, which cosign writes since version 3: JSON comes in, a signature goes out.
//!
//! Versions 0.1 to 0.3. An entry of a transparency log needs its proof of inclusion, but in the first version.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use super::log::{BundledEntry, LogEntry};
use super::signature::{Claim, Signature};
use crate::digest::Digest;

/// All versions of the media type begin so.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle";
/// As many as Sigstore's own clients look at.
const ENTRIES_MAX: usize = 32;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    message_signature: Option<MessageSignature>,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    certificate: Option<Raw>,
    x509_certificate_chain: Option<Chain>,
    #[serde(default)]
    tlog_entries: Vec<BundledEntry>,
    timestamp_verification_data: Option<Timestamps>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timestamps {
    #[serde(default)]
    rfc3161_timestamps: Vec<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timestamp {
    signed_timestamp: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature {
    message_digest: MessageDigest,
    signature: String,
}

#[derive(Deserialize)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

/// Reads a bundle.
pub(super) fn signature(json: &[u8]) -> Result<Signature, String> {
    let bundle: Bundle = serde_json::from_slice(json).map_err(|error| format!("its bundle is malformed ({error})"))?;
    let is_first = bundle.media_type == format!("{MEDIA_TYPE}+json;version=0.1");
    let known = ["+json;version=0.2", "+json;version=0.3", ".v0.3+json"];
    if !is_first && !known.iter().any(|version| bundle.media_type == format!("{MEDIA_TYPE}{version}")) {
        return Err(format!("its bundle is of a version that is not supported ({:?})", bundle.media_type));
    }
    let (claim, signature) = match (bundle.message_signature, bundle.dsse_envelope) {
        (Some(message), None) => of_message(&message)?,
        (None, Some(envelope)) => of_envelope(envelope)?,
        _ => return Err("its bundle has not one of a message's signature and an envelope".to_owned()),
    };
    let material = bundle.verification_material;
    let mut chain = match (material.certificate, material.x509_certificate_chain) {
        (Some(certificate), None) => vec![certificate],
        (None, Some(chain)) => chain.certificates,
        (None, None) => Vec::new(),
        (Some(_), Some(_)) => return Err("its bundle has a certificate twice".to_owned()),
    }
    .into_iter()
    .map(|raw| Ok(CertificateDer::from(bytes(&raw.raw_bytes)?)))
    .collect::<Result<Vec<_>, String>>()?;
    let certificate = (!chain.is_empty()).then(|| chain.remove(0));
    let stamps = material.timestamp_verification_data.map(|data| data.rfc3161_timestamps).unwrap_or_default();
    if material.tlog_entries.len() > ENTRIES_MAX || stamps.len() > ENTRIES_MAX {
        return Err(format!("its bundle has more than {ENTRIES_MAX} log entries or timestamps"));
    }
    let logged = material.tlog_entries.into_iter().map(LogEntry::of_bundle).collect::<Result<Vec<_>, _>>()?;
    if !is_first && logged.iter().any(|entry| !entry.has_proof()) {
        return Err("a log entry of its bundle has no proof of inclusion".to_owned());
    }
    let stamps = stamps.iter().map(|stamp| bytes(&stamp.signed_timestamp)).collect::<Result<_, _>>()?;
    Ok(Signature { claim, signature, certificate, chain, logged, stamps })
}

fn of_message(message: &MessageSignature) -> Result<(Claim, Vec<u8>), String> {
    if message.message_digest.algorithm != "SHA2_256" {
        return Err(format!("it is of a digest that is not supported ({:?})", message.message_digest.algorithm));
    }
    let digest = <[u8; 32]>::try_from(bytes(&message.message_digest.digest)?);
    let digest = digest.map_err(|_| "its digest is not of 32 bytes".to_owned())?;
    Ok((Claim::Manifest(Digest::from_bytes(digest)), bytes(&message.signature)?))
}

fn of_envelope(envelope: Envelope) -> Result<(Claim, Vec<u8>), String> {
    let [only] = envelope.signatures.as_slice() else {
        return Err("its envelope has not one signature".to_owned());
    };
    let payload = bytes(&envelope.payload)?;
    Ok((Claim::Envelope { payload_type: envelope.payload_type, payload }, bytes(&only.sig)?))
}

fn bytes(base64: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(base64).map_err(|_| "bytes in its bundle are not base64".to_owned())
}

//! cosign's signatures up to version 2, and with `--new-bundle-format=false`: a manifest's layers and their payloads come
//! in, signatures go out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::log::LogEntry;
use super::signature::{Claim, Signature};

/// The media type of the layers.
pub(super) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const BUNDLE: &str = "dev.sigstore.cosign/bundle";

/// One signature: a layer's annotations and its content.
pub(super) fn signature(annotations: &BTreeMap<String, String>, payload: Vec<u8>) -> Result<Signature, String> {
    let text = |name: &str| annotations.get(name).filter(|text| !text.is_empty());
    let signature = text(SIGNATURE).and_then(|text| STANDARD.decode(text).ok());
    let signature = signature.ok_or("its layer has no signature in base64")?;
    let malformed = |_| "its certificate is malformed".to_owned();
    let certificate = text(CERTIFICATE).map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()));
    let chain = text(CHAIN).map_or("", String::as_str);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>();
    let logged = text(BUNDLE).map(|json| LogEntry::of_annotation(json)).transpose()?;
    Ok(Signature {
        claim: Claim::Payload(payload),
        signature,
        certificate: certificate.transpose().map_err(malformed)?,
        chain: chain.map_err(malformed)?,
        logged: Vec::from_iter(logged),
        stamps: Vec::new(),
    })
}

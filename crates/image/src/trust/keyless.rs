//! Keyless signatures: a certificate of an identity, and a transparency log's word that it was used while it was valid.
//!
//! The certificate must come from a configured authority for signing code, name the identity and its issuer, and have been
//! valid when the log took the signature in; the log's entry must be signed by the log and be about this very signature.
//! Certificate transparency (the SCT in the certificate) is not checked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::cosign::Signature;
use super::key::Key;
use super::policy::fits;
use super::root::{TrustRoot, log_time};

/// id-kp-codeSigning, as DER has it.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// Fulcio's issuer, as a UTF8String, and as bare text in older certificates.
const ISSUER: &str = "1.3.6.1.4.1.57264.1.8";
const ISSUER_OLD: &str = "1.3.6.1.4.1.57264.1.1";

/// Who must have signed.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// Who vouched for the subject when the certificate was given.
    pub(super) issuer: String,
    /// The URI or mail address in the certificate, with `*` and `**`.
    pub(super) subject: String,
    /// Whose certificates and log are believed.
    pub(super) root: Arc<TrustRoot>,
}

/// The log's word, as cosign keeps it beside a signature.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bundle {
    signed_entry_timestamp: String,
    payload: Entry,
}

/// The fields in the order in which the log signs them.
#[derive(Deserialize, Serialize)]
struct Entry {
    body: String,
    #[serde(rename = "integratedTime")]
    integrated_time: u64,
    #[serde(rename = "logID")]
    log_id: String,
    #[serde(rename = "logIndex")]
    log_index: u64,
}

#[derive(Deserialize)]
struct Body {
    kind: String,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    data: Data,
    signature: LoggedSignature,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoggedSignature {
    content: String,
    public_key: LoggedKey,
}

#[derive(Deserialize)]
struct LoggedKey {
    content: String,
}

impl Identity {
    /// Whether a signature is this identity's.
    pub(super) fn check(&self, signature: &Signature) -> Result<(), String> {
        let pem = signature.certificate.as_deref().ok_or("the signature has no certificate of an identity")?;
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| "its certificate is malformed")?;
        let (_, certificate) = X509Certificate::from_der(&leaf).map_err(|_| "its certificate is malformed")?;
        let key = Key::from_der(certificate.public_key().raw)?;
        if !key.verifies(&signature.payload, &signature.signature) {
            return Err("the signature is not of its certificate".to_owned());
        }
        let time = self.logged(signature, &leaf)?;
        self.check_chain(&leaf, signature.chain.as_deref(), time)?;
        self.check_name(&certificate)
    }

    /// When the log took in that this certificate made this signature.
    fn logged(&self, signature: &Signature, leaf: &CertificateDer<'_>) -> Result<UnixTime, String> {
        let bundle = signature.bundle.as_deref().ok_or("the signature does not stand in a transparency log")?;
        let bundle: Bundle = serde_json::from_str(bundle).map_err(|_| "the log's entry is malformed")?;
        let log = self.root.logs.iter().find(|log| log.id == bundle.payload.log_id);
        let log = log.ok_or("it stands in a transparency log that the trust root does not name")?;
        let signed = serde_json::to_vec(&bundle.payload).map_err(|_| "the log's entry is malformed")?;
        let promise = STANDARD.decode(&bundle.signed_entry_timestamp).map_err(|_| "the log's entry is malformed")?;
        if !log.key.verifies(&signed, &promise) {
            return Err("the log's entry is not signed by the log".to_owned());
        }
        let body = STANDARD.decode(&bundle.payload.body).map_err(|_| "the log's entry is malformed")?;
        let body: Body = serde_json::from_slice(&body).map_err(|_| "the log's entry is malformed")?;
        let spec = body.spec;
        let hash = hex::encode(Sha256::digest(&signature.payload));
        let logged = STANDARD.decode(&spec.signature.content).ok();
        let logged_leaf = STANDARD.decode(&spec.signature.public_key.content).ok();
        let logged_leaf = logged_leaf.and_then(|pem| CertificateDer::from_pem_slice(&pem).ok());
        let is_about_it = body.kind == "hashedrekord"
            && spec.data.hash.algorithm == "sha256"
            && spec.data.hash.value == hash
            && logged.as_ref() == Some(&signature.signature)
            && logged_leaf.as_ref().map(AsRef::as_ref) == Some(leaf.as_ref());
        match is_about_it {
            true => Ok(log_time(bundle.payload.integrated_time)),
            false => Err("the log's entry is about another signature".to_owned()),
        }
    }

    fn check_chain(&self, leaf: &CertificateDer<'_>, chain: Option<&str>, time: UnixTime) -> Result<(), String> {
        let malformed = || "its certificate is malformed".to_owned();
        let end = EndEntityCert::try_from(leaf).map_err(|_| malformed())?;
        let given = CertificateDer::pem_slice_iter(chain.unwrap_or_default().as_bytes());
        let given: Vec<CertificateDer<'static>> = given.collect::<Result<_, _>>().map_err(|_| malformed())?;
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = provider.signature_verification_algorithms.all;
        let vouched = self.root.authorities.iter().any(|authority| {
            let Some((root, between)) = authority.split_last() else { return false };
            let Ok(anchor) = anchor_from_trusted_cert(root) else { return false };
            let between: Vec<CertificateDer<'_>> = between.iter().chain(&given).cloned().collect();
            let usage = KeyUsage::required(CODE_SIGNING);
            end.verify_for_usage(algorithms, &[anchor], &between, time, usage, None, None).is_ok()
        });
        match vouched {
            true => Ok(()),
            false => {
                Err("no authority of the trust root vouches for its certificate at the time of the signature".into())
            }
        }
    }

    fn check_name(&self, certificate: &X509Certificate<'_>) -> Result<(), String> {
        let issuer = issuer(certificate).ok_or("its certificate names no issuer of the identity")?;
        if issuer != self.issuer {
            return Err(format!("it was signed by an identity of {issuer:?}"));
        }
        let names = certificate.subject_alternative_name().ok().flatten();
        let names: Vec<&str> = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                GeneralName::RFC822Name(mail) => Some(*mail),
                _ => None,
            })
            .collect();
        match names.as_slice() {
            [name] if fits(self.subject.as_bytes(), name.as_bytes(), b'/') => Ok(()),
            [name] => Err(format!("it was signed by {name:?}")),
            _ => Err("its certificate does not name one identity".to_owned()),
        }
    }
}

fn issuer(certificate: &X509Certificate<'_>) -> Option<String> {
    let value = |wanted: &str| {
        certificate.extensions().iter().find(|extension| extension.oid.to_id_string() == wanted).map(|it| it.value)
    };
    if let Some(der) = value(ISSUER) {
        // A UTF8String of less than 128 bytes, or with a long length.
        let text = match der {
            [0x0c, length, text @ ..] if *length < 0x80 && text.len() == usize::from(*length) => text,
            [0x0c, 0x81, length, text @ ..] if text.len() == usize::from(*length) => text,
            _ => return None,
        };
        return String::from_utf8(text.to_vec()).ok();
    }
    value(ISSUER_OLD).and_then(|text| String::from_utf8(text.to_vec()).ok())
}

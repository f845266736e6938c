//! One signature and all that came with it: whatever its format, what was signed, by which means, and who saw it.

use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use super::log::LogEntry;
use crate::digest::Digest;

/// cosign's payload that says which image is signed.
const PAYLOAD_TYPE: &str = "cosign container image signature";
/// The statement by which cosign signs an image since version 3.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Subjects of one statement that are looked at.
const SUBJECTS_MAX: usize = 1024;

/// What may have been signed: a manifest or index that leads to the image.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) digest: Digest,
    pub(crate) content: Vec<u8>,
}

/// One signature, and all that came with it.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    pub(super) claim: Claim,
    pub(super) signature: Vec<u8>,
    /// The signer's certificate.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// Those between it and a root.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Where it stands in transparency logs.
    pub(super) logged: Vec<LogEntry>,
    /// Answers of timestamp authorities, RFC 3161.
    pub(super) stamps: Vec<Vec<u8>>,
}

/// What a signature is about.
#[derive(Debug, Clone)]
pub(super) enum Claim {
    /// cosign's simple signing format.
    Payload(Vec<u8>),
    /// An envelope of DSSE with a statement of in-toto.
    Envelope { payload_type: String, payload: Vec<u8> },
    /// The manifest itself, by its digest.
    Manifest(Digest),
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<StatementSubject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct StatementSubject {
    digest: Digests,
}

#[derive(Deserialize)]
struct Digests {
    sha256: Option<String>,
}

impl Claim {
    /// The bytes under the signature, if they are about one of `subjects`. Whether they are signed is another question.
    pub(super) fn signed_bytes(&self, subjects: &[Subject]) -> Result<Vec<u8>, String> {
        match self {
            Self::Payload(payload) => {
                let signed = of_payload(payload)?;
                match subjects.iter().any(|subject| subject.digest == signed) {
                    true => Ok(payload.clone()),
                    false => Err(format!("the signature is for another image, {signed}")),
                }
            }
            Self::Envelope { payload_type, payload } => {
                if payload_type != IN_TOTO {
                    return Err(format!("its envelope holds {payload_type:?}, not {IN_TOTO:?}"));
                }
                check_statement(payload, subjects)?;
                Ok(pre_authentication_encoding(payload_type, payload))
            }
            Self::Manifest(digest) => match subjects.iter().find(|subject| subject.digest == *digest) {
                Some(subject) => Ok(subject.content.clone()),
                None => Err(format!("the signature is for another image, {digest}")),
            },
        }
    }
}

fn of_payload(payload: &[u8]) -> Result<Digest, String> {
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|_| "its payload is not cosign's simple signing format".to_owned())?;
    match payload.critical.kind == PAYLOAD_TYPE {
        true => Ok(payload.critical.image.docker_manifest_digest),
        false => Err("its payload is not a container image signature".to_owned()),
    }
}

/// Whether a statement says that one of `subjects` is signed. Who attests how an image was built has not signed it.
fn check_statement(payload: &[u8], subjects: &[Subject]) -> Result<(), String> {
    let statement: Statement =
        serde_json::from_slice(payload).map_err(|_| "its envelope holds no statement of in-toto".to_owned())?;
    if !statement.kind.starts_with("https://in-toto.io/Statement/") {
        return Err("its envelope holds no statement of in-toto".to_owned());
    }
    if statement.predicate_type != SIGNED {
        return Err(format!("it is an attestation of type {:?}, not a signature", statement.predicate_type));
    }
    let named = statement.subject.iter().take(SUBJECTS_MAX).filter_map(|subject| subject.digest.sha256.as_deref());
    match named.clone().any(|hex| subjects.iter().any(|subject| subject.digest.hex() == hex)) {
        true => Ok(()),
        false => match named.clone().next() {
            Some(hex) => Err(format!("the signature is for another image, sha256:{hex}")),
            None => Err("its statement names no image by sha256".to_owned()),
        },
    }
}

/// What DSSE signs.
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

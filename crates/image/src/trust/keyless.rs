//! Keyless signatures: a certificate of an identity, and a transparency log's word that it was used while it was valid.
//!
//! The certificate must come from a configured authority for signing code, name the identity and its issuer, and have been
//! valid when it was used: at every time that a log or a timestamp authority has signed for this very signature, and there
//! must be one. Certificate transparency (the SCT in the certificate) is not checked.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::key::Key;
use super::policy::fits;
use super::root::TrustRoot;
use super::signature::Signature;
use super::timestamp;

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

/// Who a certificate is for, by its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) issuer: String,
    pub(super) subject: String,
}

impl Named {
    /// Reads them. Whether anybody vouches for the certificate is another question.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| "its certificate is malformed".to_owned())?;
        let issuer = issuer(&certificate).ok_or("its certificate names no issuer of the identity")?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            GeneralName::RFC822Name(mail) => Some(*mail),
            _ => None,
        });
        match names.collect::<Vec<_>>().as_slice() {
            [name] => Ok(Self { issuer, subject: (*name).to_owned() }),
            _ => Err("its certificate does not name one identity".to_owned()),
        }
    }
}

impl Identity {
    /// Whether a signature over `signed` is this identity's; then which one it is exactly.
    pub(super) fn check(&self, signature: &Signature, signed: &[u8]) -> Result<Named, String> {
        let leaf = signature.certificate.as_ref().ok_or("the signature has no certificate of an identity")?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| "its certificate is malformed")?;
        let key = Key::from_der(certificate.public_key().raw)?;
        if !key.verifies(signed, &signature.signature) {
            return Err("the signature is not of its certificate".to_owned());
        }
        for time in self.times(signature, signed, leaf)? {
            self.check_chain(leaf, &signature.chain, time)?;
        }
        let named = Named::of(leaf)?;
        self.check_name(&named)?;
        Ok(named)
    }

    /// When it was made, by everyone whom the trust root believes; at least one log of it has taken the signature in.
    fn times(&self, signature: &Signature, signed: &[u8], leaf: &CertificateDer<'_>) -> Result<Vec<UnixTime>, String> {
        // Several may have seen it, of whom not all are known here.
        let believed = |seen: Vec<Result<Option<UnixTime>, String>>, none: &str| {
            let (good, bad): (Vec<_>, Vec<_>) = seen.into_iter().partition(Result::is_ok);
            match (good.is_empty(), bad.into_iter().find_map(Result::err)) {
                (false, _) => Ok(good.into_iter().flatten().flatten()),
                (true, why) => Err(why.unwrap_or_else(|| none.to_owned())),
            }
        };
        let logged = signature.logged.iter().map(|entry| entry.check(&self.root, signature, signed, leaf));
        let logged = believed(logged.collect(), "the signature does not stand in a transparency log")?;
        let stamps = signature.stamps.iter().map(|stamp| timestamp::check(stamp, &signature.signature, &self.root));
        let stamped = believed(
            stamps.map(|time| time.map(Some)).collect(),
            "neither a log nor a timestamp authority has signed when it was made",
        );
        let mut times: Vec<UnixTime> = logged.collect();
        match stamped {
            Ok(stamped) => times.extend(stamped),
            Err(why) if times.is_empty() => return Err(why),
            Err(_) => {}
        }
        Ok(times)
    }

    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        given: &[CertificateDer<'static>],
        time: UnixTime,
    ) -> Result<(), String> {
        let end = EndEntityCert::try_from(leaf).map_err(|_| "its certificate is malformed")?;
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = provider.signature_verification_algorithms.all;
        let vouched =
            self.root.authorities.iter().filter(|authority| authority.validity.holds(time)).any(|authority| {
                let Some((root, between)) = authority.chain.split_last() else { return false };
                let Ok(anchor) = anchor_from_trusted_cert(root) else { return false };
                let between: Vec<CertificateDer<'_>> = between.iter().chain(given).cloned().collect();
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

    fn check_name(&self, named: &Named) -> Result<(), String> {
        if named.issuer != self.issuer {
            return Err(format!("it was signed by an identity of {:?}", named.issuer));
        }
        match fits(self.subject.as_bytes(), named.subject.as_bytes(), b'/') {
            true => Ok(()),
            false => Err(format!("it was signed by {:?}", named.subject)),
        }
    }

    /// Whether the same was found of a signature before, by the same trust root.
    pub(super) fn holds(&self, named: &Named, root: crate::digest::Digest) -> bool {
        self.root.digest == root && self.check_name(named).is_ok()
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

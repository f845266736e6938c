//! Signed timestamps (RFC 3161): an answer of a timestamp authority comes in, the time it vouches for goes out.
//!
//! The authority's signing certificate is the first of its chain in the trust root; what an answer says of certificates
//! counts for nothing.

use rustls::pki_types::UnixTime;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::asn1_rs::{Any, Class, Tag};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::key::Key;
use super::root::{Authority, TrustRoot, unix_time};

/// id-kp-timeStamping, as DER has it.
const TIME_STAMPING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];
/// id-signedData, id-ct-TSTInfo, id-contentType, id-messageDigest.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const TST_INFO: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x04];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
const SHA512: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];

/// What an answer holds, as far as it counts.
struct Stamp<'a> {
    /// The authority's words.
    info: &'a [u8],
    /// What it signed of them: attributes with a hash of the words.
    attributes: &'a [u8],
    hash: &'a [u8],
    signature: &'a [u8],
}

/// The time at which an authority of `root` saw `signature`.
pub(super) fn check(answer: &[u8], signature: &[u8], root: &TrustRoot) -> Result<UnixTime, String> {
    let malformed = || "its timestamp is malformed".to_owned();
    let stamp = Stamp::parse(answer).ok_or_else(malformed)?;
    let (seen, time) = stamp.words().ok_or_else(malformed)?;
    if !seen(signature) {
        return Err("its timestamp is for another signature".to_owned());
    }
    match root.stamps.iter().any(|authority| vouches(authority, &stamp, time)) {
        true => Ok(time),
        false => Err("no timestamp authority of the trust root vouches for its timestamp".to_owned()),
    }
}

fn vouches(authority: &Authority, stamp: &Stamp<'_>, time: UnixTime) -> bool {
    let Some((leaf, above)) = authority.chain.split_first() else { return false };
    let Some((root, between)) = above.split_last() else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return false };
    let Ok(key) = Key::from_der(certificate.public_key().raw) else { return false };
    let (Ok(anchor), Ok(end)) = (anchor_from_trusted_cert(root), EndEntityCert::try_from(leaf)) else { return false };
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let usage = KeyUsage::required(TIME_STAMPING);
    // Signed is the set of attributes, which in the message has a tag of its own.
    let mut signed = stamp.attributes.to_vec();
    if let Some(tag) = signed.first_mut() {
        *tag = 0x31;
    }
    authority.validity.holds(time)
        && stamp.attributes_fit()
        && key.verifies(&signed, stamp.signature)
        && end.verify_for_usage(algorithms, &[anchor], between, time, usage, None, None).is_ok()
}

impl<'a> Stamp<'a> {
    /// Reads a TimeStampResp.
    fn parse(answer: &'a [u8]) -> Option<Self> {
        let mut response = Reader(answer).within(Tag::Sequence)?;
        // Granted, or granted with changes.
        let status = response.within(Tag::Sequence)?.take(Tag::Integer)?;
        if !matches!(status, [0 | 1]) {
            return None;
        }
        let mut content = response.within(Tag::Sequence)?;
        if content.take(Tag::Oid)? != SIGNED_DATA {
            return None;
        }
        let mut signed = content.context(0)?.within(Tag::Sequence)?;
        signed.take(Tag::Integer)?;
        signed.take(Tag::Set)?;
        let mut encapsulated = signed.within(Tag::Sequence)?;
        if encapsulated.take(Tag::Oid)? != TST_INFO {
            return None;
        }
        let info = encapsulated.context(0)?.take(Tag::OctetString)?;
        // Certificates and revocation lists.
        signed.context(0);
        signed.context(1);
        let mut signer = signed.within(Tag::Set)?.within(Tag::Sequence)?;
        signer.take(Tag::Integer)?;
        // Who it says it is.
        signer.any()?;
        let hash = signer.within(Tag::Sequence)?.take(Tag::Oid)?;
        let before = signer.0;
        signer.context(0)?;
        let attributes = before.get(..before.len().checked_sub(signer.0.len())?)?;
        signer.take(Tag::Sequence)?;
        let signature = signer.take(Tag::OctetString)?;
        Some(Self { info, attributes, hash, signature })
    }

    /// Whether the attributes say that these very words are signed, and that they are a timestamp's.
    fn attributes_fit(&self) -> bool {
        let mut attributes = Reader(self.attributes);
        let Some(mut attributes) = attributes.context(0) else { return false };
        let (mut types, mut digests) = (Vec::new(), Vec::new());
        while let Some(mut attribute) = attributes.within(Tag::Sequence) {
            let (Some(name), Some(mut values)) = (attribute.take(Tag::Oid), attribute.within(Tag::Set)) else {
                return false;
            };
            match name {
                CONTENT_TYPE => types.push(values.take(Tag::Oid)),
                MESSAGE_DIGEST => digests.push(values.take(Tag::OctetString)),
                _ => {}
            }
        }
        let Some(digest) = hashed(self.hash, self.info) else { return false };
        types == [Some(TST_INFO)] && digests == [Some(digest.as_slice())]
    }

    /// What was seen, and when.
    fn words(&self) -> Option<(impl Fn(&[u8]) -> bool + 'a, UnixTime)> {
        let mut info = Reader(self.info).within(Tag::Sequence)?;
        info.take(Tag::Integer)?;
        info.take(Tag::Oid)?;
        let mut imprint = info.within(Tag::Sequence)?;
        let hash = imprint.within(Tag::Sequence)?.take(Tag::Oid)?;
        let digest = imprint.take(Tag::OctetString)?;
        info.take(Tag::Integer)?;
        let time = std::str::from_utf8(info.take(Tag::GeneralizedTime)?).ok()?;
        Some((move |content: &[u8]| hashed(hash, content).is_some_and(|hash| hash == digest), generalized(time)?))
    }
}

fn hashed(algorithm: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    match algorithm {
        SHA256 => Some(Sha256::digest(content).to_vec()),
        SHA384 => Some(Sha384::digest(content).to_vec()),
        SHA512 => Some(Sha512::digest(content).to_vec()),
        _ => None,
    }
}

/// `20260604174329Z`, perhaps with a fraction, which is left out.
fn generalized(text: &str) -> Option<UnixTime> {
    let whole = text.strip_suffix('Z')?.split('.').next()?;
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", whole).ok()?;
    let seconds = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    Some(unix_time(u64::try_from(seconds).ok()?))
}

/// Values of DER, one after the other. What is not as expected is `None`, and stays unread.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn any(&mut self) -> Option<Any<'a>> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(any)
    }

    fn if_next(&mut self, fits: impl Fn(&Any<'a>) -> bool) -> Option<&'a [u8]> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        fits(&any).then(|| {
            self.0 = rest;
            any.data
        })
    }

    /// The content of the next value, which is one of these.
    fn take(&mut self, tag: Tag) -> Option<&'a [u8]> {
        self.if_next(|any| any.class() == Class::Universal && any.tag() == tag)
    }

    fn within(&mut self, tag: Tag) -> Option<Self> {
        self.take(tag).map(Self)
    }

    /// The content of the next value, if it is the one of this number.
    fn context(&mut self, number: u32) -> Option<Self> {
        self.if_next(|any| any.class() == Class::ContextSpecific && any.tag() == Tag(number)).map(Self)
    }
}

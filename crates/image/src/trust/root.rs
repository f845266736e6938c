//! Sigstore's `trusted_root.json`: the certificate authorities, transparency logs and timestamp authorities that a keyless
//! policy believes, each for as long as the file says.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::Deserialize;

use super::key::Key;
use crate::digest::Digest;

/// What is believed.
#[derive(Debug, Clone)]
pub(super) struct TrustRoot {
    pub(super) authorities: Vec<Authority>,
    pub(super) logs: Vec<Log>,
    pub(super) stamps: Vec<Authority>,
    /// Of the file, by which one root is told from another.
    pub(super) digest: Digest,
}

/// A chain of certificates: of a certificate authority from an intermediate, if any, to its root; of a timestamp authority
/// from the certificate that signs.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) validity: Validity,
}

/// A transparency log.
#[derive(Debug, Clone)]
pub(super) struct Log {
    /// By which its entries name it: the hash of its key, and what the file says.
    pub(super) ids: Vec<Vec<u8>>,
    pub(super) key: Key,
    /// The host of its URL, which is what it calls itself in checkpoints since Rekor v2.
    pub(super) host: String,
    pub(super) validity: Validity,
}

/// From when until when something is believed, both included.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Validity {
    from: Option<u64>,
    until: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    tlogs: Vec<LogEntry>,
    #[serde(default)]
    certificate_authorities: Vec<AuthorityEntry>,
    #[serde(default)]
    timestamp_authorities: Vec<AuthorityEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogEntry {
    #[serde(default)]
    base_url: String,
    public_key: PublicKey,
    log_id: Option<KeyId>,
    checkpoint_key_id: Option<KeyId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicKey {
    raw_bytes: String,
    valid_for: Option<Range>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityEntry {
    cert_chain: Chain,
    valid_for: Option<Range>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
struct Range {
    start: Option<jiff::Timestamp>,
    end: Option<jiff::Timestamp>,
}

impl From<Option<Range>> for Validity {
    fn from(range: Option<Range>) -> Self {
        let seconds = |at: Option<jiff::Timestamp>| at.map(|at| u64::try_from(at.as_second()).unwrap_or(0));
        range.map_or_else(Self::default, |range| Self { from: seconds(range.start), until: seconds(range.end) })
    }
}

impl Validity {
    pub(super) fn holds(self, time: UnixTime) -> bool {
        let at = time.as_secs();
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at <= until)
    }
}

fn bytes(base64: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(base64).map_err(|_| "bytes in it are not base64".to_owned())
}

impl TryFrom<AuthorityEntry> for Authority {
    type Error = String;

    fn try_from(entry: AuthorityEntry) -> Result<Self, String> {
        let certificates = entry.cert_chain.certificates.iter();
        let chain = certificates.map(|certificate| Ok(CertificateDer::from(bytes(&certificate.raw_bytes)?)));
        Ok(Self { chain: chain.collect::<Result<_, String>>()?, validity: entry.valid_for.into() })
    }
}

impl TrustRoot {
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(json).map_err(|error| format!("it is no trusted root: {error}"))?;
        let mut logs = Vec::new();
        for entry in file.tlogs {
            // A log whose key is of a newer kind signs nothing that is looked at here.
            let Ok(key) = Key::from_der(&bytes(&entry.public_key.raw_bytes)?) else { continue };
            let named = [entry.log_id, entry.checkpoint_key_id].into_iter().flatten().map(|id| bytes(&id.key_id));
            let mut ids = named.collect::<Result<Vec<_>, _>>()?;
            ids.push(key.fingerprint().bytes().to_vec());
            let host = host(&entry.base_url).to_owned();
            logs.push(Log { ids, key, host, validity: entry.public_key.valid_for.into() });
        }
        let chains =
            |entries: Vec<AuthorityEntry>| entries.into_iter().map(Authority::try_from).collect::<Result<Vec<_>, _>>();
        let authorities = chains(file.certificate_authorities)?;
        let stamps = chains(file.timestamp_authorities)?;
        match authorities.iter().all(|authority| authority.chain.is_empty()) || logs.is_empty() {
            true => {
                Err("it names no certificate authority, or no transparency log with a key that is supported".into())
            }
            false => Ok(Self { authorities, logs, stamps, digest: Digest::of(json) }),
        }
    }
}

/// The host of a URL, which may lack its scheme.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or_default()
}

/// Seconds since the epoch, as logs count them.
pub(super) fn unix_time(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

//! Sigstore's `trusted_root.json`: certificate authorities and transparency logs that a keyless policy believes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::key::Key;

/// What is believed.
#[derive(Debug, Clone)]
pub(super) struct TrustRoot {
    /// Each a chain from an intermediate, if any, to its root.
    pub(super) authorities: Vec<Vec<CertificateDer<'static>>>,
    pub(super) logs: Vec<Log>,
}

/// A transparency log.
#[derive(Debug, Clone)]
pub(super) struct Log {
    /// The hash of its key, in hex, as its entries name it.
    pub(super) id: String,
    pub(super) key: Key,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    tlogs: Vec<LogEntry>,
    #[serde(default)]
    certificate_authorities: Vec<Authority>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogEntry {
    public_key: Raw,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authority {
    cert_chain: Chain,
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

impl Raw {
    fn bytes(&self) -> Result<Vec<u8>, String> {
        STANDARD.decode(&self.raw_bytes).map_err(|_| "rawBytes in it are not base64".to_owned())
    }
}

impl TrustRoot {
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(json).map_err(|error| format!("it is no trusted root: {error}"))?;
        let mut logs = Vec::new();
        for entry in &file.tlogs {
            let der = entry.public_key.bytes()?;
            // A log whose key is of a newer kind signs nothing that is looked at here.
            if let Ok(key) = Key::from_der(&der) {
                logs.push(Log { id: hex::encode(Sha256::digest(key.der())), key });
            }
        }
        let mut authorities = Vec::new();
        for authority in &file.certificate_authorities {
            let chain = authority.cert_chain.certificates.iter().map(|raw| Ok(CertificateDer::from(raw.bytes()?)));
            authorities.push(chain.collect::<Result<Vec<_>, String>>()?);
        }
        match authorities.iter().all(Vec::is_empty) || logs.is_empty() {
            true => {
                Err("it names no certificate authority, or no transparency log with a key that is supported".into())
            }
            false => Ok(Self { authorities, logs }),
        }
    }
}

/// A log's time, which is seconds since the epoch.
pub(super) fn log_time(seconds: u64) -> rustls::pki_types::UnixTime {
    rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

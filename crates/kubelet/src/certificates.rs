//! What the HTTPS server proves itself with, and whom it believes.
//!
//! In come file names, or the node's names and addresses; out go a certificate chain with its key, and the client CAs. A
//! certificate of our own making is kept in the certificate directory and used again while it is good. Keys never leave
//! their file but into rustls.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use crate::config::ServerOptions;

/// A self-signed certificate is good for so long…
const VALID_FOR_DAYS: i64 = 365;
/// …and made anew when it ends within this.
const RENEW_BEFORE_DAYS: i64 = 30;

/// Why there is no certificate, or no client CA.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum CertificateError {
    #[error("{}: the file cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: the file cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: {message}", path.display())]
    Content { path: PathBuf, message: String },
    #[error("{} and {}: the key is not the certificate's", certificate.display(), key.display())]
    Mismatch { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("a serving certificate cannot be made")]
    Make { source: rcgen::Error },
}

/// The serving certificate: the files the options name, else one of our own making in `cert_dir`.
///
/// # Errors
/// Files that cannot be read, written or understood.
pub fn serving(
    options: &ServerOptions,
    cert_dir: &Path,
    node_name: &str,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    if let Some((certificate, key)) = &options.tls {
        return load(certificate, key).map(Arc::new);
    }
    let (certificate, key) = (cert_dir.join("kubelet.crt"), cert_dir.join("kubelet.key"));
    if let Ok(kept) = load(&certificate, &key)
        && kept.cert.first().is_some_and(|leaf| is_good(leaf, node_name, addresses, now))
    {
        return Ok(Arc::new(kept));
    }
    let made = make(node_name, addresses, now).map_err(|source| CertificateError::Make { source })?;
    fs::create_dir_all(cert_dir).map_err(|source| CertificateError::Write { path: cert_dir.to_owned(), source })?;
    write_private(&key, &made.1)?;
    write_private(&certificate, &made.0)?;
    load(&certificate, &key).map(Arc::new)
}

/// The CAs whose client certificates are believed.
///
/// # Errors
/// The file cannot be read, or holds no certificate.
pub fn client_roots(path: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| CertificateError::Content { path: path.to_owned(), message: error.to_string() })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })?;
    let content = |message: String| CertificateError::Content { path: path.to_owned(), message };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(format!("this is not PEM: {error}")))?;
    if found.is_empty() { Err(content("there is no certificate in it".to_owned())) } else { Ok(found) }
}

/// A certificate chain and the key of its first certificate.
pub(crate) fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let chain = certificates(certificate)?;
    let pem = fs::read(key).map_err(|source| CertificateError::Read { path: key.to_owned(), source })?;
    let content = |message: String| CertificateError::Content { path: key.to_owned(), message };
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| content(format!("no private key: {error}")))?;
    let mismatch =
        |source| CertificateError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned(), source };
    CertifiedKey::from_der(chain, private, &provider()).map_err(mismatch)
}

/// The cryptography of this process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Whether a kept certificate still names this node and stays valid for a while.
fn is_good(leaf: &CertificateDer<'_>, node_name: &str, addresses: &[IpAddr], now: Timestamp) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return false };
    let ends = parsed.validity().not_after.timestamp();
    let needed = now.as_second() + SignedDuration::from_hours(24 * RENEW_BEFORE_DAYS).as_secs();
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    let names = &names.value.general_names;
    let octets = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    ends >= needed
        && names.iter().any(|name| matches!(name, GeneralName::DNSName(name) if *name == node_name))
        && addresses
            .iter()
            .all(|ip| names.iter().any(|name| matches!(name, GeneralName::IPAddress(bytes) if *bytes == octets(ip))))
}

/// A new self-signed certificate and its key, both PEM.
fn make(node_name: &str, addresses: &[IpAddr], now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let names = std::iter::once(node_name.to_owned()).chain(addresses.iter().map(IpAddr::to_string));
    let mut params = rcgen::CertificateParams::new(names.collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("{node_name}@{}", now.as_second()));
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let day = |days: i64| {
        let at = now.checked_add(SignedDuration::from_hours(24 * days)).unwrap_or(now);
        let date = at.to_zoned(TimeZone::UTC).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    (params.not_before, params.not_after) = (day(-1), day(VALID_FOR_DAYS));
    let key = rcgen::KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Writes a file only we may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), CertificateError> {
    let failed = |source| CertificateError::Write { path: path.to_owned(), source };
    let unfinished = path.with_extension("tmp");
    // A leftover of a crash may have any mode.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)
}

#[cfg(test)]
mod tests;

//! An authority that nobody else trusts, and a certificate of it for this machine's loopback.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Where the server's own are.
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Writes `ca.crt`, `server.crt` and `server.key` into `dir`.
pub(super) fn write(dir: &Path) -> Result<Files> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "wasklet-test-registry");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().context("generating the registry's authority")?;
    let authority = params.self_signed(&key).context("signing the registry's authority")?;
    let issuer = Issuer::new(params, key);

    let names = ["127.0.0.1", "localhost"].map(str::to_owned);
    let params = CertificateParams::new(names).context("naming the registry's certificate")?;
    let key = KeyPair::generate().context("generating the registry's key")?;
    let certificate = params.signed_by(&key, &issuer).context("signing the registry's certificate")?;

    let files = Files { certificate: dir.join("server.crt"), key: dir.join("server.key") };
    for (path, content) in [
        (&dir.join("ca.crt"), authority.pem()),
        (&files.certificate, certificate.pem()),
        (&files.key, key.serialize_pem()),
    ] {
        std::fs::write(path, content).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(files)
}

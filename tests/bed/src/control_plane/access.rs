//! Who is who: the authority of one control plane, the certificates it issues, and kubeconfigs made of them.
//!
//! Comes in: names, groups, what a certificate is for. Goes out: PEM files under `pki/`, kubeconfigs that name them.
//! Never here: what the API server allows them to do.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

#[derive(Debug)]
pub(super) enum Purpose {
    /// Serving TLS under these names and addresses.
    Server(Vec<String>),
    /// Authenticating to the API server or to a kubelet.
    Client,
}

#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The pair that service account tokens are signed and checked with.
#[derive(Debug)]
pub(super) struct ServiceAccountKeys {
    pub(super) private: PathBuf,
    pub(super) public: PathBuf,
}

#[derive(Debug)]
pub(super) struct Authority {
    dir: PathBuf,
    server: String,
    issuer: Issuer<'static, KeyPair>,
    identity: Identity,
}

impl Authority {
    /// An authority whose files are under `dir`, and whose kubeconfigs point to the API server at `server`.
    pub(super) fn create(dir: &Path, server: String) -> Result<Authority> {
        let pki = dir.join("pki");
        DirBuilder::new().mode(0o700).create(&pki).with_context(|| format!("creating {}", pki.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "wasklet-tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("generating the authority's key")?;
        let certificate = params.self_signed(&key).context("signing the authority's certificate")?;
        let identity = Identity { certificate: pki.join("ca.crt"), key: pki.join("ca.key") };
        write_private(&identity.certificate, &certificate.pem())?;
        write_private(&identity.key, &key.serialize_pem())?;

        let authority = Authority { dir: dir.to_path_buf(), server, issuer: Issuer::new(params, key), identity };
        let accounts = KeyPair::generate().context("generating the service account key")?;
        let keys = authority.service_account_keys();
        write_private(&keys.private, &accounts.serialize_pem())?;
        write_private(&keys.public, &accounts.public_key_pem())?;
        Ok(authority)
    }

    pub(super) fn certificate(&self) -> &Path {
        &self.identity.certificate
    }

    pub(super) fn key(&self) -> &Path {
        &self.identity.key
    }

    pub(super) fn service_account_keys(&self) -> ServiceAccountKeys {
        let pki = self.dir.join("pki");
        ServiceAccountKeys { private: pki.join("service-account.key"), public: pki.join("service-account.pub") }
    }

    /// Issues a certificate for this user and group, in files named after `file` and the purpose: most components
    /// are a server and a client.
    pub(super) fn issue(&self, file: &str, user: &str, group: Option<&str>, purpose: &Purpose) -> Result<Identity> {
        let (role, names, usage) = match purpose {
            Purpose::Server(names) => ("serving", names.clone(), ExtendedKeyUsagePurpose::ServerAuth),
            Purpose::Client => ("client", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
        };
        let mut params = CertificateParams::new(names).with_context(|| format!("naming {file}"))?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().with_context(|| format!("generating the key of {file}"))?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("signing {file}"))?;

        let pki = self.dir.join("pki");
        let identity = Identity {
            certificate: pki.join(format!("{file}-{role}.crt")),
            key: pki.join(format!("{file}-{role}.key")),
        };
        write_private(&identity.certificate, &certificate.pem())?;
        write_private(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }

    /// The kubeconfig of this user, issued when first asked for: a running client may be reading its files.
    pub(super) fn kubeconfig(&self, file: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let path = self.dir.join(format!("{file}.kubeconfig"));
        if path.exists() {
            return Ok(path);
        }
        let identity = self.issue(file, user, group, &Purpose::Client)?;
        write_kubeconfig(&path, &self.server, self.certificate(), &identity)?;
        Ok(path)
    }
}

/// Writes a kubeconfig that names the files of `identity`.
pub(super) fn write_kubeconfig(path: &Path, server: &str, authority: &Path, identity: &Identity) -> Result<()> {
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "wasklet-tests", "cluster": {
            "server": server,
            "certificate-authority": authority,
        }}],
        "users": [{ "name": "user", "user": {
            "client-certificate": identity.certificate,
            "client-key": identity.key,
        }}],
        "contexts": [{ "name": "wasklet-tests", "context": { "cluster": "wasklet-tests", "user": "user" }}],
        "current-context": "wasklet-tests",
    });
    write_private(path, &format!("{kubeconfig:#}\n"))
}

/// Writes the file whole or not at all, for its owner's eyes only.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    let staged = path.with_added_extension("staged");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| std::fs::rename(&staged, path));
    written.with_context(|| format!("writing {}", path.display()))
}

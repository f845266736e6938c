//! TLS: our certificate, and the client CAs, read again when their files change.
//!
//! In come files, out goes the TLS configuration that holds for the next connection. A client may come without a
//! certificate, for it may have a token; one that comes with a certificate of another CA is not let in.

use std::{fs, path::PathBuf, sync::Arc};

use rustls::{ServerConfig, server::WebPkiClientVerifier, sign::CertifiedKey};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::ServerError;
use crate::{certificates, config::ServerOptions};

/// What TLS is made of, and what came of it.
pub(super) struct Tls {
    options: ServerOptions,
    serving: Arc<CertifiedKey>,
    current: Arc<ServerConfig>,
    /// Hashes of what the files held when they were last looked at.
    seen: Vec<Option<[u8; 32]>>,
}

impl Tls {
    pub(super) fn new(options: &ServerOptions, serving: Arc<CertifiedKey>) -> Result<Self, ServerError> {
        let current = configuration(options, &serving)?;
        let seen = contents(options);
        Ok(Self { options: options.clone(), serving, current, seen })
    }

    /// For the next connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current)
    }

    /// Reads the files again, if they changed. Files that cannot be used leave things as they were.
    pub(super) fn reload(&mut self) {
        let found = contents(&self.options);
        if found == self.seen {
            return;
        }
        self.seen = found;
        match self.read_again() {
            Ok(()) => info!("the server's certificates were read again"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the server's certificates changed and cannot be used; the old ones stay");
            }
        }
    }

    fn read_again(&mut self) -> Result<(), ServerError> {
        let port = self.options.address.port();
        let serving = match &self.options.tls {
            Some((certificate, key)) => certificates::load(certificate, key)
                .map(Arc::new)
                .map_err(|source| ServerError::Certificate { port, source })?,
            None => Arc::clone(&self.serving),
        };
        self.current = configuration(&self.options, &serving)?;
        self.serving = serving;
        Ok(())
    }
}

fn contents(options: &ServerOptions) -> Vec<Option<[u8; 32]>> {
    let given = options.tls.iter().flat_map(|(certificate, key)| [certificate, key]);
    let files: Vec<&PathBuf> = given.chain(&options.client_ca_file).collect();
    files.into_iter().map(|path| fs::read(path).ok().map(|bytes| Sha256::digest(bytes).into())).collect()
}

fn configuration(options: &ServerOptions, serving: &Arc<CertifiedKey>) -> Result<Arc<ServerConfig>, ServerError> {
    let port = options.address.port();
    let builder = ServerConfig::builder_with_provider(certificates::provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| ServerError::Tls { port, source })?;
    let builder = match &options.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = certificates::client_roots(path).map_err(|source| ServerError::Certificate { port, source })?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), certificates::provider());
            let verifier = verifier.allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|source| ServerError::ClientCa { port, source })?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(serving))));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

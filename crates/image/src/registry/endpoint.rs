//! Where one host of a registry is and how it is reached: values come in, an HTTP client goes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, Identity, Proxy, Url, redirect};

use super::Limits;
use super::failure::{RegistryError, root_cause};

/// Where images that name no registry are, and the host that serves them.
const DOCKER: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// One host that serves a registry's images: the registry itself or a mirror of it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `https://host/v2`, with no slash at the end.
    pub(crate) base: String,
    /// Whether it may say what a tag stands for.
    pub(crate) resolves: bool,
    /// Whether it serves content under digests.
    pub(crate) pulls: bool,
    /// Whether images may be pushed to it.
    pub(crate) takes_pushes: bool,
    /// The registry it stands in for, if it is another host.
    pub(crate) stands_for: Option<String>,
    /// Whether it is the registry's own host, and so gets its credentials.
    pub(crate) is_own: bool,
    /// Sent with every request to it.
    pub(crate) headers: HeaderMap,
    /// How TLS is spoken with it.
    pub(crate) tls: Tls,
    /// In place of the usual one.
    pub(crate) connect_timeout: Option<Duration>,
    /// In place of those of the environment.
    pub(crate) proxy: Option<String>,
}

/// TLS beyond the system's certificate authorities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Files of certificate authorities, believed besides the system's.
    pub(crate) authorities: Vec<PathBuf>,
    /// Files of our own certificate and, where it is in another one, its key.
    pub(crate) identity: Option<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate is believed.
    pub(crate) skip_verify: bool,
}

impl Endpoint {
    /// The host that a registry's name says, with nothing special about it.
    pub(crate) fn of_registry(registry: &str, plain: bool) -> Self {
        let scheme = if plain { "http" } else { "https" };
        Self {
            base: format!("{scheme}://{}/v2", host_of_registry(registry)),
            resolves: true,
            pulls: true,
            takes_pushes: true,
            stands_for: None,
            is_own: true,
            headers: HeaderMap::new(),
            tls: Tls::default(),
            connect_timeout: None,
            proxy: None,
        }
    }

    /// Whether the client of all ordinary hosts serves it.
    pub(crate) fn is_ordinary(&self) -> bool {
        self.tls == Tls::default() && self.connect_timeout.is_none() && self.proxy.is_none()
    }

    /// As messages name it: without what may be secret in a path or a user's part.
    pub(crate) fn host(&self) -> String {
        let url = Url::parse(&self.base).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        match url.as_ref().and_then(Url::port) {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Redirects are not the client's business, as they decide who sees which header.
    pub(crate) fn client(&self, limits: &Limits) -> Result<Client, RegistryError> {
        let unusable = |what: String| RegistryError::Client(format!("{what} (for host {})", self.host()));
        let mut builder = Client::builder()
            .user_agent(concat!("wasklet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout.unwrap_or(limits.connect_timeout))
            .redirect(redirect::Policy::none());
        if let Some(proxy) = &self.proxy {
            let proxy = Proxy::all(proxy).map_err(|_| unusable("its proxy is not usable".to_owned()))?;
            builder = builder.no_proxy().proxy(proxy);
        }
        for path in &self.tls.authorities {
            let bundle = Certificate::from_pem_bundle(&read(path).map_err(unusable)?);
            let bundle = bundle.ok().filter(|bundle| !bundle.is_empty());
            let bundle = bundle.ok_or_else(|| unusable(format!("{} holds no PEM certificate", path.display())))?;
            builder = builder.tls_certs_merge(bundle);
        }
        if let Some((certificate, key)) = &self.tls.identity {
            let mut pem = read(certificate).map_err(unusable)?;
            if let Some(key) = key {
                pem.push(b'\n');
                pem.extend(read(key).map_err(unusable)?);
            }
            let wrong = |_| unusable(format!("{} holds no PEM certificate with its key", certificate.display()));
            builder = builder.identity(Identity::from_pem(&pem).map_err(wrong)?);
        }
        builder = builder.tls_danger_accept_invalid_certs(self.tls.skip_verify);
        builder.build().map_err(|error| unusable(root_cause(&error)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The host behind a registry's name.
pub(crate) fn host_of_registry(registry: &str) -> &str {
    if registry == DOCKER.0 { DOCKER.1 } else { registry }
}

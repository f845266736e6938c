//! Registries: an image's name, credentials and what this machine is told of hosts come in; manifests and blobs go out,
//! or up.
//!
//! The OCI distribution protocol over HTTP, and nothing of what a manifest says. One [`Session`] is one pull or push:
//! credentials and tokens live and die with it, so that no pull rides on another's. Every answer is read up to a bound,
//! every wait has an end. What a registry says in words is not repeated, only its status and error codes are, and
//! neither a URL (it may be signed) nor a header ever stands in an error.

mod ask;
mod challenge;
mod download;
mod endpoint;
mod failure;
mod host;
mod hosts_file;
mod push;
mod referrers;
mod session;
mod token;
mod tries;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) use self::failure::RegistryError;
pub use self::push::{Push, PushBlob, PushContent, PushError, PushProgress};
pub(crate) use self::referrers::referrers_of;
pub(crate) use self::session::{MANIFEST_BYTES_MAX, Session};
use crate::credentials::Credentials;
use crate::reference::{Reference, host_of};

/// Bounds of everything that is asked of a registry.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection to a registry.
    pub connect_timeout: Duration,
    /// For a connection on which nothing comes.
    pub stall_timeout: Duration,
    /// For a token and a manifest together.
    pub manifest_timeout: Duration,
    /// For one blob, however steadily it drips.
    pub layer_timeout: Duration,
    /// Bytes of a wasm layer, and of each layer of a Spin application.
    pub wasm_bytes_max: u64,
    /// Bytes of a layer of files, as it is downloaded.
    pub layer_bytes_max: u64,
    /// Bytes that all layers of files of one image may unfold to.
    pub unpacked_bytes_max: u64,
    /// Files and directories that all layers of one image may list.
    pub entries_max: u64,
    /// Tries of each request, when failures may pass. A download that got on meanwhile does not use one up.
    pub tries: u32,
    /// Before the second try; it doubles with each, and is spread.
    pub pause: Duration,
    /// The longest wait a registry may ask for (`Retry-After`); one that asks for more has failed.
    pub retry_after_max: Duration,
    /// Blobs of one image that are fetched at once.
    pub parallel_downloads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            manifest_timeout: Duration::from_secs(60),
            layer_timeout: Duration::from_secs(30 * 60),
            wasm_bytes_max: 512 * 1024 * 1024,
            layer_bytes_max: 4 * 1024 * 1024 * 1024,
            unpacked_bytes_max: 8 * 1024 * 1024 * 1024,
            entries_max: 1_000_000,
            tries: 3,
            pause: Duration::from_millis(500),
            retry_after_max: Duration::from_secs(30),
            // containerd's max_concurrent_downloads.
            parallel_downloads: 3,
        }
    }
}

/// What this machine is told of registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Registries spoken to in plain HTTP, as `host` (any port) or `host:port`, besides those on loopback.
    pub plain_http: Vec<String>,
    /// A directory of containerd's `hosts.toml` files: mirrors, certificate authorities, client certificates.
    pub hosts_directory: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// All registries, as this machine reaches them. Clones share connections, never credentials.
#[derive(Clone)]
pub struct Registries(Arc<Inner>);

struct Inner {
    options: RegistryOptions,
    /// The client for hosts that nothing is said of, once there is one: most hosts.
    ordinary: Mutex<Option<reqwest::Client>>,
}

impl Registries {
    /// Proxies are taken from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). The process's TLS provider
    /// becomes ring, unless one was installed before.
    #[must_use]
    pub fn new(options: RegistryOptions) -> Self {
        // An error says that there is one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(Arc::new(Inner { options, ordinary: Mutex::default() }))
    }

    /// Opens a session for one image. Nothing is asked yet.
    pub(crate) fn session(
        &self,
        image: &Reference,
        credentials: Option<&Credentials>,
        access: Access,
    ) -> Result<Session, RegistryError> {
        let options = &self.0.options;
        let registry = image.registry();
        let configured = |host: &String| host == registry || host == host_of(registry);
        let plain = image.is_loopback() || options.plain_http.iter().any(configured);
        let endpoints = match &options.hosts_directory {
            Some(directory) => hosts_file::endpoints(directory, registry, plain)?,
            None => vec![endpoint::Endpoint::of_registry(registry, plain)],
        };
        let hosts = endpoints.into_iter().map(|endpoint| {
            let client = self.client(&endpoint)?;
            // What proves something to the registry is nobody else's business.
            let credentials = if endpoint.is_own { credentials.cloned() } else { None };
            Ok(host::Host::new(endpoint, client, image, (credentials, access), options.limits))
        });
        let hosts = hosts.collect::<Result<_, RegistryError>>()?;
        Ok(Session::new(image.clone(), hosts, options.limits))
    }

    fn client(&self, endpoint: &endpoint::Endpoint) -> Result<reqwest::Client, RegistryError> {
        let limits = &self.0.options.limits;
        if !endpoint.is_ordinary() {
            // Made anew for each session, so that changed certificates are seen.
            return endpoint.client(limits);
        }
        let mut ordinary = self.0.ordinary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = ordinary.as_ref() {
            return Ok(client.clone());
        }
        let client = endpoint.client(limits)?;
        *ordinary = Some(client.clone());
        Ok(client)
    }
}

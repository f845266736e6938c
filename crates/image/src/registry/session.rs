//! One pull: what a reference names comes out of the hosts of its registry, in their order.
//!
//! A mirror that fails, lacks something or lies is passed over, and the next host is asked; the registry itself comes
//! last and is the one whose failure is told.

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Method;
use tokio::sync::Semaphore;

use super::Limits;
use super::ask::{Ask, Place};
use super::endpoint::Endpoint;
use super::failure::{Failure, RegistryError};
use super::host::{Host, read_bounded};
use super::tries::Tries;
use crate::digest::Digest;
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::reference::Reference;
use crate::store::Store;

/// Registries take manifests of at most 4 MiB; configurations are held to the same.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
const CONTENT_DIGEST: &str = "docker-content-digest";

/// One pull's or push's connection to the hosts of a registry.
pub(crate) struct Session {
    image: Reference,
    pub(super) hosts: Vec<Host>,
    pub(super) limits: Limits,
    /// Downloads of this session that may run at once.
    downloads: Semaphore,
}

impl Session {
    pub(super) fn new(image: Reference, hosts: Vec<Host>, limits: Limits) -> Self {
        let downloads = Semaphore::new(limits.parallel_downloads.max(1));
        Self { image, hosts, limits, downloads }
    }

    /// The manifest or index with this digest, or else the one the reference names.
    pub(crate) async fn manifest(&self, digest: Option<Digest>) -> Result<Vec<u8>, RegistryError> {
        let pinned = digest.or(self.image.digest());
        self.bounded(&self.manifest_ask(Method::GET, pinned), MANIFEST_BYTES_MAX, pinned).await
    }

    /// The manifest with another tag of the same repository.
    pub(crate) async fn tagged(&self, tag: &str) -> Result<Vec<u8>, RegistryError> {
        let ask = self.manifest_ask(Method::GET, None);
        let ask = Ask { place: Place::Path(format!("manifests/{tag}")), ..ask };
        self.bounded(&ask, MANIFEST_BYTES_MAX, None).await
    }

    /// The manifests that name the one with this digest as their subject (OCI 1.1), as far as the registry keeps count of
    /// them; [`RegistryError::Missing`] if it does not.
    pub(crate) async fn referrers(&self, digest: Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let pulls = |endpoint: &Endpoint| endpoint.pulls;
        self.first(pulls, |host| self.within_manifest_time(host.referrers(digest, MANIFEST_BYTES_MAX)).boxed()).await
    }

    /// What is asked for, of at most `bytes_max`, checked against its digest if that is known.
    async fn bounded(&self, ask: &Ask, bytes_max: u64, digest: Option<Digest>) -> Result<Vec<u8>, RegistryError> {
        let fits = |endpoint: &Endpoint| endpoint.pulls && (digest.is_some() || endpoint.resolves);
        let attempt = |host| {
            let got =
                self.within_manifest_time(async move { read_bounded(Host::send(host, ask).await?, bytes_max).await });
            async move { checked(got.await?, digest) }.boxed()
        };
        self.first(fits, attempt).await
    }

    /// Asks one host after the other, each as often as it is worth, until an attempt comes to something.
    async fn first<'a, T>(
        &'a self,
        fits: impl Fn(&Endpoint) -> bool,
        attempt: impl Fn(&'a Host) -> BoxFuture<'a, Result<T, Failure>>,
    ) -> Result<T, RegistryError> {
        let mut failed = None;
        for (host, tries) in self.hosts_that(fits)? {
            let mut tries = Tries::new(self.limits, tries);
            let error = loop {
                match attempt(host).await {
                    Ok(got) => return Ok(got),
                    Err(failure) => {
                        if let Err(error) = tries.after(failure).await {
                            break error;
                        }
                    }
                }
            };
            failed = Some(self.passed_over(host, failed, error));
        }
        Err(failed.unwrap_or_else(no_host))
    }

    /// The digest of what the reference names, if a host says it without sending it. This asks, with credentials, and
    /// so also tells whether the image may be had at all.
    ///
    /// # Errors
    /// That the registry itself denies it; everything else is for the request that follows to find out.
    pub(crate) async fn look(&self) -> Result<Option<Digest>, RegistryError> {
        let pinned = self.image.digest();
        let ask = self.manifest_ask(Method::HEAD, pinned);
        let hosts = self.hosts_that(|endpoint| endpoint.pulls && (pinned.is_some() || endpoint.resolves))?;
        let is_last = hosts.len() == 1;
        let Some((host, _)) = hosts.into_iter().next() else { return Ok(None) };
        match self.within_manifest_time(host.send(&ask)).await {
            Ok(answer) => {
                let said = answer.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
                Ok(pinned.or(said.and_then(|digest| digest.parse().ok())))
            }
            Err(Failure::Lasting(error @ RegistryError::Denied { .. })) if is_last => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Fetches a blob into the store, where it is checked. `received` hears how many bytes of it are here.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        store: &Store,
        received: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        // The semaphore is never closed.
        let _turn = self.downloads.acquire().await;
        let mut failed = None;
        for (host, tries) in self.hosts_that(|endpoint| endpoint.pulls)? {
            let tries = Tries::new(self.limits, tries);
            let download = host.download(blob, store, tries, self.limits.stall_timeout, received);
            let error = match tokio::time::timeout(self.limits.layer_timeout, download).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => {
                    RegistryError::Unavailable(format!("it took longer than {} s", self.limits.layer_timeout.as_secs()))
                }
            };
            failed = Some(self.passed_over(host, failed, error));
        }
        Err(failed.unwrap_or_else(no_host))
    }

    /// A small blob of at most `limit_bytes`, checked, which is not kept.
    pub(crate) async fn small_blob(&self, digest: Digest, limit_bytes: u64) -> Result<Vec<u8>, RegistryError> {
        self.bounded(&Ask::new(Method::GET, format!("blobs/{digest}")), limit_bytes, Some(digest)).await
    }

    fn manifest_ask(&self, method: Method, pinned: Option<Digest>) -> Ask {
        let name = match pinned {
            Some(digest) => digest.to_string(),
            None => self.image.tag().unwrap_or_default().to_owned(),
        };
        let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        Ask { accept: Some(accept), ..Ask::new(method, format!("manifests/{name}")) }
    }

    async fn within_manifest_time<T>(&self, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let answer = tokio::time::timeout(self.limits.manifest_timeout, answer).await;
        answer.unwrap_or_else(|_| Err(Failure::passing("it did not answer in time")))
    }

    /// The hosts for a request, each with how often it is asked: mirrors once, the last one as often as it takes.
    fn hosts_that(&self, fits: impl Fn(&Endpoint) -> bool) -> Result<Vec<(&Host, u32)>, RegistryError> {
        let fitting: Vec<&Host> = self.hosts.iter().filter(|host| fits(&host.endpoint)).collect();
        let last = fitting.len().checked_sub(1).ok_or_else(no_host)?;
        let tries = |at| if at == last { self.limits.tries } else { 1 };
        Ok(fitting.into_iter().enumerate().map(|(at, host)| (host, tries(at))).collect())
    }

    /// What is told when the next host fails as well: its failure, and that of the ones before it.
    fn passed_over(&self, host: &Host, before: Option<RegistryError>, error: RegistryError) -> RegistryError {
        let Some(before) = before else { return error };
        tracing::debug!(image = %self.image, host = host.endpoint.host(), ?before, "a mirror failed before");
        match (before, error) {
            (RegistryError::Unavailable(before), RegistryError::Unavailable(cause)) => {
                RegistryError::Unavailable(format!("{cause} (and before, from a mirror: {before})"))
            }
            (_, error) => error,
        }
    }
}

fn no_host() -> RegistryError {
    RegistryError::Client("no host of its hosts.toml has the capability for it".to_owned())
}

/// The content, if it is what its digest says.
fn checked(content: Vec<u8>, digest: Option<Digest>) -> Result<Vec<u8>, Failure> {
    let Some(expected) = digest else { return Ok(content) };
    match Digest::of(&content) {
        actual if actual == expected => Ok(content),
        actual => Err(Failure::Lasting(RegistryError::Corrupt(format!("its content has the digest {actual}")))),
    }
}

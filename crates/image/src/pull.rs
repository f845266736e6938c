//! Pulling: a reference and credentials come in, an image in the store goes out, or an error a user can act on.
//!
//! Local OCI layouts are looked at first, in their order, then the registry. The reference is resolved anew by every
//! pull; blobs that are in the store already are not fetched again. Equal pulls at the same time are one pull, and
//! different pulls that need the same blob wait for one download of it. A pull goes on when its caller stops waiting.
//! Whether to pull at all (`imagePullPolicy`) and when to try again are not decided here.

mod archive;
mod config;
mod error;
mod fetch;
mod layout;
mod look;
mod make;
mod present;
mod select;
mod signed;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

pub use self::error::{Layouts, Part, PullError, PullErrorKind};
pub use self::look::{Looked, SignatureFound, Verdict};
pub use self::select::Refusal;
pub(crate) use self::select::wasm_platform;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::registry::{Limits, Registries, RegistryOptions};
use crate::store::{Image, Store};
use crate::trust::TrustPolicy;

/// What a [`Puller`] pulls from and into.
#[derive(Clone)]
pub struct PullerOptions {
    /// Where images go.
    pub store: Store,
    /// OCI image layouts, as directories or tar archives, and archives of `docker save`, looked at in this order before the
    /// registry. They need not exist.
    pub layouts: Vec<PathBuf>,
    /// Registries spoken to in plain HTTP, as `host` (any port) or `host:port`, besides those on loopback.
    pub plain_http: Vec<String>,
    /// A directory of containerd's `hosts.toml` files: mirrors, certificate authorities, client certificates.
    pub hosts_directory: Option<PathBuf>,
    /// Which images need whose signature; without one, all are taken.
    pub trust: Option<Arc<TrustPolicy>>,
    /// Bounds of every pull.
    pub limits: Limits,
    /// Hears how far pulls are, where somebody wants to know.
    pub told: Option<Told>,
}

/// What a pull has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullProgress {
    /// This blob is in the store already.
    Present(Digest),
    /// This blob of so many bytes is being fetched.
    Fetching(Digest, u64),
    /// So many bytes of it are here.
    Received(Digest, u64),
    /// All of it is here.
    Fetched(Digest),
}

/// Who hears of it; called from the pull's own task, and so not to wait.
pub type Told = Arc<dyn Fn(PullProgress) + Send + Sync>;

impl PullerOptions {
    /// Into this store, from registries over HTTPS, within the default limits.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            layouts: Vec::new(),
            plain_http: Vec::new(),
            hosts_directory: None,
            trust: None,
            limits: Limits::default(),
            told: None,
        }
    }
}

/// Pulls images. Clones share what is under way.
#[derive(Clone)]
pub struct Puller(Arc<Inner>);

struct Inner {
    options: PullerOptions,
    registries: Registries,
    under_way: Mutex<HashMap<Wanted, Flight>>,
    /// Downloads by blob; one at a time holds the gate.
    gates: Mutex<HashMap<Digest, Weak<Gate>>>,
}

/// Equal pulls have equal credentials: no one gets a private image by asking while another pulls it.
type Wanted = (Reference, Option<Credentials>);
type Flight = Shared<BoxFuture<'static, Result<Image, PullError>>>;
type Gate = tokio::sync::Mutex<()>;

impl Puller {
    /// Makes a puller. The process's TLS provider becomes ring, unless one was installed before.
    #[must_use]
    pub fn new(options: PullerOptions) -> Self {
        let registries = Registries::new(RegistryOptions {
            plain_http: options.plain_http.clone(),
            hosts_directory: options.hosts_directory.clone(),
            limits: options.limits,
        });
        Self(Arc::new(Inner { options, registries, under_way: Mutex::default(), gates: Mutex::default() }))
    }

    /// The store it pulls into.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.options.store
    }

    /// Pulls an image, and returns it once it is whole in the store. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// See [`PullError`]; [`PullError::kind`] tells what kind of cause, [`PullError::message`] is the text for a user.
    pub async fn pull(&self, image: &Reference, credentials: Option<Credentials>) -> Result<Image, PullError> {
        let flight = {
            let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = (image.clone(), credentials);
            let found = under_way.get(&wanted).cloned();
            found.unwrap_or_else(|| {
                let flight = take_off(self.0.clone(), wanted.clone());
                under_way.insert(wanted, flight.clone());
                flight
            })
        };
        flight.await
    }
}

/// Starts a pull of its own task, so that it outlives a caller who stops waiting.
fn take_off(inner: Arc<Inner>, wanted: Wanted) -> Flight {
    let image = wanted.0.clone();
    let task = tokio::spawn(async move {
        let landing = Landing { inner, wanted };
        let (image, credentials) = &landing.wanted;
        landing.inner.pull(image, credentials.as_ref()).await
    });
    async move { task.await.unwrap_or(Err(PullError::Aborted { image })) }.boxed().shared()
}

/// Takes a pull off the list when its task ends, however it ends.
struct Landing {
    inner: Arc<Inner>,
    wanted: Wanted,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.wanted);
    }
}

impl Inner {
    /// The lock that lets one download of a blob happen at a time.
    fn gate(&self, blob: Digest) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(&blob).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::default());
        gates.insert(blob, Arc::downgrade(&gate));
        gate
    }
}

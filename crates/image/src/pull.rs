//! Pulling: a reference and credentials come in, an image in the store goes out, or an error a user can act on.
//!
//! Local OCI layouts are looked at first, in their order, then the registry. The reference is resolved anew by every
//! pull; blobs that are in the store already are not fetched again. Equal pulls at the same time are one pull, and
//! different pulls that need the same blob wait for one download of it. A pull goes on when its caller stops waiting.
//! Whether to pull at all (`imagePullPolicy`) and when to try again are not decided here.

mod config;
mod error;
mod layout;
mod registry;
mod select;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::io::AsyncReadExt;

pub use self::error::{Part, PullError, PullErrorKind};
use self::layout::Layout;
use self::registry::{Registry, Scheme};
pub use self::select::Refusal;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, DocumentError, Index, Manifest};
use crate::reference::{Reference, host_of};
use crate::store::{Image, Ingest, IngestError, Record, Store, StoreError};

/// Registries take manifests of at most 4 MiB; configurations are held to the same.
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
const WASM_MAGIC: &[u8; 4] = b"\0asm";

/// Bounds of every pull.
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
    /// Bytes of a wasm layer.
    pub wasm_bytes_max: u64,
    /// Tries of each request, when failures may pass.
    pub tries: u32,
    /// Before the second try; it doubles with each, and is spread.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            manifest_timeout: Duration::from_secs(60),
            layer_timeout: Duration::from_secs(30 * 60),
            wasm_bytes_max: 512 * 1024 * 1024,
            tries: 3,
            pause: Duration::from_millis(500),
        }
    }
}

/// What a [`Puller`] pulls from and into.
#[derive(Clone)]
pub struct PullerOptions {
    /// Where images go.
    pub store: Store,
    /// OCI image layout directories, looked at in this order before the registry. They need not exist.
    pub layouts: Vec<PathBuf>,
    /// Registries spoken to in plain HTTP, as `host` (any port) or `host:port`, besides those on loopback.
    pub plain_http: Vec<String>,
    /// Bounds of every pull.
    pub limits: Limits,
}

impl PullerOptions {
    /// Into this store, from registries over HTTPS, within the default limits.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, layouts: Vec::new(), plain_http: Vec::new(), limits: Limits::default() }
    }
}

/// Pulls images. Clones share what is under way.
#[derive(Clone)]
pub struct Puller(Arc<Inner>);

struct Inner {
    options: PullerOptions,
    under_way: Mutex<HashMap<Wanted, Flight>>,
    /// Downloads by blob; one at a time holds the gate.
    gates: Mutex<HashMap<Digest, Weak<Gate>>>,
}

/// Equal pulls have equal credentials: no one gets a private image by asking while another pulls it.
type Wanted = (Reference, Option<Credentials>);
type Flight = Shared<BoxFuture<'static, Result<Image, PullError>>>;
type Gate = tokio::sync::Mutex<()>;

enum Source {
    Layout(Layout),
    Registry(Box<Registry>),
}

impl Puller {
    /// Makes a puller. The process's TLS provider becomes ring, unless one was installed before.
    #[must_use]
    pub fn new(options: PullerOptions) -> Self {
        // An error says that there is one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(Arc::new(Inner { options, under_way: Mutex::default(), gates: Mutex::default() }))
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
    async fn pull(&self, image: &Reference, credentials: Option<&Credentials>) -> Result<Image, PullError> {
        let source = self.source(image, credentials).await?;
        let mut tries = 1;
        loop {
            match self.pull_from(&source, image).await {
                // Someone removed an image that shares a blob with this one, after it was seen to be here.
                Err(PullError::Store { source: StoreError::BlobGone(blob), .. })
                    if tries < self.options.limits.tries =>
                {
                    tracing::debug!(%image, %blob, "a blob was removed meanwhile, pulling again");
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn source(&self, image: &Reference, credentials: Option<&Credentials>) -> Result<Source, PullError> {
        for directory in &self.options.layouts {
            if let Some(layout) = Layout::find(directory, image).await? {
                tracing::debug!(%image, layout = %directory.display(), "found in an image layout");
                return Ok(Source::Layout(layout));
            }
        }
        let registry = image.registry();
        let configured = |host: &String| host == registry || host == host_of(registry);
        let plain = image.is_loopback() || self.options.plain_http.iter().any(configured);
        let scheme = if plain { Scheme::Http } else { Scheme::Https };
        Ok(Source::Registry(Box::new(Registry::new(image, credentials, scheme, self.options.limits)?)))
    }

    async fn pull_from(&self, source: &Source, image: &Reference) -> Result<Image, PullError> {
        let unsupported = |source| PullError::Unsupported { image: image.clone(), source };
        let top = self.manifest(source, image, Part::Manifest).await?;
        let target = Digest::of(&top);
        let mut blobs = BTreeMap::from([(target, top.len() as u64)]);
        let manifest = match parse(image, Part::Manifest, &top)? {
            Document::Manifest(manifest) => (target, manifest),
            Document::Index(index) => {
                let platform = select::wasm_platform(&index).map_err(unsupported)?.digest;
                let content = self.manifest(source, image, Part::PlatformManifest(platform)).await?;
                blobs.insert(platform, content.len() as u64);
                (platform, only_manifest(image, Part::PlatformManifest(platform), &content)?)
            }
        };
        let (manifest_digest, manifest) = manifest;
        let layer = select::wasm_layer(&manifest).map_err(unsupported)?;
        let (config_part, layer_part) = (Part::Config(manifest.config.digest), Part::Layer(layer.digest));
        check_size(image, config_part, manifest.config.size, MANIFEST_BYTES_MAX)?;
        check_size(image, layer_part, layer.size, self.options.limits.wasm_bytes_max)?;

        self.obtain(source, image, &manifest.config, config_part).await?;
        self.obtain(source, image, layer, layer_part).await?;
        self.check_magic(image, layer).await?;
        let config = self.read_config(image, &manifest.config).await?;
        let (id, config) = config::read(&manifest.config, &config, manifest_digest, layer.digest).map_err(|error| {
            PullError::Corrupt {
                image: image.clone(),
                part: config_part,
                problem: format!("it is malformed ({error})"),
            }
        })?;
        blobs.extend([(manifest.config.digest, manifest.config.size), (layer.digest, layer.size)]);
        let record = Record {
            id,
            wasm: layer.digest,
            media_type: layer.media_type.clone(),
            blobs,
            tags: if image.digest().is_none() { BTreeSet::from([image.clone()]) } else { BTreeSet::new() },
            digests: BTreeSet::from([image.at(target)]),
            config,
            pulled_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        self.commit(image, record).await
    }

    /// Gets a manifest or index, checks it against the digest it should have, and keeps it.
    async fn manifest(&self, source: &Source, image: &Reference, part: Part) -> Result<Vec<u8>, PullError> {
        let content = match source {
            Source::Layout(layout) => layout.manifest(part).await?,
            Source::Registry(registry) => registry.manifest(part).await?,
        };
        check_size(image, part, content.len() as u64, MANIFEST_BYTES_MAX)?;
        let blob = Descriptor::of("", &content);
        let expected = part.digest().or(image.digest()).unwrap_or(blob.digest);
        if blob.digest != expected {
            let problem = format!("its content has the digest {}", blob.digest);
            return Err(PullError::Corrupt { image: image.clone(), part, problem });
        }
        if !self.options.store.contains(&blob.digest, blob.size) {
            let mut ingest = self.ingest(image)?;
            ingest.write(&content).await.map_err(|source| PullError::storing(image, source))?;
            finish(image, part, ingest, &blob).await?;
        }
        Ok(content)
    }

    /// Makes sure that a blob is in the store. Whoever comes first fetches it, the others wait and find it.
    async fn obtain(&self, source: &Source, image: &Reference, blob: &Descriptor, part: Part) -> Result<(), PullError> {
        let gate = self.gate(blob.digest);
        let _turn = gate.lock().await;
        if self.options.store.contains(&blob.digest, blob.size) {
            return Ok(());
        }
        match source {
            Source::Registry(registry) => registry.blob(blob, part, &self.options.store).await,
            Source::Layout(layout) => {
                let mut ingest = self.ingest(image)?;
                layout.copy(blob, &mut ingest).await?;
                finish(image, part, ingest, blob).await
            }
        }
    }

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

    fn ingest(&self, image: &Reference) -> Result<Ingest, PullError> {
        self.options.store.ingest().map_err(|source| PullError::Store { image: image.clone(), source })
    }

    /// The media type said wasm; the binary has the last word.
    async fn check_magic(&self, image: &Reference, layer: &Descriptor) -> Result<(), PullError> {
        let begin = self.read_blob(image, layer.digest, WASM_MAGIC.len() as u64).await?;
        if begin == WASM_MAGIC {
            return Ok(());
        }
        let source = Refusal::NotWasm { media_type: layer.media_type.clone() };
        Err(PullError::Unsupported { image: image.clone(), source })
    }

    async fn read_config(&self, image: &Reference, config: &Descriptor) -> Result<Vec<u8>, PullError> {
        self.read_blob(image, config.digest, MANIFEST_BYTES_MAX).await
    }

    async fn read_blob(&self, image: &Reference, blob: Digest, bytes_max: u64) -> Result<Vec<u8>, PullError> {
        let path = self.options.store.blob_path(&blob);
        let mut content = Vec::new();
        let read = async { tokio::fs::File::open(&path).await?.take(bytes_max).read_to_end(&mut content).await };
        match read.await {
            Ok(_) => Ok(content),
            Err(error) => {
                Err(PullError::Store { image: image.clone(), source: StoreError::unreadable(blob, &path, error) })
            }
        }
    }

    async fn commit(&self, image: &Reference, record: Record) -> Result<Image, PullError> {
        let store = self.options.store.clone();
        let committed = tokio::task::spawn_blocking(move || store.commit(record)).await;
        let committed = committed.map_err(|_| PullError::Aborted { image: image.clone() })?;
        let entered = committed.map_err(|source| PullError::Store { image: image.clone(), source })?;
        tracing::info!(%image, id = %entered.id, bytes = entered.size_bytes, "pulled");
        Ok(entered)
    }
}

/// Checks a whole blob and gives it its name in the store.
async fn finish(image: &Reference, part: Part, ingest: Ingest, blob: &Descriptor) -> Result<(), PullError> {
    ingest.finish(blob).await.map_err(|error| match error {
        IngestError::Io(source) => PullError::storing(image, source),
        mismatch => PullError::Corrupt { image: image.clone(), part, problem: mismatch.to_string() },
    })
}

fn check_size(image: &Reference, part: Part, size_bytes: u64, limit_bytes: u64) -> Result<(), PullError> {
    if size_bytes <= limit_bytes {
        return Ok(());
    }
    Err(PullError::TooLarge { image: image.clone(), part, size_bytes, limit_bytes })
}

fn parse(image: &Reference, part: Part, content: &[u8]) -> Result<Document, PullError> {
    Document::parse(content).map_err(|error| match error {
        DocumentError::Schema1 => PullError::Unsupported { image: image.clone(), source: Refusal::Schema1 },
        other => PullError::Corrupt { image: image.clone(), part, problem: other.to_string() },
    })
}

/// What an index names must be a manifest: an index in an index could go on for ever.
fn only_manifest(image: &Reference, part: Part, content: &[u8]) -> Result<Manifest, PullError> {
    match parse(image, part, content)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(Index { .. }) => {
            let problem = "it is an index inside an index".to_owned();
            Err(PullError::Corrupt { image: image.clone(), part, problem })
        }
    }
}

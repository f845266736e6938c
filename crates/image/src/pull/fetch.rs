//! One pull, step by step: where it comes from, which manifest, which layers, into the store, onto the table.
//!
//! Every step checks what it was given before the next one uses it: digests and sizes, then types, then the content.
//! What the layers become is in `make`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::io::AsyncReadExt;

use super::error::{Layouts, Part, PullError};
use super::layout::Layout;
use super::select::{self, Kind, Refusal};
use super::{Inner, PullProgress, config};
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, DocumentError, Manifest};
use crate::reference::Reference;
use crate::registry::{Access, MANIFEST_BYTES_MAX, RegistryError, Session};
use crate::store::{Image, ImageId, Ingest, IngestError, Record, StoreError};

pub(super) enum Source {
    Layout(Layout),
    Registry(Box<Session>),
}

/// What a reference stands for.
pub(super) struct Resolved {
    /// The digest behind the reference: the index's where there is one, else the manifest's.
    pub(super) target: Digest,
    pub(super) manifest_digest: Digest,
    pub(super) manifest: Box<Manifest>,
    /// The index and the manifest, with their sizes in bytes.
    blobs: BTreeMap<Digest, u64>,
}

impl Inner {
    pub(super) async fn pull(&self, image: &Reference, credentials: Option<&Credentials>) -> Result<Image, PullError> {
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

    pub(super) async fn source(
        &self,
        image: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Source, PullError> {
        for directory in &self.options.layouts {
            if let Some(layout) = Layout::find(directory, image).await? {
                tracing::debug!(%image, layout = %directory.display(), "found in an image layout");
                return Ok(Source::Layout(layout));
            }
        }
        let session = self.registries.session(image, credentials, Access::Pull);
        let session = session.map_err(|error| self.failed(image, Part::Manifest, error))?;
        Ok(Source::Registry(Box::new(session)))
    }

    pub(super) fn failed(&self, image: &Reference, part: Part, error: RegistryError) -> PullError {
        PullError::of_registry(image, part, &Layouts(self.options.layouts.clone()), error)
    }

    async fn pull_from(&self, source: &Source, image: &Reference) -> Result<Image, PullError> {
        let Resolved { target, manifest_digest, manifest, mut blobs } = self.resolve(source, image).await?;
        let verified = self.check_trust(source, image, &[target, manifest_digest]).await?;
        let kind = select::kind(&manifest).map_err(|source| PullError::Unsupported { image: image.clone(), source })?;
        let config_part = Part::Config(manifest.config.digest);
        check_size(image, config_part, manifest.config.size, MANIFEST_BYTES_MAX)?;
        let limits = &self.options.limits;
        let layer_bytes_max = match kind {
            Kind::Wasm(_) | Kind::Spin(_) => limits.wasm_bytes_max,
            Kind::Rootfs => limits.layer_bytes_max,
        };
        for layer in &manifest.layers {
            check_size(image, Part::Layer(layer.digest), layer.size, layer_bytes_max)?;
        }

        self.obtain(source, image, &manifest.config, config_part).await?;
        self.obtain_layers(source, image, &manifest.layers).await?;
        let content = self.read_blob(image, manifest.config.digest, MANIFEST_BYTES_MAX).await?;
        let configured = config::read(&manifest.config, &content).map_err(|error| PullError::Corrupt {
            image: image.clone(),
            part: config_part,
            problem: format!("it is malformed ({error})"),
        })?;
        let (id, made) = match kind {
            Kind::Wasm(layer) => {
                (configured.id_with_wasm(layer.digest, manifest_digest), self.wasm(image, layer).await?)
            }
            Kind::Rootfs => self.rootfs(image, &manifest, &configured).await?,
            Kind::Spin(locked_app) => (ImageId(manifest_digest), self.spin(image, &manifest, locked_app).await?),
        };
        blobs.extend(manifest.layers.iter().map(|layer| (layer.digest, layer.size)));
        blobs.insert(manifest.config.digest, manifest.config.size);
        let record = Record {
            id,
            made,
            blobs,
            // A tag beside a digest was not looked up, and may stand for something else.
            tags: if image.digest().is_none() { BTreeSet::from([image.clone()]) } else { BTreeSet::new() },
            digests: BTreeSet::from([image.at(target)]),
            config: configured.config,
            verified: Vec::from_iter(verified),
            pulled_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        self.commit(image, record).await
    }

    pub(super) async fn resolve(&self, source: &Source, image: &Reference) -> Result<Resolved, PullError> {
        let top = self.manifest(source, image, Part::Manifest).await?;
        let target = Digest::of(&top);
        let mut blobs = BTreeMap::from([(target, top.len() as u64)]);
        let index = match parse(image, Part::Manifest, &top)? {
            Document::Manifest(manifest) => return Ok(Resolved { target, manifest_digest: target, manifest, blobs }),
            Document::Index(index) => index,
        };
        let platform = select::wasm_platform(&index)
            .map_err(|source| PullError::Unsupported { image: image.clone(), source })?
            .digest;
        let part = Part::PlatformManifest(platform);
        let content = self.manifest(source, image, part).await?;
        blobs.insert(platform, content.len() as u64);
        match parse(image, part, &content)? {
            Document::Manifest(manifest) => Ok(Resolved { target, manifest_digest: platform, manifest, blobs }),
            // It could go on for ever.
            Document::Index(_) => {
                let problem = "it is an index inside an index".to_owned();
                Err(PullError::Corrupt { image: image.clone(), part, problem })
            }
        }
    }

    /// Gets a manifest or index, checks it against the digest it should have, and keeps it.
    async fn manifest(&self, source: &Source, image: &Reference, part: Part) -> Result<Vec<u8>, PullError> {
        let content = match source {
            Source::Layout(layout) => layout.manifest(part).await?,
            Source::Registry(session) => match self.kept(session, image, part).await? {
                Some(content) => content,
                None => {
                    let content = session.manifest(part.digest()).await;
                    content.map_err(|error| self.failed(image, part, error))?
                }
            },
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

    /// The manifest out of the store, if it is there and the registry still says that it is the one.
    ///
    /// Asking costs a registry little, and what it denies is denied although the content is here.
    async fn kept(&self, session: &Session, image: &Reference, part: Part) -> Result<Option<Vec<u8>>, PullError> {
        let store = &self.options.store;
        let digest = match (part, image.digest()) {
            // The registry has just been asked for the index that names it.
            (Part::PlatformManifest(digest), _) => digest,
            (_, None) if !matches!(store.find(image), Ok(Some(_))) => return Ok(None),
            (_, Some(digest)) if !store.blob_path(&digest).exists() => return Ok(None),
            _ => match session.look().await.map_err(|error| self.failed(image, part, error))? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        let content = self.read_blob(image, digest, MANIFEST_BYTES_MAX).await;
        Ok(content.ok().filter(|content| Digest::of(content) == digest))
    }

    /// Makes sure that a blob is in the store. Whoever comes first fetches it, the others wait and find it.
    async fn obtain(&self, source: &Source, image: &Reference, blob: &Descriptor, part: Part) -> Result<(), PullError> {
        let gate = self.gate(blob.digest);
        let _turn = gate.lock().await;
        if self.options.store.contains(&blob.digest, blob.size) {
            self.tell(PullProgress::Present(blob.digest));
            return Ok(());
        }
        self.tell(PullProgress::Fetching(blob.digest, blob.size));
        match source {
            Source::Registry(session) => {
                let received = |bytes| self.tell(PullProgress::Received(blob.digest, bytes));
                let fetched = session.blob(blob, &self.options.store, &received).await;
                fetched.map_err(|error| self.failed(image, part, error))?;
            }
            Source::Layout(layout) => {
                let mut ingest = self.ingest(image)?;
                layout.copy(blob, &mut ingest).await?;
                finish(image, part, ingest, blob).await?;
            }
        }
        self.tell(PullProgress::Fetched(blob.digest));
        Ok(())
    }

    fn tell(&self, progress: PullProgress) {
        if let Some(told) = &self.options.told {
            told(progress);
        }
    }

    /// Some layers at a time: registries are far, and layers come from different places.
    async fn obtain_layers(&self, source: &Source, image: &Reference, layers: &[Descriptor]) -> Result<(), PullError> {
        let obtain = |layer| self.obtain(source, image, layer, Part::Layer(layer.digest)).boxed();
        // Boxed and collected, as the compiler does not see through a stream of borrowing futures.
        let each: Vec<BoxFuture<'_, _>> = layers.iter().map(obtain).collect();
        stream::iter(each).buffer_unordered(self.options.limits.parallel_downloads.max(1)).try_collect().await
    }

    fn ingest(&self, image: &Reference) -> Result<Ingest, PullError> {
        self.options.store.ingest().map_err(|source| PullError::Store { image: image.clone(), source })
    }

    pub(super) async fn read_blob(
        &self,
        image: &Reference,
        blob: Digest,
        bytes_max: u64,
    ) -> Result<Vec<u8>, PullError> {
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
pub(super) async fn finish(image: &Reference, part: Part, ingest: Ingest, blob: &Descriptor) -> Result<(), PullError> {
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

//! What the layers of an image become: blobs that are here come in, what the table says of them goes out.
//!
//! The media types said what kind of image it is; the content has the last word. Equal chains of layers are unpacked
//! once, however many ask at one time.

use super::Inner;
use super::config::Configured;
use super::error::{Part, PullError};
use super::select::Refusal;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest};
use crate::reference::Reference;
use crate::registry::MANIFEST_BYTES_MAX;
use crate::rootfs::{self, UnpackError, UnpackLimits};
use crate::spin;
use crate::store::{ImageId, Made, Store, StoreError};

const WASM_MAGIC: &[u8; 4] = b"\0asm";

impl Inner {
    /// One wasm binary.
    pub(super) async fn wasm(&self, image: &Reference, layer: &Descriptor) -> Result<Made, PullError> {
        let begin = self.read_blob(image, layer.digest, WASM_MAGIC.len() as u64).await?;
        if begin == WASM_MAGIC {
            return Ok(Made::Wasm { digest: layer.digest, media_type: layer.media_type.clone() });
        }
        let source = Refusal::NotWasm { media_type: layer.media_type.clone() };
        Err(PullError::Unsupported { image: image.clone(), source })
    }

    /// A Spin application, kept as it is.
    pub(super) async fn spin(
        &self,
        image: &Reference,
        manifest: &Manifest,
        locked_app: &Descriptor,
    ) -> Result<Made, PullError> {
        let content = self.read_blob(image, locked_app.digest, MANIFEST_BYTES_MAX).await?;
        let name = spin::name(&content).map_err(|error| {
            let problem = match std::error::Error::source(&error) {
                Some(source) => format!("{error} ({source})"),
                None => error.to_string(),
            };
            PullError::Corrupt { image: image.clone(), part: Part::Layer(locked_app.digest), problem }
        })?;
        let others = manifest.layers.iter().filter(|layer| layer.digest != locked_app.digest);
        let layers = others.map(|layer| (layer.digest, layer.media_type.clone())).collect();
        Ok(Made::Spin { name, locked_app: locked_app.digest, layers })
    }

    /// Files, unpacked unless they are already.
    pub(super) async fn rootfs(
        &self,
        image: &Reference,
        manifest: &Manifest,
        configured: &Configured,
    ) -> Result<(ImageId, Made), PullError> {
        let (diff_ids, id) = configured.diff_ids(manifest.layers.len()).ok_or_else(|| PullError::Corrupt {
            image: image.clone(),
            part: Part::Config(manifest.config.digest),
            problem: format!("its rootfs.diff_ids are not the digests of the image's {} layers", manifest.layers.len()),
        })?;
        let chain = rootfs::chain(&diff_ids);
        let gate = self.gate(chain);
        let _turn = gate.lock().await;
        let store = self.options.store.clone();
        let limits = self.options.limits;
        let limits = UnpackLimits { bytes: limits.unpacked_bytes_max, entries: limits.entries_max };
        let blobs: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
        let layers: Vec<(Digest, Digest)> = blobs.iter().copied().zip(diff_ids).collect();
        let unpacked = tokio::task::spawn_blocking(move || unpack(&store, chain, &layers, limits)).await;
        let unpacked = unpacked.map_err(|_| PullError::Aborted { image: image.clone() })?;
        let unpacked_bytes = unpacked.map_err(|error| error.of(image, &blobs))?;
        Ok((id, Made::Rootfs { chain, unpacked_bytes }))
    }
}

enum Failure {
    Store(StoreError),
    /// At this layer, or at none of them.
    Unpack(usize, UnpackError),
}

impl Failure {
    fn of(self, image: &Reference, layers: &[Digest]) -> PullError {
        let image = image.clone();
        match self {
            Self::Store(source) => PullError::Store { image, source },
            Self::Unpack(_, error @ UnpackError::TooLarge { .. }) => {
                PullError::UnpackedTooLarge { image, problem: error.to_string() }
            }
            Self::Unpack(_, UnpackError::Write { path, source }) => {
                let source = StoreError::Io { step: "write", path, source: source.into() };
                PullError::Store { image, source }
            }
            Self::Unpack(position, error) => {
                let part = layers.get(position).map_or(Part::Manifest, |layer| Part::Layer(*layer));
                PullError::Corrupt { image, part, problem: error.to_string() }
            }
        }
    }
}

/// Unpacks the blobs of `layers`, each with the digest of its tar stream. Gives the bytes that the files take.
fn unpack(store: &Store, chain: Digest, layers: &[(Digest, Digest)], limits: UnpackLimits) -> Result<u64, Failure> {
    let directory = store.chain_path(&chain);
    let read = |directory: &std::path::Path| rootfs::Index::read(directory).ok();
    if let Some(index) = read(&directory) {
        return Ok(index.bytes);
    }
    let files: Vec<_> = layers.iter().map(|(blob, diff_id)| (store.blob_path(blob), *diff_id)).collect();
    let making = store.make_directory().map_err(Failure::Store)?;
    let started = std::time::Instant::now();
    let index = rootfs::make(making.path(), &files, limits).map_err(|(at, error)| match (error, files.get(at)) {
        (UnpackError::Open(error), Some((path, _))) => {
            Failure::Store(StoreError::unreadable(layers[at].0, path, error))
        }
        (error, _) => Failure::Unpack(at, error),
    })?;
    store.keep_rootfs(&making, &chain).map_err(Failure::Store)?;
    tracing::info!(%chain, bytes = index.bytes, inodes = index.inodes, "unpacked in {:.1?}", started.elapsed());
    Ok(index.bytes)
}

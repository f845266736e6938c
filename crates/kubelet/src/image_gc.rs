//! Giving up images that nothing uses: the runtime's lists come in, calls to remove images and events about the node go
//! out.
//!
//! Which images go, [`decide::image_gc`] decides. Here they are listed, the file system is asked how full it is, and what
//! may go is removed until there is room again. Never here: an image that a container is made of; the runtime refuses
//! that, too.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::client::CallError;
use cri::v1;
use decide::image_gc::{Candidate, FileSystem, Found, Images, Policy, excess_bytes, not_enough};
use jiff::Timestamp;
use tonic::Code;

use crate::clock::Clock;
use crate::events::{EventRecord, Recorder, node_reference};
use crate::metrics::Metrics;

/// How often images are looked at, the kubelet's number.
const PERIOD: Duration = Duration::from_secs(5 * 60);

/// What the collector needs.
pub struct Setup {
    /// The node's name, for events.
    pub node_name: String,
    /// The runtime.
    pub runtime: cri::Client,
    /// When images go.
    pub policy: Policy,
    /// How full the file system of a path is; [`file_system`] asks the system.
    pub probe: fn(&Path) -> io::Result<FileSystem>,
    /// Where events about the node go.
    pub recorder: Recorder,
    /// Where it is counted what goes.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// The collector of unused images.
pub struct Collector {
    setup: Setup,
    images: Images,
    began: Timestamp,
    /// Whether the last look ended in an error: the first one may come of a runtime that has just started.
    failed: bool,
}

/// Why an image goes.
#[derive(Clone, Copy)]
enum Why {
    Age,
    Space,
}

impl Why {
    /// The kubelet's, for its metric.
    fn label(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Space => "space",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Age => "unused for too long",
            Self::Space => "the disk is too full",
        }
    }
}

/// Why a look was in vain.
#[derive(Debug, thiserror::Error)]
enum GcError {
    #[error("{call}: {}", call.message())]
    Runtime { call: CallError },
    #[error("the runtime does not say where its images are")]
    NoFileSystem,
    #[error("cannot tell how full {} is: {source}", path.display())]
    Stat { path: PathBuf, source: io::Error },
    #[error("{0}")]
    InvalidCapacity(String),
    #[error("{0}")]
    NotEnough(String),
    #[error(
        "wanted to free {wanted_bytes} bytes, but freed {freed_bytes} bytes space with errors in image deletion: {first}"
    )]
    Removal { wanted_bytes: u64, freed_bytes: u64, first: String },
}

impl From<CallError> for GcError {
    fn from(call: CallError) -> Self {
        Self::Runtime { call }
    }
}

impl Collector {
    /// A collector that has not looked yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let began = setup.clock.now();
        Self { setup, images: Images::default(), began, failed: false }
    }

    /// Looks every few minutes until it is dropped; not at all where the policy is to keep everything.
    pub async fn run(mut self) {
        if !self.setup.policy.is_on() {
            return std::future::pending().await;
        }
        loop {
            self.look().await;
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// One look, and what comes of it.
    pub async fn look(&mut self) {
        match self.collect().await {
            Ok(()) => self.failed = false,
            Err(error) => {
                match &error {
                    GcError::InvalidCapacity(message) => self.warn("InvalidDiskCapacity", message.clone()),
                    GcError::NotEnough(message) => self.warn("FreeDiskSpaceFailed", message.clone()),
                    _ => {}
                }
                if std::mem::replace(&mut self.failed, true) {
                    self.warn("ImageGCFailed", error.to_string());
                } else {
                    tracing::warn!(%error, "unused images could not be removed; trying again");
                }
            }
        }
    }

    async fn collect(&mut self) -> Result<(), GcError> {
        let (images, containers) =
            tokio::try_join!(self.setup.runtime.list_images(None), self.setup.runtime.list_containers(None))?;
        let now = self.setup.clock.now();
        let in_use: BTreeSet<String> = containers.into_iter().map(image_of).collect();
        let found =
            images.into_iter().map(|image| Found { id: image.id, size_bytes: image.size, pinned: image.pinned });
        self.images.detect(found.collect(), &in_use, now);
        let policy = self.setup.policy;
        self.remove(self.images.outdated(&policy, self.began, now), u64::MAX, Why::Age).await;
        if policy.high_threshold_percent >= 100 {
            return Ok(());
        }
        let wanted_bytes = excess_bytes(self.file_system().await?, &policy).map_err(GcError::InvalidCapacity)?;
        if wanted_bytes == 0 {
            return Ok(());
        }
        let candidates = self.images.by_last_use(&policy, now);
        let (freed_bytes, errors) = self.remove(candidates, wanted_bytes, Why::Space).await;
        match errors.into_iter().next() {
            Some(first) => Err(GcError::Removal { wanted_bytes, freed_bytes, first }),
            None if freed_bytes < wanted_bytes => Err(GcError::NotEnough(not_enough(wanted_bytes, freed_bytes))),
            None => Ok(()),
        }
    }

    /// Removes images until so much is free. Says how much that was, and what went wrong.
    async fn remove(&mut self, candidates: Vec<Candidate>, wanted_bytes: u64, why: Why) -> (u64, Vec<String>) {
        let (mut freed_bytes, mut errors) = (0_u64, Vec::new());
        for Candidate { id, size_bytes } in candidates {
            if freed_bytes >= wanted_bytes {
                break;
            }
            let image = v1::ImageSpec { image: id.clone(), ..Default::default() };
            match self.setup.runtime.remove_image(image).await {
                Ok(()) => {
                    tracing::info!(image = id, size_bytes, why = why.words(), "an unused image is removed");
                    self.setup.metrics.image_collected(why.label());
                    self.images.forget(&id);
                    freed_bytes = freed_bytes.saturating_add(size_bytes);
                }
                // A container was made of it since the lists were, or another process on this node uses it.
                Err(error) if error.code() == Code::FailedPrecondition => {
                    tracing::debug!(image = id, "the image is in use");
                }
                Err(error) => errors.push(format!("{error}: {}", error.message())),
            }
        }
        (freed_bytes, errors)
    }

    async fn file_system(&self) -> Result<FileSystem, GcError> {
        let answer = self.setup.runtime.image_fs_info().await?;
        let path = answer.image_filesystems.into_iter().next().and_then(|it| it.fs_id).map(|id| id.mountpoint);
        let path = PathBuf::from(path.filter(|path| !path.is_empty()).ok_or(GcError::NoFileSystem)?);
        let (asked, probe) = (path.clone(), self.setup.probe);
        let probed = tokio::task::spawn_blocking(move || probe(&asked)).await.map_err(io::Error::other);
        probed.and_then(|probed| probed).map_err(|source| GcError::Stat { path, source })
    }

    fn warn(&self, reason: &str, message: String) {
        self.setup.recorder.record(EventRecord {
            about: node_reference(&self.setup.node_name),
            warning: true,
            reason: reason.to_owned(),
            message,
        });
    }
}

/// How full the file system of `path` is.
///
/// # Errors
/// A path that is not there, or that may not be looked at.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(FileSystem {
        capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// The image that a container is made of, by the runtime's id.
fn image_of(container: v1::Container) -> String {
    if container.image_id.is_empty() { container.image_ref } else { container.image_id }
}

#[cfg(test)]
#[path = "image_gc/tests.rs"]
mod tests;

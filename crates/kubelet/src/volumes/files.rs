//! Volumes of files made from API objects: what they need is gathered, the pure core makes their content, and the atomic
//! writer shows it.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::path::Path;

use decide::env::Configs;
use decide::env::field::Facts;
use decide::names::VolumeName;
use decide::pod::{FileSource, FileVolume, Pod, Volume};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

use super::error::VolumeError;
use super::{Held, Shared, VolumeOptions, atomic, layout, on_disk, tmpfs};
use crate::objects::{Objects, TokenRequest};

/// The account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";
/// The one kind whose content is no secret: it stays on the disk.
const PLAIN: &str = "kubernetes.io~configmap";
const DIRECTORY_MODE: u32 = 0o755;

/// What a pod's volumes were last made from.
#[derive(Default)]
pub(super) struct Projection {
    /// A hash of everything that went into each volume.
    seen: HashMap<VolumeName, u64>,
    /// With a key of its own, so that nobody can aim at two contents of one hash.
    hash: RandomState,
    /// When the next token is due.
    pub(super) renew_at: Option<Timestamp>,
}

/// Everything that one volume is made from.
struct Gathered {
    configs: Configs,
    tokens: BTreeMap<usize, String>,
    renew_at: Option<Timestamp>,
}

impl Shared {
    /// Makes the content of one volume and shows it, unless nothing that went into it has changed since the projection
    /// last saw it.
    pub(super) async fn project(
        &self,
        pod: &Pod,
        volume: &Volume,
        files: &FileVolume,
        held: &Held,
        projection: &mut Projection,
    ) -> Result<(), VolumeError> {
        let gathered = gather(&self.objects, pod, files).await?;
        projection.renew_at = projection.renew_at.into_iter().chain(gathered.renew_at).min();
        let seen = gathered.fingerprint(pod, &self.options, &projection.hash);
        if projection.seen.get(&volume.name) == Some(&seen) {
            return Ok(());
        }
        let (host_ips, allocatable) = (self.options.host_ips.borrow().clone(), *self.options.allocatable.borrow());
        // Files show metadata only, so the pod's addresses are not needed.
        let facts = Facts { pod_ips: &[], host_ips: &host_ips, allocatable: &allocatable };
        let payload = decide::volume::payload(files, pod, &facts, &gathered.configs, &gathered.tokens)?;
        let directory = self.layout.volume(&pod.uid, volume)?;
        let secret = files.plugin != PLAIN;
        let written = on_disk(held, move || {
            make_directory(&directory, secret)?;
            atomic::write(&directory, &payload)
        });
        if written.await? {
            tracing::debug!(pod = %pod.name, volume = %volume.name, "wrote the volume");
        }
        projection.seen.insert(volume.name.clone(), seen);
        Ok(())
    }
}

async fn gather(objects: &Objects, pod: &Pod, files: &FileVolume) -> Result<Gathered, VolumeError> {
    let references: Vec<_> = crate::objects::of_files(files).collect();
    let configs = objects.configs(&pod.name.namespace, &references).await?;
    let (mut tokens, mut renew_at) = (BTreeMap::new(), None);
    for (index, source) in files.sources.iter().enumerate() {
        let FileSource::ServiceAccountToken { audience, expiration, .. } = source else { continue };
        let account = pod.service_account.as_deref().unwrap_or(DEFAULT_ACCOUNT);
        let request = TokenRequest {
            namespace: pod.name.namespace.clone(),
            service_account: account.to_owned(),
            pod_name: pod.name.name.clone(),
            pod_uid: pod.uid.clone(),
            audience: audience.clone(),
            expiration: *expiration,
        };
        let token = objects.token(&request).await?;
        renew_at = renew_at.into_iter().chain([token.renew_at]).min();
        tokens.insert(index, token.token);
    }
    Ok(Gathered { configs, tokens, renew_at })
}

impl Gathered {
    fn fingerprint(&self, pod: &Pod, options: &VolumeOptions, hash: &RandomState) -> u64 {
        let edition = |metadata: &ObjectMeta| (metadata.uid.clone(), metadata.resource_version.clone());
        let mut hasher = hash.build_hasher();
        for (name, map) in &self.configs.config_maps {
            (name, edition(&map.metadata)).hash(&mut hasher);
        }
        for (name, secret) in &self.configs.secrets {
            (name, edition(&secret.metadata)).hash(&mut hasher);
        }
        (self.configs.config_maps.len(), &self.tokens, &pod.labels, &pod.annotations).hash(&mut hasher);
        let allocatable = *options.allocatable.borrow();
        (allocatable.cpu_millis, allocatable.memory_bytes, allocatable.ephemeral_storage_bytes).hash(&mut hasher);
        hasher.finish()
    }
}

/// Secrets are kept off the disk where this process may mount a tmpfs. Where it may not, the directory is on the disk,
/// below one that nobody but us can pass.
fn make_directory(directory: &Path, secret: bool) -> Result<(), VolumeError> {
    layout::make_private(directory)?;
    if secret && !tmpfs::is_mounted(directory)? {
        match tmpfs::mount(directory, DIRECTORY_MODE, None)? {
            tmpfs::Mounted::Yes => {}
            tmpfs::Mounted::NotPermitted => {
                tracing::debug!(directory = %directory.display(), "no right to mount a tmpfs: secrets are on the disk");
            }
        }
    }
    Ok(())
}

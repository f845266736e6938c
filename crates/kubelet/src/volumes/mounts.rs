//! What a container is to see of its pod's volumes.
//!
//! Comes in: a container and its environment. Goes out: CRI's mounts, whose paths are there and have no link in them. A
//! container that is made again has them resolved again.

use std::fs;
use std::path::PathBuf;

use cri::v1;
use decide::event::Failure;
use decide::pod::{Container, Mount, Pod, VolumeSource};

use super::error::VolumeError;
use super::{Held, Volumes, on_disk, sub_path};

impl Volumes {
    /// The container's mounts. What a `subPath` names is made where it is not there. Volumes made from API objects are
    /// always read-only.
    ///
    /// # Errors
    /// `CreateContainerConfigError`: the pod has no such volume or is not prepared, or there is no such part of it.
    pub async fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<Vec<v1::Mount>, Failure> {
        let made = async {
            let (_, held) = self.directory_of(&pod.uid).await?;
            let mut mounts = Vec::with_capacity(container.mounts.len());
            for mount in &container.mounts {
                mounts.push(self.mount(pod, container, mount, env, &held).await?);
            }
            Ok(mounts)
        };
        made.await.map_err(|error: VolumeError| {
            if let VolumeError::SubPath { source, .. } = &error {
                // For the node's owner alone: it may tell of files that are not the pod's.
                tracing::warn!(pod = %pod.name, "{error}: {source}");
            }
            Failure::new("CreateContainerConfigError", error.message())
        })
    }

    async fn mount(
        &self,
        pod: &Pod,
        container: &Container,
        mount: &Mount,
        env: &[(String, String)],
        held: &Held,
    ) -> Result<v1::Mount, VolumeError> {
        let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
        let volume = volume.ok_or_else(|| VolumeError::NoVolume {
            volume: mount.volume.as_str().to_owned(),
            container: container.name.as_str().to_owned(),
        })?;
        let part = decide::env::sub_path(&mount.sub_path, env)?;
        let (root, read_only) = match &volume.source {
            VolumeSource::HostPath { path, .. } => (PathBuf::from(path), mount.read_only),
            VolumeSource::EmptyDir { .. } => (self.shared.layout.volume(&pod.uid, volume)?, mount.read_only),
            VolumeSource::Files(_) => (self.shared.layout.volume(&pod.uid, volume)?, true),
            VolumeSource::Image { reference, .. } => return Ok(image_mount(mount, reference, part)),
        };
        let (volume, container) = (mount.volume.as_str().to_owned(), container.name.as_str().to_owned());
        let path = on_disk(held, move || {
            let root = fs::canonicalize(&root).map_err(VolumeError::at("resolve", &root))?;
            let found = sub_path::within(&root, &part);
            found.map_err(|(step, source)| VolumeError::SubPath { step, volume, container, source })
        });
        let path = path.await?;
        Ok(v1::Mount {
            container_path: mount.path.clone(),
            host_path: utf8(path)?,
            readonly: read_only,
            propagation: v1::MountPropagation::PropagationPrivate.into(),
            ..v1::Mount::default()
        })
    }
}

/// The files of an image, which the runtime finds by its name.
fn image_mount(mount: &Mount, reference: &str, part: String) -> v1::Mount {
    v1::Mount {
        container_path: mount.path.clone(),
        image: Some(v1::ImageSpec {
            image: reference.to_owned(),
            user_specified_image: reference.to_owned(),
            ..Default::default()
        }),
        image_sub_path: part,
        readonly: true,
        propagation: v1::MountPropagation::PropagationPrivate.into(),
        ..v1::Mount::default()
    }
}

/// A path as CRI carries it.
pub(super) fn utf8(path: PathBuf) -> Result<String, VolumeError> {
    path.into_os_string().into_string().map_err(|path| VolumeError::NotUtf8 { path: path.into() })
}

//! Making sure that an image is on the node, by its pull policy.
//!
//! Comes in: a container. Goes out: the image to create it from, or the kubelet's reason why there is none. Never here:
//! a second try; the plan backs off.

use std::time::Instant;

use cri::client::CallError;
use cri::v1;
use decide::event::{Failure, Image, ImageOrigin};
use decide::names::ImageId;
use decide::pod::{Container, Pod, PullPolicy, VolumeSource};
use decide::report;
use tonic::Code;

use super::{Effects, Say, pull_secrets};

impl Effects {
    /// The container's own image, and those of the volumes that it mounts.
    pub(super) async fn ensure_images(&self, pod: &Pod, container: &Container, say: Say<'_>) -> Result<Image, Failure> {
        for mount in &container.mounts {
            let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
            if let Some(VolumeSource::Image { reference, pull_policy }) = volume.map(|volume| &volume.source) {
                let image = self.ensure_image(pod, container, reference, *pull_policy, say).await?;
                say(match image.origin {
                    ImageOrigin::Present => report::image_present(reference, &container.name),
                    ImageOrigin::Pulled { took, waited, bytes } => {
                        report::pulled(reference, took, waited, bytes, &container.name)
                    }
                });
            }
        }
        self.ensure_image(pod, container, &container.image, container.pull_policy, say).await
    }

    async fn ensure_image(
        &self,
        pod: &Pod,
        container: &Container,
        image: &str,
        policy: PullPolicy,
        say: Say<'_>,
    ) -> Result<Image, Failure> {
        let spec =
            v1::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() };
        let present = self.image_status(&spec).await?;
        match (policy, present) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(present)) => {
                Ok(found(image, &present, ImageOrigin::Present))
            }
            (PullPolicy::Never, None) => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                Err(Failure::new("ErrImageNeverPull", message))
            }
            (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, None) => self.pull(pod, container, spec, say).await,
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        spec: v1::ImageSpec,
        say: Say<'_>,
    ) -> Result<Image, Failure> {
        let name = spec.image.clone();
        say(report::pulling(&name, &container.name));
        let asked = Instant::now();
        let credentials = pull_secrets::credentials(&self.objects, pod, &name).await;
        let turn = self.pulls.acquire().await;
        let began = Instant::now();
        self.runtime.pull_image(spec.clone(), credentials, None).await.map_err(|error| pull_failure(&error))?;
        drop(turn);
        let image = self.image_status(&spec).await?;
        let image = image.ok_or_else(|| {
            let message = format!("image \"{name}\" was pulled and is not on the node");
            Failure::new("ImageInspectError", message)
        })?;
        let origin = ImageOrigin::Pulled { took: began.elapsed(), waited: asked.elapsed(), bytes: image.size };
        Ok(found(&name, &image, origin))
    }

    async fn image_status(&self, spec: &v1::ImageSpec) -> Result<Option<v1::Image>, Failure> {
        self.runtime.image_status(spec.clone()).await.map_err(|error| match error.code() {
            Code::InvalidArgument => invalid_name(&error),
            _ => Failure::new("ImageInspectError", error.message().to_owned()),
        })
    }
}

fn invalid_name(error: &CallError) -> Failure {
    Failure::new("InvalidImageName", error.message().to_owned())
}

fn pull_failure(error: &CallError) -> Failure {
    // The runtime marks the causes that have a reason of their own by a prefix, as CRI has it.
    match error.code() {
        Code::InvalidArgument => invalid_name(error),
        _ => match error.message().strip_prefix("RegistryUnavailable: ") {
            Some(message) => Failure::new("RegistryUnavailable", message.to_owned()),
            None => Failure::new("ErrImagePull", error.message().to_owned()),
        },
    }
}

fn found(name: &str, image: &v1::Image, origin: ImageOrigin) -> Image {
    let reference = image.repo_digests.first().unwrap_or(&image.id).clone();
    Image { name: name.to_owned(), id: ImageId::from(image.id.as_str()), reference, origin }
}

//! Making sure that an image is on the node, by its pull policy.
//!
//! Comes in: a container. Goes out: the image to create it from, or the kubelet's reason why there is none. Never here:
//! a second try; the plan backs off.

use std::time::Instant;

use cri::client::CallError;
use cri::v1;
use decide::event::{Failure, Image, ImageOrigin};
use decide::names::ImageId;
use decide::pod::{Container, Pod, PullPolicy};
use decide::report;
use tonic::Code;

use super::{Effects, Say, pull_secrets};

impl Effects {
    pub(super) async fn ensure_image(&self, pod: &Pod, container: &Container, say: Say<'_>) -> Result<Image, Failure> {
        let spec = v1::ImageSpec {
            image: container.image.clone(),
            user_specified_image: container.image.clone(),
            ..Default::default()
        };
        let present = self.image_status(&spec).await?;
        match (container.pull_policy, present) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => {
                Ok(found(&container.image, &image, ImageOrigin::Present))
            }
            (PullPolicy::Never, None) => {
                let message =
                    format!("Container image \"{}\" is not present with pull policy of Never", container.image);
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
        say(report::pulling(&container.image, &container.name));
        let asked = Instant::now();
        let credentials = pull_secrets::credentials(&self.objects, pod, &container.image).await;
        let turn = self.pulls.acquire().await;
        let began = Instant::now();
        self.runtime.pull_image(spec.clone(), credentials, None).await.map_err(|error| pull_failure(&error))?;
        drop(turn);
        let image = self.image_status(&spec).await?;
        let image = image.ok_or_else(|| {
            let message = format!("image \"{}\" was pulled and is not on the node", container.image);
            Failure::new("ImageInspectError", message)
        })?;
        let origin = ImageOrigin::Pulled { took: began.elapsed(), waited: asked.elapsed(), bytes: image.size };
        Ok(found(&container.image, &image, origin))
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
